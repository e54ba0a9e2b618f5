"""Every bound of Trireme, in one place. What is beyond one is refused with a typed error, never cut in silence."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what comes in from outside. All of them are inclusive."""

    prompt_bytes: int = 4 << 20
    """Longest prompt text, UTF-8 bytes."""
    request_tokens: int = 1 << 20
    """Most token ids in one request, before the model's own context window is looked at."""
    temperature: float = 100.0
    """Highest sampling temperature."""
    priority: int = 9
    """Highest priority of a request."""
    stop_texts: int = 8
    """Most stop texts in a request."""
    stop_bytes: int = 256
    """Longest stop text, UTF-8 bytes."""
    id_length: int = 128
    """Longest session or request id, characters."""
    unique_id_length: int = 32
    """Shortest request id that is taken to be unique to its request, characters: it finds its session by itself."""
    request_name_seconds: int = 3600
    """How long such an id finds its session."""
    session_requests: int = 16
    """Most requests of a session that are remembered; of older ones only the tokens are."""
    session_ttl_seconds: int = 30 * 24 * 3600
    """Longest time that an unused session may ask to be kept."""
    page_size: int = 1000
    """Most sessions in one page of a listing."""
    queue: int = 256
    """Most requests waiting for a slot; further ones are refused with RESOURCE_EXHAUSTED."""
    message_bytes: int = 8 << 20
    """Largest message of the public API."""
    frame_bytes: int = 256 << 20
    """Largest frame between stages."""
    frame_rows: int = 4096
    """Most rows in a frame."""
    frame_tokens: int = 8192
    """Most tokens in a frame."""
    concurrent_calls: int = 2048
    """Most calls open at once on the public server."""
    load_requests: int = 1_000_000
    """Most requests in one load of a benchmark or a simulation."""
    load_rate: int = 100_000
    """Most requests a second in such a load."""
    draft_tokens: int = 8
    """Most guessed tokens in a row of a frame."""
    page_store_gigabytes: int = 1 << 16
    """Largest page store."""
    waiting_page_bytes: int = 256 << 20
    """KV pages of a stage that wait to be written to the page store; further ones are skipped."""
    fetched_page_bytes: int = 1 << 30
    """KV pages that a stage has read from the page store and holds for frames to come."""
    fetch_seconds: int = 30
    """Longest time that reading pages from the page store may take."""
    trace_spans: int = 16_384
    """Most spans of one request's trace; what is beyond is counted in it."""
    trace_list: int = 1000
    """Most traces in one listing."""
    manifest_bytes: int = 16 << 20
    """Largest manifest (trireme.json) or safetensors header of a pack or checkpoint."""
    nodes_file_bytes: int = 256 << 10
    """Largest file of nodes for a plan."""
    plan_nodes: int = 512
    """Most nodes of a plan."""
    key_file_bytes: int = 4 << 20
    """Largest file of API keys."""
    api_keys: int = 10_000
    """Most API keys in such a file."""
    credential_bytes: int = 8 << 10
    """Longest API key or token that is looked at."""
    jwks_bytes: int = 1 << 20
    """Largest set of an identity provider's public keys."""
    jwks_keys: int = 64
    """Most keys in such a set."""
    tenant_length: int = 64
    """Longest name of a tenant, characters."""
    quota_tenants: int = 10_000
    """Most tenants whose use is counted; the one that was idle longest is forgotten beyond that."""
    audit_lines: int = 10_000
    """Lines of the audit log that wait to be written; further ones are counted, and the count is written."""
    metric_tenants: int = 64
    """Most tenants that metrics tell apart."""
    metric_reasons: int = 64
    """Most methods, and reasons of errors, that metrics tell apart."""
    metric_connections: int = 32
    """Most connections to the HTTP port of the metrics; the oldest one goes for a newer one."""
    profile_seconds: int = 60
    """Longest time that a profile may watch."""


LIMITS = Limits()
