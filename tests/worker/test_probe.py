"""What a machine can do: the amounts over the median time, and memory within the container's limit."""

from __future__ import annotations

from itertools import count
from types import SimpleNamespace

import pytest

from trireme_worker import probe
from trireme_worker.peaks import MACS_PER_STEP


@pytest.fixture
def little_work(monkeypatch):
    monkeypatch.setattr(probe, "READ_BYTES", 1 << 20)
    monkeypatch.setattr(probe, "DOT_STEPS", 10)


def test_rates_are_amounts_over_the_median_time(little_work):
    """A clock on which each measurement takes 2 s, but for one in each five, which takes 200 s."""
    steps = count()

    def now():
        at = next(steps)
        return 1000.0 * at + (2.0 + 198 * (at % 10 == 3) if at % 2 else 1000.0)

    found = probe.measure(2, now=now)
    assert found.cores == 2
    assert found.read_gb_s == pytest.approx((1 << 20) / 2e9)
    assert found.int8_gmac_s == pytest.approx(2 * 10 * MACS_PER_STEP / 2e9)


def test_this_machine_is_measured_on_all_its_cpus(little_work):
    found = probe.measure()
    assert found.cores == probe.cpus()
    assert min(found.ram_gb, found.read_gb_s, found.int8_gmac_s) > 0


def test_memory_is_that_of_the_container(monkeypatch, tmp_path):
    monkeypatch.setattr(probe.psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))
    assert probe.free_memory(tmp_path) == 1000
    (tmp_path / "memory.current").write_text("100\n")
    for text, free in (("max\n", 1000), ("600\n", 500), ("5000\n", 1000), ("50\n", 0)):
        (tmp_path / "memory.max").write_text(text)
        assert probe.free_memory(tmp_path) == free
