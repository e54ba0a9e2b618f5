"""The choice between float32 and float16 keys and values."""

from __future__ import annotations

import numpy as np
import pytest

from trireme_coordinator.config import KV_DTYPES, ServeConfig
from trireme_proto.errors import ConfigurationError
from trireme_worker import kv_cache
from trireme_worker.pack import Pack, default_pack
from trireme_worker.stage import StageModel


def test_coordinator_and_worker_know_the_same_types() -> None:
    assert set(KV_DTYPES) == set(kv_cache.KV_DTYPES)


def test_another_type_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="float8"):
        ServeConfig(kv_dtype="float8")


def test_float16_is_close_to_float32_and_not_the_same() -> None:
    pack, tokens = Pack.open(default_pack()), [0, *range(300, 360)]
    exact, rounded = (StageModel(pack, range(6), kv_dtype=dtype).logits(tokens) for dtype in KV_DTYPES)
    assert 0 < np.abs(exact - rounded).max() < 1
    assert (exact.argmax(axis=1) == rounded.argmax(axis=1)).mean() > 0.95
