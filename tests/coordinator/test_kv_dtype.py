"""The choice between float32, float16 and int8 keys and values."""

from __future__ import annotations

import numpy as np
import pytest

from trireme_coordinator.config import KV_DTYPES, ServeConfig
from trireme_coordinator.scheduler import budget
from trireme_kernels import KV_DTYPES as KERNELS_KV_DTYPES
from trireme_proto.errors import ConfigurationError
from trireme_worker import kv_cache
from trireme_worker.pack import Pack, default_pack
from trireme_worker.stage import StageModel


def test_coordinator_and_kernels_know_the_same_types() -> None:
    assert KV_DTYPES == KERNELS_KV_DTYPES


def test_coordinator_and_worker_count_pages_alike() -> None:
    assert budget.PAGE_TOKENS == kv_cache.PAGE_TOKENS
    assert [budget.pages_for(n) for n in range(100)] == [kv_cache.pages_for(n) for n in range(100)]


def test_another_type_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="float8"):
        ServeConfig(kv_dtype="float8")


@pytest.mark.parametrize(("dtype", "agreement"), [("float16", 0.95), ("int8", 0.9)])
def test_others_are_close_to_float32_and_not_the_same(dtype: str, agreement: float) -> None:
    pack, tokens = Pack.open(default_pack()), [0, *range(300, 360)]
    exact, rounded = (StageModel(pack, range(6), kv_dtype=each).logits(tokens) for each in ("float32", dtype))
    assert 0 < np.abs(exact - rounded).max() < 1
    assert (exact.argmax(axis=1) == rounded.argmax(axis=1)).mean() > agreement
