"""What `profile()` returns: what holds a running pipeline back. Frozen values; no protobuf, no gRPC."""

from __future__ import annotations

from dataclasses import dataclass

from trireme.cluster import Load


@dataclass(frozen=True, slots=True)
class ProfiledStage:
    """One stage while it was watched."""

    stage: int
    node: str
    first_layer: int
    end_layer: int
    """It holds the layers [first_layer, end_layer)."""
    busy: float
    """Share of the time with work in the pipeline in which it computed, 0 to 1."""
    bubble: float
    """The rest of that time."""
    compute_seconds: float
    """Of a mean step, as the next two."""
    wait_seconds: float
    wire_seconds: float
    """To this stage."""
    read_bytes_per_s: float
    """Weights, while it computed."""
    bandwidth_bytes_per_s: float
    """At which its memory can be read; 0: not measured yet."""


@dataclass(frozen=True, slots=True)
class Profile:
    """A pipeline while it was watched."""

    seconds: float
    bottleneck: str
    """"memory", "compute" (of a stage), "wire", "scheduler", "queue", "stalled" or "idle"."""
    stage: int | None
    """That it is about."""
    advice: str
    """One sentence."""
    stages: tuple[ProfiledStage, ...]
    steps: int
    tokens: int
    """Of answers."""
    active: float
    """Share of the time in which there was work in the pipeline, 0 to 1."""
    step_seconds: float
    """Of a mean step, from being sent to its result."""
    other_seconds: float
    """What of it was neither computing, waiting at a stage nor a hop."""
    load: Load
    """At the end."""
    slots: int
    """Sequences that can be computed at once."""
