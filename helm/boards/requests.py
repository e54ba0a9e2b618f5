"""What callers feel: how long they wait, what they get, what they are refused."""

from __future__ import annotations

from boards.board import Board, Kind, Panel, Query, Row, quantiles

_TTFT = "gen_ai_server_time_to_first_token_seconds"
_ITL = "trireme_inter_token_latency_seconds"
FAULTS = "UNKNOWN|INTERNAL|UNAVAILABLE|DATA_LOSS|DEADLINE_EXCEEDED"
"""gRPC codes that are the server's fault, or felt as it; a full queue has a panel of its own."""


def _now(title: str, answers: str, bare: str, unit: str, **rest: float) -> Panel:
    return Panel(title, answers, (Query(bare),), unit, Kind.STAT, width=4, **rest)  # type: ignore[arg-type]


_NOW = Row(
    "Now",
    (
        _now("Requests", "How many answers end each second?", "sum(rate(trireme_requests_total[W]))", "reqps"),
        _now(
            "Tokens",
            "How many tokens are generated each second, for all together?",
            "sum(rate(trireme_generation_tokens_total[W]))",
            "short",
        ),
        _now("Running", "How many requests are being answered?", "sum(trireme_requests_running)", "short"),
        _now(
            "Waiting", "How many requests are in the queue?", "sum(trireme_requests_waiting)", "short", warn=1, bad=16
        ),
        _now(
            "First token, p95",
            "How long do callers wait for the first token, but for the slowest 5 %?",
            quantiles(_TTFT, 0.95)[0].bare,
            "s",
            warn=5,
            bad=10,
        ),
        _now(
            "Between tokens, p95",
            "How long is the wait from token to token, but for the slowest 5 %?",
            quantiles(_ITL, 0.95)[0].bare,
            "s",
            warn=0.5,
            bad=1,
        ),
    ),
)

_LATENCY = Row(
    "Latency",
    (
        Panel(
            "Time to first token",
            "Do answers begin in time? Compare with the next panel but one to see why not.",
            quantiles(_TTFT, 0.5, 0.95, 0.99),
            "s",
        ),
        Panel(
            "Inter-token latency",
            "Do answers flow? A step up at a mark of a rebuilt pipeline is a recovery.",
            quantiles(_ITL, 0.5, 0.95, 0.99),
            "s",
        ),
        Panel(
            "Where the first token's time goes",
            "Is it the queue or the prompt? Mean seconds of each.",
            tuple(
                Query(
                    f"sum(rate(trireme_request_{part}_seconds_sum[W]))"
                    f" / sum(rate(trireme_request_{part}_seconds_count[W]))",
                    part,
                )
                for part in ("queue", "prefill")
            ),
            "s",
            Kind.STACK,
        ),
        Panel(
            "Duration of requests",
            "How long do whole answers take?",
            quantiles("gen_ai_server_request_duration_seconds", 0.5, 0.95),
            "s",
        ),
        Panel(
            "Time for each output token",
            "How fast was each finished answer on average?",
            quantiles("gen_ai_server_time_per_output_token_seconds", 0.5, 0.95),
            "s",
        ),
        Panel(
            "Inter-token latency, distribution",
            "Are all tokens alike, or are there two kinds, such as steps beside prefill?",
            (Query(f"sum by (le) (rate({_ITL}_bucket[W]))", "{{le}}"),),
            "s",
            Kind.HEATMAP,
        ),
    ),
)

_ENDS = Row(
    "How requests end",
    (
        Panel(
            "Ends by reason",
            "Do answers end by themselves, at their limit, or with an error?",
            (Query("sum by (code, reason) (rate(trireme_requests_total[W]))", "{{code}} {{reason}}"),),
            "reqps",
            Kind.STACK,
        ),
        Panel(
            "Faults",
            "Which share of requests fails for a reason that is not the caller's?",
            (
                Query(
                    f'sum(rate(trireme_requests_total{{code=~"{FAULTS}"}}[W]) or trireme_requests_running * 0)'
                    " / sum(rate(trireme_requests_total[W]))",
                    "of all",
                ),
            ),
            "percentunit",
            top=1,
            warn=0.01,
            bad=0.05,
        ),
        Panel(
            "Calls by method",
            "What else is asked of the server, and with what outcome?",
            (Query("sum by (method, code) (rate(trireme_calls_total[W]))", "{{method}} {{code}}"),),
            "reqps",
        ),
        Panel(
            "Errors by type",
            "Which errors do callers see?",
            (
                Query(
                    'sum by (error_type) (rate(gen_ai_server_request_duration_seconds_count{error_type!=""}[W]))',
                    "{{error_type}}",
                ),
            ),
            "reqps",
        ),
    ),
)

_LOAD = Row(
    "Load",
    (
        Panel(
            "Running and waiting",
            "Is there more work than slots? Beyond the limit a tenant's requests are refused.",
            (
                Query("sum(trireme_requests_running)", "running"),
                Query("sum(trireme_requests_waiting)", "waiting"),
                Query("max(trireme_requests_queue_limit)", "limit of a tenant's queue"),
            ),
        ),
        Panel(
            "Tokens",
            "How much is read and written each second?",
            (
                Query("sum(rate(trireme_prompt_tokens_total[W]))", "prompts"),
                Query("sum(rate(trireme_generation_tokens_total[W]))", "answers"),
            ),
        ),
        Panel(
            "Tokens by tenant",
            "Who uses the cluster?",
            (Query("sum by (tenant, kind) (rate(trireme_tenant_tokens_total[W]))", "{{tenant}} {{kind}}"),),
            kind=Kind.STACK,
        ),
        Panel(
            "Requests by tenant",
            "Whose requests are answered, and whose are refused?",
            (Query("sum by (tenant, code) (rate(trireme_tenant_requests_total[W]))", "{{tenant}} {{code}}"),),
            kind=Kind.STACK,
        ),
        Panel(
            "Prefix cache",
            "Which share of prompt tokens did not have to be computed?",
            (
                Query(
                    "sum(rate(trireme_prefix_cache_hits_total[W])) / sum(rate(trireme_prefix_cache_queries_total[W]))",
                    "hits",
                ),
            ),
            "percentunit",
            top=1,
        ),
        Panel(
            "Guessed tokens",
            "Does speculation pay? Tokens guessed, and those that were right.",
            (
                Query("sum(rate(trireme_drafted_tokens_total[W]))", "guessed"),
                Query("sum(rate(trireme_accepted_tokens_total[W]))", "right"),
            ),
        ),
    ),
)

BOARD = Board(
    "requests",
    "Trireme / Requests",
    "Are callers served well? If not, whether they wait in the queue, for the prompt or between tokens.",
    (_NOW, _LATENCY, _ENDS, _LOAD),
)
