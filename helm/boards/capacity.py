"""What runs out next: KV pages, memory, Redis, machines; and what a token costs."""

from __future__ import annotations

from boards.board import Board, Kind, Panel, Query, Row, quantiles

_PLACE = "stage {{stage}} ({{node}})"

_KV = Row(
    "KV cache",
    (
        Panel(
            "KV pages",
            "How much of the KV cache is promised, how much is filled? Promised and full, with requests"
            " waiting: more memory or fewer sessions at a time.",
            (
                Query("max(trireme_kv_pages_reserved)", "promised"),
                Query("max(trireme_kv_pages_used)", "used"),
                Query("max(trireme_kv_pages_capacity)", "capacity"),
            ),
        ),
        Panel(
            "KV pages of each stage",
            "Which stage has the least room? It sets the limit for all.",
            (Query("trireme_stage_kv_pages_used / trireme_stage_kv_pages_capacity", _PLACE),),
            "percentunit",
            top=1,
        ),
        Panel(
            "Sequences and sessions",
            "How many sequences hold pages, and how many idle sessions are kept for their next request?",
            (
                Query("max(trireme_stage_slots_used)", "sequences"),
                Query("sum(trireme_sessions_cached)", "idle sessions"),
            ),
        ),
        Panel(
            "Books of pages",
            "Do each stage's counts of pages add up? 0 is a fault of ours: report it.",
            (Query("trireme_stage_integrity_ok", _PLACE),),
            top=1,
        ),
    ),
)

_MEMORY = Row(
    "Processes",
    (
        Panel(
            "Memory",
            "Does a process grow?",
            (
                Query("trireme_stage_resident_memory_bytes", _PLACE),
                Query("trireme_coordinator_resident_memory_bytes", "coordinator {{instance}}"),
            ),
            "bytes",
        ),
        Panel(
            "CPU of coordinators",
            "Is a coordinator short of its one core? Above 0.8 it limits the tokens of many streams.",
            (Query("rate(trireme_coordinator_cpu_seconds_total[W])", "{{instance}}"),),
            "short",
            warn=0.8,
        ),
        Panel(
            "Up since",
            "When was each coordinator started?",
            (Query("time() - trireme_coordinator_start_time_seconds", "{{instance}}"),),
            "s",
        ),
        Panel(
            "Versions",
            "Does every coordinator serve the same model with the same version?",
            (Query("trireme_build_info"),),
            kind=Kind.TABLE,
            width=12,
        ),
    ),
)

_REDIS = Row(
    "Sessions and Redis",
    (
        Panel(
            "Tokens not stored yet",
            "Does Redis keep up? At the limit the oldest session's part is given up.",
            (
                Query("sum(trireme_session_backlog_bytes)", "backlog"),
                Query("sum(trireme_session_backlog_limit_bytes)", "limit"),
            ),
            "bytes",
        ),
        Panel(
            "Redis answers",
            "Does each Redis answer? `away`: it answers but takes no writes.",
            (Query("min by (role) (trireme_redis_up)", "{{role}}"), Query("max(trireme_session_store_away)", "away")),
            top=1,
        ),
        Panel(
            "Redis round trip, p95",
            "How far away is Redis?",
            quantiles("trireme_redis_ping_seconds", 0.95, by="role"),
            "s",
        ),
        Panel(
            "Memory of Redis",
            "How full is it? A limit of 0 is none.",
            (
                Query("max by (role) (trireme_redis_used_memory_bytes)", "{{role}} used"),
                Query("max by (role) (trireme_redis_max_memory_bytes)", "{{role}} limit"),
            ),
            "bytes",
        ),
        Panel(
            "Load of Redis",
            "What is asked of it, and does it throw keys away?",
            (
                Query("max by (role) (rate(trireme_redis_commands_total[W]))", "{{role}} commands/s"),
                Query("max by (role) (rate(trireme_redis_evicted_keys_total[W]))", "{{role}} evicted/s"),
                Query("max by (role) (trireme_redis_connected_clients)", "{{role}} clients"),
            ),
        ),
        Panel(
            "Tokens stored and lost",
            "Is anything lost? Lost tokens are those that a session cannot be resumed with.",
            (
                Query("sum(rate(trireme_session_stored_tokens_total[W]))", "stored/s"),
                Query("sum(trireme_session_lost_tokens_total)", "lost tokens"),
                Query("sum(trireme_session_lost_sessions_total)", "sessions with losses"),
                Query("sum(trireme_session_store_retries_total)", "retries"),
            ),
        ),
        Panel(
            "KV pages in Redis",
            "Do pages go to Redis, and do they come back?",
            (Query("sum by (result) (rate(trireme_page_store_pages_total[W]))", "{{result}}"),),
        ),
        Panel(
            "Page store",
            "Is the page store behind, or away?",
            (
                Query("sum(trireme_page_store_waiting_bytes)", "bytes to be written"),
                Query("sum(trireme_page_store_fetched_bytes)", "bytes read ahead"),
                Query("sum(trireme_page_store_failures_total)", "failures"),
            ),
        ),
    ),
)

_CLUSTER = Row(
    "Cluster",
    (
        Panel("Nodes", "Are all machines there?", (Query("max by (state) (trireme_ray_nodes)", "{{state}}"),)),
        Panel(
            "Resources",
            "What is left for another stage? Share of each resource that Ray has given away.",
            (
                Query(
                    '1 - max by (resource) (trireme_ray_resources{kind="available"})'
                    ' / max by (resource) (trireme_ray_resources{kind="total"})',
                    "{{resource}}",
                ),
            ),
            "percentunit",
            top=1,
        ),
        Panel(
            "Energy for each token",
            "What does a token cost? Of the CPU packages; only where the machines let RAPL be read.",
            (
                Query(
                    "sum(rate(trireme_node_energy_joules_total[W])) / sum(rate(trireme_generation_tokens_total[W]))",
                    "joules",
                ),
            ),
            "joule",
        ),
        Panel(
            "Telemetry",
            "Is anything missing from traces and metrics? Spans without a taker, and label values beyond the bound.",
            (
                Query("sum(trireme_spans_dropped_total)", "spans dropped"),
                Query("sum(trireme_metrics_folded_total)", "values folded"),
            ),
        ),
    ),
)

BOARD = Board(
    "capacity",
    "Trireme / Capacity",
    "What runs out next: room for keys and values, memory, Redis, machines?",
    (_KV, _MEMORY, _REDIS, _CLUSTER),
)
