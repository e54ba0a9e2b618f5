"""What must hold whatever happens: a pure function of the history, the right answers and the rules.

Owns the invariants of calls, books and epochs; that of throughput is in `rates.py`. Knows no clock, process, network.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tests.fault.history import (
    Books,
    CallBegan,
    CallEnded,
    Cancelled,
    Event,
    FaultBegan,
    FaultEnded,
    Left,
    Probe,
    Tokens,
)

Answers = Mapping[str, Sequence[int]]
"""All tokens of each request, by its name."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How strict the checker is."""

    grace: float = 1.0
    """Seconds after its deadline by which a call must have ended."""
    excused: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Reasons with which calls may fail while a fault of this kind lasts, and for `excused_after` seconds more."""
    excused_together: tuple[frozenset[str], frozenset[str], frozenset[str]] = (frozenset(), frozenset(), frozenset())
    """Reasons (the last) with which calls may fail where a fault of the first kinds and one of the second overlap."""
    excused_after: float = 10.0
    slack: Mapping[str, float] = field(default_factory=dict)
    """How much more of something may be held after than before, by the last part of its name; else nothing."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One invariant that did not hold."""

    invariant: str
    t: float
    sentence: str
    call: int | None = None


@dataclass(slots=True)
class Call:
    """All events of one call."""

    began: CallBegan
    tokens: list[Tokens] = field(default_factory=list)
    cancelled: bool = False
    ended: CallEnded | None = None


def calls_of(history: Iterable[Event]) -> dict[int, Call]:
    """The calls of a history by number."""
    calls: dict[int, Call] = {}
    for event in history:
        match event:
            case CallBegan():
                calls[event.call] = Call(event)
            case Tokens():
                calls[event.call].tokens.append(event)
            case Cancelled():
                calls[event.call].cancelled = True
            case CallEnded():
                calls[event.call].ended = event
    return calls


def check(history: Sequence[Event], answers: Answers, rules: Rules) -> list[Violation]:
    """All violations but those of throughput, in the order of their time."""
    end = history[-1].t if history else 0.0
    windows, blind = excuses(history, rules), blind_times(history)
    found: list[Violation] = []
    for call in calls_of(history).values():
        found += check_call(call, answers[call.began.request], rules, windows, end, blind)
    found += _check_probes(history)
    found += _check_books(history, rules)
    return sorted(found, key=lambda violation: violation.t)


Excuse = tuple[float, float, frozenset[str]]
Span = tuple[float, float]
_BLIND = 1.0


def blind_times(history: Iterable[Event]) -> list[Span]:
    """When the suite itself stood still, on a machine that had no time for it: what came then is written down later.

    Its samples of the machine, two a second, are then missing.
    """
    samples = [event.t for event in history if isinstance(event, Left)]
    return [(a, b) for a, b in itertools.pairwise(samples) if b - a > _BLIND]


def excuses(history: Iterable[Event], rules: Rules) -> list[Excuse]:
    """When calls may fail, and with which reasons."""
    spans = [(began.t, end + rules.excused_after, began.kind) for began, end in _faults(history)]
    alone = [(start, end, rules.excused.get(kind, frozenset())) for start, end, kind in spans]
    first, second, reasons = rules.excused_together
    pairs = itertools.product((s for s in spans if s[2] in first), (s for s in spans if s[2] in second))
    together = [(min(a[0], b[0]), max(a[1], b[1])) for a, b in pairs if a[0] <= b[1] and b[0] <= a[1]]
    return alone + [(start, end, reasons) for start, end in together]


def _faults(history: Iterable[Event]) -> list[tuple[FaultBegan, float]]:
    """Each fault and its end; infinity where it lasts."""
    began: dict[int, FaultBegan] = {}
    found: list[tuple[FaultBegan, float]] = []
    for event in history:
        if isinstance(event, FaultBegan):
            began[event.fault] = event
        elif isinstance(event, FaultEnded):
            found.append((began.pop(event.fault), event.t))
    return found + [(each, float("inf")) for each in began.values()]


def check_call(
    call: Call, answer: Sequence[int], rules: Rules, windows: Sequence[Excuse], now: float, blind: Sequence[Span] = ()
) -> list[Violation]:
    """What is wrong with one call; `now` is how far the history goes, `blind` when nobody was looking."""
    return [
        *_check_tokens(call, answer),
        *_check_end(call, answer, rules, now, blind),
        *_check_reason(call, windows),
    ]


def _check_tokens(call: Call, answer: Sequence[int]) -> list[Violation]:
    """No gap, no duplicate, a prefix of the right answer: of each the first place where it does not hold."""
    found: dict[str, Violation] = {}
    following = 0
    for message in call.tokens:
        where = f"call {call.began.call} ({call.began.request})"
        if message.index > following:
            text = f"{where}: token {following} was expected, {message.index} came."
            found.setdefault("gap", Violation("gap", message.t, text, call.began.call))
        if message.index < following:
            text = f"{where}: token {message.index} came again, after {following - 1}."
            found.setdefault("duplicate", Violation("duplicate", message.t, text, call.began.call))
        right = tuple(answer[message.index : message.index + len(message.ids)])
        if message.ids != right:
            text = f"{where}: at {message.index} came {list(message.ids)}, not {list(right)}."
            found.setdefault("wrong token", Violation("wrong token", message.t, text, call.began.call))
        following = message.index + len(message.ids)
    return list(found.values())


def _check_end(call: Call, answer: Sequence[int], rules: Rules, now: float, blind: Sequence[Span]) -> list[Violation]:
    """In time, and whole where it says OK."""
    number, due = call.began.call, call.began.t + call.began.seconds + rules.grace
    due += sum(max(min(end, due) - max(start, due - rules.grace), 0.0) for start, end in blind)
    if (call.ended.t if call.ended else now) > due:
        after = f"after {call.ended.t - call.began.t:.1f} s" if call.ended else "never"
        text = f"call {number} ({call.began.request}) with a deadline of {call.began.seconds:g} s ended {after}."
        return [Violation("late", due, text, number)]
    if call.ended and call.ended.status == "OK":
        delivered = call.tokens[-1].index + len(call.tokens[-1].ids) if call.tokens else 0
        if delivered < len(answer):
            text = f"call {number} ({call.began.request}) ended OK with {delivered} of {len(answer)} tokens."
            return [Violation("incomplete", call.ended.t, text, number)]
    return []


def _check_reason(call: Call, windows: Sequence[Excuse]) -> list[Violation]:
    """A call fails only for a reason that its caller or a fault gave."""
    if call.ended is None or call.ended.status == "OK":
        return []
    status, began, ended = call.ended.status, call.began.t, call.ended.t
    own = (status == "CANCELLED" and call.cancelled) or (
        status == "DEADLINE_EXCEEDED" and ended >= began + call.began.seconds - 0.05
    )
    if own or any(status in reasons and start <= ended and began <= end for start, end, reasons in windows):
        return []
    text = f"call {call.began.call} ({call.began.request}) failed with {status}, for which there was no reason."
    invariant = "untyped error" if status == "UNTYPED" else "failed call"
    return [Violation(invariant, ended, f"{text} {call.ended.message}".strip(), call.began.call)]


def _check_probes(history: Iterable[Event]) -> list[Violation]:
    return [
        Violation("old epoch", e.t, f"{e.stage} at epoch {e.epoch} accepted work of epoch {e.offered}.")
        for e in history
        if isinstance(e, Probe) and e.accepted
    ]


def _check_books(history: Iterable[Event], rules: Rules) -> list[Violation]:
    """Nothing is held after that was not held before; what has a `slack` may be that much more."""
    books = {event.when: event for event in history if isinstance(event, Books)}
    if not {"before", "after"} <= books.keys():
        return []
    before, after = books["before"].values, books["after"]
    return [
        Violation("leak", after.t, f"{name} was {before.get(name, 0):g} before and is {value:g} after.")
        for name, value in sorted(after.values.items())
        if value > before.get(name, 0) + rules.slack.get(name.rsplit(".", 1)[-1], 0)
    ]
