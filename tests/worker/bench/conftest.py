"""A clock that the trials themselves move, and a small model."""

import pytest

from trireme_kernels.packing import preferred_layout
from trireme_worker.bench.interleave import Watch
from trireme_worker.bench.limits import Limits
from trireme_worker.bench.random_weights import RandomPack
from trireme_worker.synth.shapes import tiny


class Clock:
    """Time that passes only where somebody says so."""

    def __init__(self):
        self.time, self.rests = 0.0, 0

    def passes(self, seconds):
        self.time += seconds

    def rest(self, _seconds):
        self.rests += 1
        self.time += 1000.0  # shows if a rest were measured

    @property
    def watch(self):
        return Watch(lambda: self.time, self.rest)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(scope="session")
def model():
    return RandomPack(tiny(), preferred_layout(), seed=3)


@pytest.fixture
def small_limits():
    with Limits((1, 2), read_bytes=1 << 16, dot_steps=10) as limits:
        yield limits
