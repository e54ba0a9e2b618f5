"""The limits read every byte and multiply every product that they claim."""

import numpy as np
import pytest

from trireme_worker.bench import limits
from trireme_worker.bench.interleave import Timing, interleaved


def test_plain_read_reads_every_element():
    data = np.random.default_rng(0).integers(-(2**31), 2**31, 1024).astype(np.int32)
    out = np.full(16, 99, np.int32)
    limits.read_lines(data, 128, 960, out)
    assert (out == np.bitwise_xor.reduce(data[128:960].reshape(-1, 16), axis=0)).all()


@pytest.mark.parametrize("steps", [1, 17, 40])
def test_dot_products_are_as_many_as_are_counted(steps):
    """With weights and activations of one, the sums count the multiply-adds."""
    out = np.zeros(256, np.int32)
    limits.dot_products(np.ones(2048, np.uint8), np.ones(1024, np.int8), steps, out)
    assert out.sum() == steps * limits.MACS_PER_STEP


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_share_the_read_and_each_multiplies(threads):
    with limits.Limits((threads,), read_bytes=100 * 256, dot_steps=7) as found:
        found._data[:] = np.arange(found._data.size)
        (_, read), (_, dot) = found.trials().items()
        read.run()
        assert read.amount == found._data.nbytes == 100 * 256
        whole = np.bitwise_xor.reduce(found._data.reshape(-1, 16), axis=0)
        assert (np.bitwise_xor.reduce(found._out[:, :16], axis=0) == whole).all()
        found._weights[:], found._x[:] = 1, 1
        dot.run()
        assert found._out.sum() == dot.amount == threads * 7 * limits.MACS_PER_STEP


def test_rates_follow_from_the_times(small_limits):
    trials = small_limits.trials()
    timings = {name: Timing((0.5, 2.0, 1.0), trial.amount) for name, trial in trials.items()}
    peaks = small_limits.peaks(timings)
    assert peaks.read_gb_s == {1: 65536 / 1e9, 2: 65536 / 1e9}
    macs = 10 * limits.MACS_PER_STEP / 1e9
    assert peaks.dot_gmac_s == {1: macs, 2: 2 * macs}


def test_they_can_be_measured(small_limits):
    peaks = small_limits.peaks(interleaved(small_limits.trials(), rounds=1))
    assert min(*peaks.read_gb_s.values(), *peaks.dot_gmac_s.values()) > 0
