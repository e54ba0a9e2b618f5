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
class Recovery:
    """One loss of the pipeline, and how it came back."""

    cause: str
    """"dead": the process was gone; "silent": nothing came from it, frozen or cut off; "hung": it answered, but its
    computation did not get on; "cut": frames of the stage before did not reach it; "refused": it refused a frame;
    "ended": it ended its call, but lived."""
    stages: tuple[int, ...]
    """That were lost."""
    method: str
    """"kept": all processes lived on; "restarted": lost stages were, on their nodes; "moved": at least one to another
    node."""
    detection_seconds: float
    """From the last sign of life to the verdict."""
    rebuild_seconds: float
    """From the verdict until the pipeline was complete again."""
    sequences: int
    """Running requests that it interrupted."""
    tokens: int
    """Tokens of theirs whose keys and values were lost."""


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
    leading: bool
    """Whether the coordinator that answered drives the stages; one that stands by knows nothing of them."""
    leader: str
    """HOST:PORT of the coordinator that does, by its own account; empty where there is only one."""
    reason: str = ""
    """Why the pipeline is not ready, one sentence; empty when it is."""
    recoveries: int = 0
    """How often a pipeline that was complete has been rebuilt."""
    last_recovery: Recovery | None = None
    """The last time."""


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """A machine by what it can do, for `preview_placement`. A GB is 10**9 bytes."""

    name: str
    ram_gb: float
    """Free memory."""
    read_gb_s: float
    """Plain read bandwidth of all cores together."""
    int8_gmac_s: float
    """Peak of the int8 dot product of all cores together, 10**9 multiply-adds a second."""
    cores: int | None = None
    rtt_ms: float | None = None
    """Round trip to its neighbours. Default: 0.2."""
    link_gbit_s: float | None = None
    """Default: 10."""


@dataclass(frozen=True, slots=True)
class PlannedStage:
    """A stage of a plan."""

    node: str
    first_layer: int
    end_layer: int
    """It gets the layers [first_layer, end_layer)."""
    step_seconds: float
    """Of a decode step of one sequence, hop included."""
    ram_bytes: int
    """Weights, tables and the process, without keys and values."""
    kv_tokens: int
    """Tokens that the rest of the memory has room for."""


@dataclass(frozen=True, slots=True)
class LeftOutNode:
    """A machine that gets no layers."""

    node: str
    reason: str
    spare: bool
    """Whether it has the memory to take over a stage that is lost."""


@dataclass(frozen=True, slots=True)
class PlacementFigures:
    """What an assignment will do."""

    tokens_per_s_single: float
    tokens_per_s_aggregate: float
    """Of as many sequences together as are best."""
    ttft_s: float
    kv_tokens: int
    """Tokens of all sequences together that the stages have room for."""


@dataclass(frozen=True, slots=True)
class PlacementChange:
    """The same with one machine more or less."""

    add: bool
    """Whether a copy of `node` is added; else `node` is removed."""
    node: str
    figures: PlacementFigures | None
    """None where the model does not fit."""


@dataclass(frozen=True, slots=True)
class PlacementPreview:
    """What a set of machines would do with the model that is served."""

    stages: tuple[PlannedStage, ...]
    """In pipeline order."""
    left_out: tuple[LeftOutNode, ...]
    figures: PlacementFigures
    what_if: tuple[PlacementChange, ...]
