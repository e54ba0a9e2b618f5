"""Where a token's time goes: which stage, and whether it computes, reads, waits or has been lost."""

from __future__ import annotations

from boards.board import Board, Kind, Panel, Query, Row, quantiles

_ACTIVE = "on (namespace, job, instance) group_left rate(trireme_pipeline_active_seconds_total[W])"
_PLACE = "stage {{stage}} ({{node}})"


def _now(title: str, answers: str, bare: str, unit: str = "short", **rest: float) -> Panel:
    return Panel(title, answers, (Query(bare),), unit, Kind.STAT, width=4, **rest)  # type: ignore[arg-type]


def _share(metric: str) -> Query:
    """Of the time in which the pipeline had work."""
    return Query(f"rate({metric}[W]) / {_ACTIVE}", _PLACE)


_NOW = Row(
    "Now",
    (
        _now("Ready", "Is the pipeline complete? 1: yes.", "max(trireme_pipeline_ready)", bad=0.5, warn=1),
        _now("Stages up", "How many stages answer?", "sum(trireme_stage_up)"),
        _now(
            "Stalled",
            "Since when has no step been completed although there is work?",
            "max(trireme_pipeline_stalled_seconds)",
            "s",
            warn=5,
            bad=30,
        ),
        _now(
            "Steps", "How many micro-batches are completed each second?", "sum(rate(trireme_pipeline_steps_total[W]))"
        ),
        _now(
            "Step, p95",
            "How long does a micro-batch take through all stages?",
            quantiles("trireme_step_duration_seconds", 0.95)[0].bare,
            "s",
        ),
        _now(
            "Leading",
            "How many coordinators drive the stages? Anything but 1 for more than seconds is wrong.",
            "sum(trireme_leading)",
            bad=0.5,
            warn=1,
        ),
    ),
)

_STAGES = Row(
    "Stages",
    (
        Panel(
            "Busy",
            "Which stage is the bottleneck? The one that computes for the greatest share of the pipeline's time.",
            (_share("trireme_stage_busy_seconds_total"),),
            "percentunit",
            top=1,
        ),
        Panel(
            "Bubble",
            "Which stages are idle while others work? High everywhere: too few requests at a time, or slow wires.",
            (_share("trireme_stage_bubble_seconds_total"),),
            "percentunit",
            top=1,
        ),
        Panel(
            "Waiting at the stage",
            "Do micro-batches queue up in front of a stage? Mean number of them that wait.",
            (_share("trireme_stage_wait_seconds_total"),),
        ),
        Panel(
            "Hop to the stage, p95",
            "Is a wire slow? Clocks of machines that differ show here, too.",
            quantiles("trireme_stage_hop_seconds", 0.95, by="stage, node"),
            "s",
        ),
        Panel(
            "Weights read",
            "How many bytes of weights does each stage read a second?",
            (Query("rate(trireme_stage_weight_bytes_total[W])", _PLACE),),
            "Bps",
        ),
        Panel(
            "Share of the memory's bandwidth",
            "Is a stage as fast as its memory allows, while it computes? Low with large"
            " batches: arithmetic is the limit. Low with small ones: something else uses the memory, or the CPU is"
            " throttled.",
            (
                Query(
                    "rate(trireme_stage_weight_bytes_total[W]) / rate(trireme_stage_busy_seconds_total[W])"
                    " / trireme_stage_read_bandwidth_bytes_per_second",
                    _PLACE,
                ),
            ),
            "percentunit",
        ),
        Panel("Placement", "Which layers are where?", (Query("trireme_stage_info"),), kind=Kind.TABLE, width=24),
    ),
)

_STEPS = Row(
    "Steps",
    (
        Panel(
            "Duration of a step",
            "How long is a micro-batch under way, from the coordinator and back?",
            quantiles("trireme_step_duration_seconds", 0.5, 0.95, 0.99),
            "s",
        ),
        Panel(
            "Steps by phase",
            "Does prefill stand in the way of decoding?",
            (Query("sum by (phase) (rate(trireme_pipeline_steps_total[W]))", "{{phase}}"),),
            kind=Kind.STACK,
        ),
        Panel(
            "Tokens computed by phase",
            "What is computed, recomputation and wrong guesses included?",
            (Query("sum by (phase) (rate(trireme_pipeline_tokens_total[W]))", "{{phase}}"),),
            kind=Kind.STACK,
        ),
        Panel(
            "Tokens in a step",
            "How large are the batches? Weights are read once for all tokens of one.",
            (
                Query(
                    "sum(rate(trireme_pipeline_tokens_total[W])) / sum(rate(trireme_pipeline_steps_total[W]))", "mean"
                ),
            ),
        ),
    ),
)

_RECOVERIES = Row(
    "Recoveries",
    (
        Panel(
            "Recoveries",
            "How often was the pipeline lost, why, and how did it come back?",
            (Query("sum by (cause, method) (trireme_recoveries_total)", "{{cause}}, {{method}}"),),
        ),
        Panel(
            "Seconds lost to recoveries",
            "Which share of time goes into noticing a loss, and into building again?",
            (Query("sum by (part) (rate(trireme_recovery_seconds_total[W]))", "{{part}}"),),
            "percentunit",
            Kind.STACK,
        ),
        Panel(
            "Work lost",
            "How many tokens had to be computed or fetched again, of how many requests?",
            (
                Query("sum(trireme_recovery_tokens_total)", "tokens"),
                Query("sum(trireme_recovery_requests_total)", "requests"),
            ),
        ),
        Panel("Stages up", "Which stage is missing, and since when?", (Query("trireme_stage_up", _PLACE),), top=1),
    ),
)

BOARD = Board(
    "pipeline",
    "Trireme / Pipeline",
    "Which stage limits the tokens, and by what: arithmetic, memory, wires, queues, or losses and recoveries?",
    (_NOW, _STAGES, _STEPS, _RECOVERIES),
)
