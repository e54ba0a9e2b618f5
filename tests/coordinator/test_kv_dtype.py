"""The choice between float32, float16 and int8 keys and values."""

from __future__ import annotations

import numpy as np
import pytest

import trireme_kernels
from trireme_coordinator.config import KV_DTYPES, ServeConfig
from trireme_proto.errors import ConfigurationError
from trireme_worker.pack import Pack, default_pack
from trireme_worker.stage import StageModel


def test_coordinator_and_worker_know_the_same_types() -> None:
    assert set(KV_DTYPES) == set(trireme_kernels.KV_DTYPES)


def test_another_type_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="float8"):
        ServeConfig(kv_dtype="float8")


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_rounded_is_close_to_float32_and_not_the_same(dtype: str) -> None:
    pack, tokens = Pack.open(default_pack()), [0, *range(300, 360)]
    exact, rounded = (StageModel(pack, range(6), kv_dtype=each).logits(tokens) for each in ("float32", dtype))
    assert 0 < np.abs(exact - rounded).max() < 1
    assert (exact.argmax(axis=1) == rounded.argmax(axis=1)).mean() > 0.95
