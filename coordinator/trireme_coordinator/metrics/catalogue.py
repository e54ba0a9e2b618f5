"""Every metric that goes out: the contract with dashboards and alerts; docs/metrics.md says the same in a table.

Prometheus' names; the OpenTelemetry name follows from one, by dots after `trireme` and in the names of the GenAI
semantic conventions (https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-metrics/).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

_SUFFIXES = {"s": "_seconds", "J": "_joules", "bytes": "_bytes", "bytes/s": "_bytes_per_second"}
_OTEL_UNITS = {"s": "s", "J": "J", "bytes": "By", "bytes/s": "By/s"}
_GENAI = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model")
_STAGE = ("stage", "node")


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: series of one name that differ in their labels."""

    name: str
    """Prometheus'; `_total` at the end of a counter's."""
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    unit: str
    """ "s", "bytes", "J", or what is counted."""
    meaning: str

    @property
    def otel_name(self) -> str:
        """In OTLP: dots, and neither unit nor `_total`."""
        plain = self.name.removesuffix("_total").removesuffix(_SUFFIXES.get(self.unit, ""))
        if plain.startswith("gen_ai_server_"):
            plain = plain.replace("request_duration", "request.duration")
            return "gen_ai.server." + plain.removeprefix("gen_ai_server_")
        return plain.replace("trireme_", "trireme.", 1)

    @property
    def otel_labels(self) -> tuple[str, ...]:
        """In OTLP: the attributes of the conventions have dots."""
        return tuple(_OTEL_LABELS.get(label, label) for label in self.labels)

    @property
    def otel_unit(self) -> str:
        """In OTLP: as in UCUM."""
        return _OTEL_UNITS.get(self.unit, "1" if not self.unit else f"{{{self.unit}}}")


_OTEL_LABELS = {
    "gen_ai_operation_name": "gen_ai.operation.name",
    "gen_ai_provider_name": "gen_ai.provider.name",
    "gen_ai_request_model": "gen_ai.request.model",
    "error_type": "error.type",
}
# fmt: off  (a table)
_ALL = (
    # requests
    Family(
        "gen_ai_server_time_to_first_token_seconds",
        "histogram",
        _GENAI,
        "s",
        "from the arrival of a request to its first token",
    ),
    Family(
        "gen_ai_server_time_per_output_token_seconds",
        "histogram",
        _GENAI,
        "s",
        "of a finished answer: time after its first token, for each further token",
    ),
    Family(
        "gen_ai_server_request_duration_seconds",
        "histogram",
        (*_GENAI, "error_type"),
        "s",
        "from arrival to end; error_type empty where it succeeded, else a reason of the error tree such as OVERLOADED",
    ),
    Family(
        "trireme_inter_token_latency_seconds",
        "histogram",
        (),
        "s",
        "between two tokens of an answer; tokens that came together, after right guesses, share their interval",
    ),
    Family("trireme_request_queue_seconds", "histogram", (), "s", "from arrival in the queue to the first micro-batch"),
    Family("trireme_request_prefill_seconds", "histogram", (), "s", "from the first micro-batch to the first token"),
    Family(
        "trireme_requests_total",
        "counter",
        ("code", "reason"),
        "requests",
        "Generate calls that ended: gRPC code (OK, CANCELLED, ..) and finish reason (eos, stop, length, context) or reason of the error",
    ),
    Family(
        "trireme_calls_total",
        "counter",
        ("method", "code"),
        "calls",
        "calls of the public API that ended, Generate too",
    ),
    Family("trireme_requests_running", "gauge", (), "requests", "that hold a slot"),
    Family("trireme_requests_waiting", "gauge", (), "requests", "in the queue"),
    Family("trireme_requests_queue_limit", "gauge", (), "requests", "of one tenant that may wait"),
    Family(
        "trireme_prompt_tokens_total",
        "counter",
        (),
        "tokens",
        "of prompts, with what their sessions held before, counted with the first token of an answer",
    ),
    Family("trireme_generation_tokens_total", "counter", (), "tokens", "of answers"),
    Family(
        "trireme_tenant_requests_total", "counter", ("tenant", "code"), "requests", "that ended, by tenant and code"
    ),
    Family(
        "trireme_tenant_tokens_total",
        "counter",
        ("tenant", "kind"),
        "tokens",
        "the same two by tenant; kind: prompt or generation",
    ),
    Family(
        "trireme_prefix_cache_queries_total",
        "counter",
        (),
        "tokens",
        "prompt tokens that were looked for in the KV cache",
    ),
    Family(
        "trireme_prefix_cache_hits_total",
        "counter",
        (),
        "tokens",
        "of those, the ones that were there and not computed again",
    ),
    Family("trireme_drafted_tokens_total", "counter", (), "tokens", "guessed ahead (speculation)"),
    Family("trireme_accepted_tokens_total", "counter", (), "tokens", "guesses that were right"),
    # pipeline
    Family("trireme_pipeline_ready", "gauge", (), "", "whether the pipeline is complete"),
    Family("trireme_pipeline_epoch", "gauge", (), "", "rises with each rebuilding"),
    Family(
        "trireme_pipeline_stalled_seconds",
        "gauge",
        (),
        "s",
        "since a step was last completed, while there is work; 0 without work",
    ),
    Family(
        "trireme_pipeline_active_seconds_total", "counter", (), "s", "in which at least one micro-batch was under way"
    ),
    Family(
        "trireme_pipeline_steps_total",
        "counter",
        ("phase",),
        "steps",
        "micro-batches completed; phase: prefill, decode or mixed",
    ),
    Family(
        "trireme_pipeline_tokens_total",
        "counter",
        ("phase",),
        "tokens",
        "in their rows, guesses and recomputed ones too; phase: prefill or decode",
    ),
    Family("trireme_step_duration_seconds", "histogram", (), "s", "from sending a micro-batch to its result"),
    Family("trireme_leading", "gauge", (), "", "whether this coordinator drives the stages"),
    Family(
        "trireme_recoveries_total",
        "counter",
        ("cause", "method"),
        "recoveries",
        "cause: dead, silent, hung, refused, ended; method: kept, restarted, moved",
    ),
    Family(
        "trireme_recovery_seconds_total",
        "counter",
        ("part",),
        "s",
        "time that recoveries took; part: detection or rebuild",
    ),
    Family(
        "trireme_recovery_tokens_total",
        "counter",
        (),
        "tokens",
        "whose keys and values were lost, and had to come back",
    ),
    Family(
        "trireme_recovery_requests_total", "counter", (), "requests", "that were interrupted by a recovery and went on"
    ),
    Family(
        "trireme_stage_info",
        "gauge",
        (*_STAGE, "ip", "layers"),
        "",
        "one series a stage; ip as in Ray's own metrics, layers such as 0-14",
    ),
    Family("trireme_stage_up", "gauge", _STAGE, "", "whether the stage answered when it was last asked"),
    Family("trireme_stage_busy_seconds_total", "counter", _STAGE, "s", "computing"),
    Family("trireme_stage_wait_seconds_total", "counter", _STAGE, "s", "that micro-batches waited at the stage"),
    Family(
        "trireme_stage_bubble_seconds_total",
        "counter",
        _STAGE,
        "s",
        "in which the pipeline was active and the stage was not computing",
    ),
    Family(
        "trireme_stage_hop_seconds",
        "histogram",
        _STAGE,
        "s",
        "that a micro-batch took to the stage from the one before, or from the coordinator; the difference of the clocks is in it",
    ),
    Family(
        "trireme_stage_weight_bytes_total",
        "counter",
        _STAGE,
        "bytes",
        "of weights that the stage read, by the model's sizes: its layers once a micro-batch, the head once where tokens are sampled",
    ),
    Family(
        "trireme_stage_read_bandwidth_bytes_per_second",
        "gauge",
        _STAGE,
        "bytes/s",
        "plain read bandwidth of the stage's threads, measured by the stage when it was idle; absent until then",
    ),
    Family("trireme_stage_resident_memory_bytes", "gauge", _STAGE, "bytes", "RSS of the stage's process"),
    Family("trireme_stage_kv_pages_used", "gauge", _STAGE, "pages", "of 16 tokens"),
    Family("trireme_stage_kv_pages_capacity", "gauge", _STAGE, "pages", "that it has room for"),
    Family("trireme_stage_slots_used", "gauge", _STAGE, "sequences", "that hold pages"),
    Family("trireme_stage_integrity_ok", "gauge", _STAGE, "", "whether its books of pages add up"),
    Family(
        "trireme_node_energy_joules_total",
        "counter",
        ("node",),
        "J",
        "of the node's CPU packages (RAPL), since its stage was started; absent where RAPL cannot be read",
    ),
    # kv cache, sessions, redis
    Family("trireme_kv_pages_capacity", "gauge", (), "pages", "of the stage that has the fewest"),
    Family(
        "trireme_kv_pages_reserved", "gauge", (), "pages", "promised to running requests, and held for idle sessions"
    ),
    Family("trireme_kv_pages_used", "gauge", (), "pages", "most that any stage holds"),
    Family("trireme_sessions_cached", "gauge", (), "sessions", "whose keys and values are kept between requests"),
    Family("trireme_session_backlog_bytes", "gauge", (), "bytes", "of tokens that are not stored yet (write-behind)"),
    Family(
        "trireme_session_backlog_limit_bytes",
        "gauge",
        (),
        "bytes",
        "beyond which the oldest session's part is given up",
    ),
    Family("trireme_session_store_away", "gauge", (), "", "whether the store did not take what was last written"),
    Family("trireme_session_stored_tokens_total", "counter", (), "tokens", "that the store has taken"),
    Family("trireme_session_store_retries_total", "counter", (), "", "times that the store did not answer a write"),
    Family("trireme_session_lost_tokens_total", "counter", (), "tokens", "that will not be stored"),
    Family("trireme_session_lost_sessions_total", "counter", (), "sessions", "whose backlog was given up"),
    Family("trireme_redis_up", "gauge", ("role",), "", "whether Redis answered the last ping; role: sessions or pages"),
    Family("trireme_redis_ping_seconds", "histogram", ("role",), "s", "round trip of our own pings, one in 5 s"),
    Family(
        "trireme_redis_used_memory_bytes",
        "gauge",
        ("role",),
        "bytes",
        "INFO, as the next four; absent where the Redis user may not ask",
    ),
    Family("trireme_redis_max_memory_bytes", "gauge", ("role",), "bytes", "0: no limit"),
    Family("trireme_redis_connected_clients", "gauge", ("role",), "clients", "of Redis, all of them"),
    Family("trireme_redis_evicted_keys_total", "counter", ("role",), "keys", "that Redis gave up to make room"),
    Family("trireme_redis_commands_total", "counter", ("role",), "commands", "that Redis processed"),
    Family(
        "trireme_page_store_pages_total",
        "counter",
        (*_STAGE, "result"),
        "pages",
        "result: written, known, skipped, fetched, damaged",
    ),
    Family("trireme_page_store_failures_total", "counter", _STAGE, "", "times that the page store did not answer"),
    Family("trireme_page_store_waiting_bytes", "gauge", _STAGE, "bytes", "to be written"),
    Family("trireme_page_store_fetched_bytes", "gauge", _STAGE, "bytes", "read, and held for frames to come"),
    # process and cluster
    Family("trireme_build_info", "gauge", ("version", "model", "pack_sha256"), "", "what runs here"),
    Family("trireme_coordinator_resident_memory_bytes", "gauge", (), "bytes", "resident memory"),
    Family("trireme_coordinator_cpu_seconds_total", "counter", (), "s", "of CPU time"),
    Family("trireme_coordinator_start_time_seconds", "gauge", (), "s", "since 1970"),
    Family("trireme_ray_nodes", "gauge", ("state",), "nodes", "alive or dead"),
    Family(
        "trireme_ray_resources",
        "gauge",
        ("resource", "kind"),
        "",
        "resource: CPU, memory, object_store_memory; kind: total or available",
    ),
    Family("trireme_ray_node_info", "gauge", ("node", "ip"), "", "one series a living node"),
    Family(
        "trireme_spans_dropped_total",
        "counter",
        (),
        "spans",
        "that the collector did not take, or for which there was no room",
    ),
    Family(
        "trireme_metrics_folded_total",
        "counter",
        (),
        "",
        "times that a label's value was counted as other, because there were too many",
    ),
)
# fmt: on
FAMILIES = {family.name: family for family in _ALL}
"""By name, in the order of the documentation."""
