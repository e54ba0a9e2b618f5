"""What the CPU packages of this machine have used, out of RAPL, where the kernel lets us read it.

https://docs.kernel.org/power/powercap/powercap.html: `energy_uj` counts microjoules and wraps after
`max_energy_range_uj`. Packages alone are added up: cores and memory are parts of them, and "psys" contains them.
"""

from __future__ import annotations

from pathlib import Path

_POWERCAP = Path("/sys/class/powercap")


class EnergyMeter:
    """Adds up what was used since it was made; to be read more often than the counters wrap (minutes, under load)."""

    def __init__(self, powercap: Path = _POWERCAP) -> None:
        self._zones = [zone for zone in sorted(powercap.glob("intel-rapl:*")) if _is_package(zone)]
        self._last = {zone: reading for zone in self._zones if (reading := _number(zone / "energy_uj")) is not None}
        self._used = 0

    @property
    def readable(self) -> bool:
        """Whether there is anything to read."""
        return bool(self._last)

    def microjoules(self) -> int:
        """Of all packages together, since this was made; 0 where nothing can be read."""
        for zone, last in self._last.items():
            if (now := _number(zone / "energy_uj")) is None:
                continue
            wrapped = (_number(zone / "max_energy_range_uj") or 0) if now < last else 0
            self._used += now - last + wrapped
            self._last[zone] = now
        return self._used


def _is_package(zone: Path) -> bool:
    try:
        return (zone / "name").read_text().startswith("package")
    except OSError:
        return False


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # since 2020 only root may read it, unless it was allowed
        return None
