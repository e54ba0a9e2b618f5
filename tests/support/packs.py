"""The bundled model, opened once."""

from __future__ import annotations

import functools

from trireme_worker.actor import warm_up
from trireme_worker.pack import Pack, default_pack
from trireme_worker.stage import StageModel


@functools.cache
def bundled() -> Pack:
    """For reading only. The kernels are compiled when this returns: no test's deadline has to bear that."""
    pack = Pack.open(default_pack(), verify=False)
    model = StageModel(pack, range(pack.config.layers))
    warm_up(model)
    model.close()
    return pack
