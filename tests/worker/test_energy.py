"""Energy out of a folder that looks like /sys/class/powercap."""

from __future__ import annotations

from pathlib import Path

import pytest

from trireme_worker.energy import EnergyMeter


class Powercap:
    def __init__(self, root: Path) -> None:
        self.root = root

    def zone(self, folder: str, name: str, microjoules: int, most: int = 1_000_000) -> None:
        zone = self.root / folder
        zone.mkdir(exist_ok=True)
        (zone / "name").write_text(f"{name}\n")
        (zone / "energy_uj").write_text(f"{microjoules}\n")
        (zone / "max_energy_range_uj").write_text(f"{most}\n")


@pytest.fixture
def powercap(tmp_path: Path) -> Powercap:
    found = Powercap(tmp_path)
    found.zone("intel-rapl:0", "package-0", 500)
    found.zone("intel-rapl:1", "package-1", 900_000)
    found.zone("intel-rapl:0:0", "core", 7)
    found.zone("intel-rapl:2", "psys", 7)
    return found


def test_packages_add_up_and_nothing_else_does(powercap: Powercap) -> None:
    meter = EnergyMeter(powercap.root)
    assert meter.readable
    powercap.zone("intel-rapl:0", "package-0", 1500)
    powercap.zone("intel-rapl:0:0", "core", 999_999)
    powercap.zone("intel-rapl:2", "psys", 999_999)
    powercap.zone("intel-rapl:1", "package-1", 900_010)
    assert meter.microjoules() == 1010
    assert meter.microjoules() == 1010


def test_a_counter_that_wraps(powercap: Powercap) -> None:
    meter = EnergyMeter(powercap.root)
    powercap.zone("intel-rapl:1", "package-1", 100_000)
    assert meter.microjoules() == 200_000


def test_nothing_to_read(tmp_path: Path, powercap: Powercap) -> None:
    assert not EnergyMeter(tmp_path / "missing").readable
    for zone in ("intel-rapl:0", "intel-rapl:1"):
        (powercap.root / zone / "energy_uj").unlink()  # as where only root may read it
    meter = EnergyMeter(powercap.root)
    assert not meter.readable
    assert meter.microjoules() == 0
