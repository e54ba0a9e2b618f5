"""Small models and machines whose times are easy to see: a layer of 9 MB takes 10 ms at 1 GB/s."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from trireme_coordinator.placement import Machine, ModelCosts
from trireme_coordinator.placement.costs import PROCESS_BYTES

MB = 10**6
LAYER = 9 * MB


def model(layers: int = 6, **changes: Any) -> ModelCosts:
    """No arithmetic to speak of, no tables, a frame of 4,000 bytes."""
    plain = ModelCosts(
        name="small",
        hidden_size=1000,
        context=4096,
        layer_bytes=(LAYER,) * layers,
        layer_macs=(1,) * layers,
        embedding_bytes=0,
        head_bytes=0,
        head_read_bytes=0,
        head_macs=0,
        shared_bytes=0,
        kv_bytes=1000,
        attention_macs=0,
    )
    return replace(plain, **changes)


def machine(name: str = "a", **changes: Any) -> Machine:
    """1 GB/s, memory for everything, no hop to speak of."""
    plain = Machine(name=name, ram_gb=64.0, read_gb_s=1.0, int8_gmac_s=1e4, rtt_ms=0.0, link_gbit_s=1e5)
    return replace(plain, **changes)


def ram_for(layers: float, kv_tokens: int = 0) -> float:
    """GB that hold so many layers of `model` with the process."""
    return (PROCESS_BYTES + layers * (LAYER + 1000 * kv_tokens)) / 1e9
