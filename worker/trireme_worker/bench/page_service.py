"""Tables of the benchmark page for what is measured above the kernels: service, pipeline, scheduler, plans."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Result = Mapping[str, Any]


def overhead(result: Result) -> Iterable[list[str]]:
    """`trireme bench overhead`."""
    for line in result["results"]:
        sizes = [line["pack"], str(line["stages"]), str(line["threads"])]
        yield [*sizes, f"{line['tokens_per_s']:.1f}", f"{line['bare_tokens_per_s']:.1f}", f"{line['of_bare']:.2f}"]


def plan(r: Result) -> Iterable[list[str]]:
    """`trireme bench plan`."""
    memory = " + ".join(f"{each / 1e9:.1f}" for each in r["rss_bytes"])
    yield ["tokens/s of one stream over gRPC", f"{r['tokens_per_s']:.2f}"]
    yield ["limit: read bandwidth by bytes a token", f"{r['read_gb_s']:.1f} GB/s: {r['limit_tokens_per_s']:.2f}"]
    yield ["highest of the probes by the lowest", f"{r['read_drift']:.2f}"]
    yield ["of the limit", f"{r['of_limit']:.2f}"]
    yield ["planned, error", f"{r['planned_tokens_per_s']:.2f}, {r['tokens_per_s_error']:+.1%}"]
    yield [f"first token of a prompt of {r['prompt']}, s", f"{r['ttft_s']:.2f}"]
    yield ["planned, error", f"{r['planned_ttft_s']:.2f}, {r['ttft_error']:+.1%}"]
    yield ["weights read a token", f"{r['bytes_per_token'] / 1e9:.2f} GB, {r['of_fp16']:.3f} of fp16"]
    yield [f"memory of the {r['stages']} stages, weights mapped", f"{memory} GB"]
    yield ["start: hashing, compiling, first token", f"{r['start_s']:.0f} s"]


def pipeline(r: Result) -> Iterable[list[str]]:
    """`trireme bench pipeline`."""
    sizes = [str(r["stages"]), str(r["streams"]), f"{r['step_ms']:g} ms"]
    rate, prefill = r["tokens_per_s"], r["prefill_s"]
    measured = [f"{rate['measured']:.1f}", f"{r['ideal_tokens_per_s']:.1f}", f"{r['of_ideal']:.3f}"]
    share = [f"{r['of_one_stage']:.3f}" if prefill else ""]
    errors = [rate, *([prefill] if prefill else []), *(r["load"] or {}).values()]
    yield [*sizes, *measured, *share, f"{max(abs(each['error']) for each in errors):.1%}"]


def scheduler(result: Result) -> Iterable[list[str]]:
    """`trireme bench scheduler`."""
    for line in result["rows"]:
        parts = (line[name] for name in ("schedule_us", "frame_us", "total_us"))
        yield [str(line["sequences"]), *(f"{part:.1f}" for part in parts)]


def load(result: Result) -> Iterable[list[str]]:
    """`trireme bench serve --concurrency`."""
    for run in result["runs"]:
        sizes = [str(run["streams"]), str(run["completed"]), str(sum(run["failed"].values()))]
        latencies = [f"{run[name][part]:.2f} s" for name in ("ttft_s", "itl_s") for part in ("p50", "p99")]
        yield [*sizes, f"{run['tokens_per_s']:.0f}", *latencies]


SERVICE_KINDS = {
    "load": (
        ["open streams", "answers", "failed", "tokens/s", "TTFT p50", "p99", "ITL p50", "p99"],
        load,
    ),
    "overhead": (["pack", "stages", "threads of each", "tokens/s over gRPC", "bare loop", "of bare"], overhead),
    "plan": (["", ""], plan),
    "pipeline": (
        [
            *("stages", "streams", "a stage's step", "tokens/s", "ideal", "of ideal"),
            *("4k prompt, of one stage's time", "largest error of the simulation"),
        ],
        pipeline,
    ),
    "scheduler": (["sequences", "scheduling, us of CPU a token", "frames, us", "together, us"], scheduler),
}
