"""Figures as words, one line each: what a person reads of a load, measured or simulated."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from trireme_proto.load.figures import Figures, Percentiles

_MOST_SHOWN = 16
"""Stages that are shown one by one."""


def lines(found: Sequence[Figures]) -> Iterator[tuple[str, ...]]:
    """Names of figures, each with its values of all the loads."""
    for name, shown in _LINES:
        yield name, *map(shown, found)


def _percentiles(of: Callable[[Figures], Percentiles]) -> Callable[[Figures], str]:
    def shown(found: Figures) -> str:
        values = of(found)
        return " / ".join("-" if value is None else _time(value) for value in (values.p50, values.p90, values.p99))

    return shown


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.1f} ms"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _failed(found: Figures) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in found.failed.items()) or "0"


def _busy(found: Figures) -> str:
    """Of each stage, or, of many, the least, the mean and the most."""
    shares = [stage.utilisation for stage in found.stages]
    if len(shares) > _MOST_SHOWN:
        return f"{_share(min(shares))} / {_share(found.utilisation)} / {_share(max(shares))}"
    return " ".join(map(_share, shares)) or "-"


_LINES: tuple[tuple[str, Callable[[Figures], str]], ...] = (
    ("requests", lambda f: f"{f.requests} in {f.seconds:.1f} s"),
    ("completed", lambda f: str(f.completed)),
    ("refused or failed", _failed),
    ("unfinished", lambda f: str(f.unfinished)),
    ("TTFT p50/p90/p99", _percentiles(lambda f: f.ttft_s)),
    ("ITL p50/p90/p99", _percentiles(lambda f: f.itl_s)),
    ("end to end", _percentiles(lambda f: f.e2e_s)),
    ("sent late by", _percentiles(lambda f: f.sent_late_s)),
    ("tokens/s", lambda f: f"{f.tokens_per_s:.1f}"),
    ("prompt tokens/s", lambda f: f"{f.prompt_tokens_per_s:.1f}"),
    ("requests/s", lambda f: f"{f.requests_per_s:.2f}"),
    ("goodput", lambda f: "-" if f.goodput_per_s is None else f"{f.goodput_per_s:.2f} requests/s"),
    ("stages busy", _busy),
    ("bubble", lambda f: _share(f.bubble)),
)
