"""Tables of the benchmark page for what is broken on purpose: workers, coordinators, the session store, the soak."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Result = Mapping[str, Any]


def recovery(r: Result) -> Iterable[list[str]]:
    """`trireme bench recovery`."""
    wrong = f"{r['lost_tokens']} lost, {r['duplicated_tokens']} twice, {r['other_tokens']} other"
    times = [f"{r[name]['p50']:.2f} / {r[name]['p95']:.2f} s" for name in ("recovery_s", "detection_s")]
    yield ["worker", str(r["kills"]), f"{r['exact']} of {r['answers']} exact, {r['failed']} failed; {wrong}", *times]


def failover(r: Result) -> Iterable[list[str]]:
    """`trireme bench failover`."""
    answers = f"{r['answers'] - r['wrong']} of {r['answers']} exact, {r['failed']} failed"
    yield ["leading coordinator", str(r["kills"]), answers, f"{r['gap_p50_s']:.2f} / {r['gap_p95_s']:.2f} s", ""]


def lost(r: Result) -> Iterable[list[str]]:
    """Either of the above, which share a table."""
    return recovery(r) if "recovery_s" in r else failover(r)


def redis(r: Result) -> Iterable[list[str]]:
    """`trireme bench redis`."""
    calm = r["calm"]["p99_s"]
    for name, what in (("calm", "well"), ("killed", f"killed {r['kills']}x"), ("frozen", f"frozen {r['freezes']}x")):
        each = r[name]
        times = [f"{each[part] * 1e3:.1f} ms" for part in ("p50_s", "p99_s", "longest_s")]
        yield [what, str(each["tokens"]), *times, f"{each['p99_s'] / calm - 1:+.1%}"]


def resume(r: Result) -> Iterable[list[str]]:
    """`trireme bench resume`."""
    sizes = [r["model"], str(r["tokens"]), r["kv_dtype"], f"{r['bytes'] / 1e6:.0f} MB"]
    yield [*sizes, f"{r['ttft_prefill_s']:.2f} s", f"{r['ttft_restore_s']:.2f} s", f"{r['speedup']:.1f}"]


FAULT_KINDS = {
    "lost": (["killed", "times", "answers", "until the next token, p50 / p95", "noticed, p50 / p95"], lost),
    "redis": (["session store", "tokens", "ITL p50", "p99", "longest", "p99 by that of well"], redis),
    "resume": (["shape", "tokens", "keys and values", "in pages", "prefilled", "restored", "quicker by"], resume),
}
