"""What `status()` returns: what runs where, and how full it is. Frozen values; no protobuf, no gRPC."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Model:
    """The model that is served."""

    name: str
    pack_sha256: str
    """SHA-256 of the pack's manifest, hexadecimal: the same model has the same hash everywhere."""
    layers: int
    hidden_size: int
    vocabulary: int
    context: int
    """Tokens that a sequence can hold, prompt and answer together."""
    layout: str
    """Weight layout of the linear layers, such as "2bit"."""
    parameters: int


@dataclass(frozen=True, slots=True)
class Stage:
    """One worker process: a contiguous range of layers."""

    stage: int
    """Position in the pipeline, from 0."""
    first_layer: int
    end_layer: int
    """It holds the layers [first_layer, end_layer)."""
    node: str
    threads: int
    kv_pages_total: int
    """KV pages of 16 tokens each, for all layers of the stage together."""
    kv_pages_used: int
    slots_used: int
    """Sequences that hold pages."""
    integrity_ok: bool
    """Whether free and used pages add up and each page has one owner."""
    rss_bytes: int
    """Resident memory of the process, bytes."""
    steps: int
    """Micro-batches computed in this epoch."""
    busy_seconds: float
    """Seconds spent computing in this epoch."""


@dataclass(frozen=True, slots=True)
class Load:
    """How busy the server is."""

    running: int
    """Requests being computed."""
    waiting: int
    """Requests admitted and waiting for a slot or for pages."""
    queue_limit: int
    """The most that may wait; beyond it requests are refused with `Overloaded`."""
    kv_pages_reserved: int
    """KV pages promised to running requests and held for idle sessions."""
    kv_pages_total: int
    sessions_cached: int
    """Sessions whose KV is kept between requests."""


@dataclass(frozen=True, slots=True)
class Status:
    """The state of the server and its pipeline."""

    model: Model
    stages: tuple[Stage, ...]
    """In pipeline order."""
    load: Load
    epoch: int
    """Rises by one with each (re-)building of the pipeline."""
    ready: bool
    """False while the pipeline is being built."""
    version: str
    """Of the server."""
    session_store_ok: bool
