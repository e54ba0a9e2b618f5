"""From what a worker measured to a machine that placement knows."""

from __future__ import annotations

from trireme_coordinator.placement import Machine
from trireme_worker.probe import Measured


def machine_of(name: str, measured: Measured) -> Machine:
    """The node of that name; numbers rounded to what the measurement is worth."""
    return Machine(
        name=name,
        ram_gb=round(measured.ram_gb, 2),
        read_gb_s=round(measured.read_gb_s, 2),
        int8_gmac_s=round(measured.int8_gmac_s, 1),
        cores=measured.cores,
    )
