"""From what was told of a request to its tree of spans.

generate
|-- admit              the session is read, the request recorded
|   `-- tokenize
|-- queue
|   |-- prefix lookup
|   `-- kv restore
|-- prefill
|   |-- chunk, chunk, ...
|   `-- stage 0, stage 1, ...
|-- decode
|   |-- stage 0, stage 1, ...
|   |-- recovery       below whichever phase it began in
|   |   |-- detect
|   |   |-- rebuild
|   |   |-- prefix lookup, kv restore
|   |   `-- recompute
|   `-- step, step, ... where each was asked for
`-- deliver            the last tokens are stored and on their way to the caller
"""

from __future__ import annotations

from itertools import pairwise

from trireme_coordinator.telemetry import names
from trireme_coordinator.telemetry.recoveries import Recovery
from trireme_coordinator.telemetry.request_trace import Lookup, RequestTrace
from trireme_coordinator.telemetry.stage_spans import add_chunks, add_stages, add_steps
from trireme_coordinator.telemetry.step_log import StepLog
from trireme_coordinator.telemetry.tree import Process, SpanTree
from trireme_proto.limits import LIMITS

_RESERVED = 64
"""Of the most spans of a request: for those that are not steps."""


def assemble(trace: RequestTrace, process: Process) -> SpanTree:
    """The spans of a request that has ended; `process` is the coordinator."""
    root = SpanTree(names.REQUEST, trace.started, trace.ended_ns, process, trace.attributes)
    root.error = trace.error
    for log in (trace.prefill, trace.decode, *trace.recomputed):
        if log is not None:
            log.fold()
    begins = [*trace.at.items(), ("", trace.ended_ns)]
    phases = {name: root.child(name, at, end) for (name, at), (_, end) in pairwise(begins)}
    if trace.tokenized_ns:
        phases[names.ADMIT].child(names.TOKENIZE, trace.started, trace.tokenized_ns)
    recoveries = _recoveries(trace, phases)
    root.attributes[names.RECOVERIES] = len(recoveries)
    _lookups(root, trace.lookups, phases, recoveries)
    _recomputed(trace, phases, recoveries)
    if trace.prefill is not None:
        _phase(phases[names.PREFILL], trace.prefill, trace)
        add_chunks(phases[names.PREFILL], trace.prefill)
    if trace.decode is not None:
        _phase(phases[names.DECODE], trace.decode, trace)
        left = LIMITS.trace_spans - _RESERVED - sum(1 for _ in root.walk())
        add_steps(phases[names.DECODE], trace.decode, trace.layers, left)
    return root


def _phase(span: SpanTree, log: StepLog, trace: RequestTrace) -> None:
    span.attributes |= {names.FRAMES: log.frames, names.TOKENS: log.tokens}
    span.attributes |= {
        names.COORDINATOR_MS: log.coordinator_ns / 1e6,
        names.LONGEST_PAUSE_MS: log.longest_gap_ns / 1e6,
    }
    add_stages(span, log, trace.layers)


def _recoveries(trace: RequestTrace, phases: dict[str, SpanTree]) -> list[tuple[SpanTree, Recovery]]:
    """A span for each time that the pipeline was lost under the request, below the phase in which that was noticed."""
    found: list[tuple[SpanTree, Recovery]] = []
    for event in trace.recoveries.recent():
        noticed = event.at_ns - int(event.rebuild_s * 1e9)
        if event.at_ns < trace.started or noticed >= trace.ended_ns:
            continue
        phase = next(span for span in reversed(phases.values()) if span.start_ns <= noticed or span.name == names.ADMIT)
        began = noticed - int(event.detection_s * 1e9)
        span = phase.child(names.RECOVERY, began, event.at_ns, {names.CAUSE: str(event.cause)})
        span.attributes |= {names.STAGES: tuple(event.stages), names.METHOD: str(event.method), names.KV_METHOD: "none"}
        span.child(names.DETECT, began, noticed)
        span.child(names.REBUILD, noticed, event.at_ns)
        found.append((span, event))
    return found


def _during(at_ns: int, phases: dict[str, SpanTree], recoveries: list[tuple[SpanTree, Recovery]]) -> SpanTree:
    """What something that ended then, or began, belongs to: the recovery before it, else its phase. A recovery lasts
    until all of it is done.
    """
    before = [(span, event) for span, event in recoveries if event.at_ns <= at_ns]
    phase = next((span for span in reversed(phases.values()) if span.start_ns <= at_ns), phases[names.ADMIT])
    return before[-1][0] if before and phase.name in {names.PREFILL, names.DECODE} else phase


def _lookups(
    root: SpanTree,
    lookups: list[tuple[int, Lookup]],
    phases: dict[str, SpanTree],
    recoveries: list[tuple[SpanTree, Recovery]],
) -> None:
    for number, (ended, lookup) in enumerate(lookups):
        parent = _during(ended, phases, recoveries) if number else phases[names.QUEUE]
        _look(parent, ended, lookup)
        if parent.name == names.RECOVERY and lookup.pages:
            parent.attributes[names.KV_METHOD] = "restored"
        if lookup.asked:
            root.attributes |= {names.STORED_PAGES: lookup.found, names.RESTORED_PAGES: lookup.pages}
            root.attributes |= {names.RESTORED_BYTES: lookup.size, names.RESTORE_MS: lookup.seconds * 1e3}


def _look(parent: SpanTree, ended: int, lookup: Lookup) -> None:
    """The lookup began when a place was given; where pages were wanted, the request waited for them."""
    began = ended - lookup.since_ns
    parent.end_ns = max(parent.end_ns, ended) if parent.name == names.RECOVERY else parent.end_ns
    known = began + round((lookup.seconds - lookup.restoring_s) * 1e9) if lookup.asked else ended
    parent.child(
        names.LOOKUP, began, known, {names.CACHED_TOKENS: lookup.cached_tokens, names.STORED_PAGES: lookup.found}
    )
    if lookup.restoring_s:
        took = {names.RESTORED_PAGES: lookup.pages, names.RESTORED_BYTES: lookup.size}
        parent.child(names.RESTORE, known, known + round(lookup.restoring_s * 1e9), took)


def _recomputed(trace: RequestTrace, phases: dict[str, SpanTree], recoveries: list[tuple[SpanTree, Recovery]]) -> None:
    for log in trace.recomputed:
        if not log.steps:
            continue
        began, ended = log.steps[0].sent_ns, log.steps[-1].arrived_ns
        parent = _during(began, phases, recoveries)
        if parent.name == names.RECOVERY:
            parent.end_ns = max(parent.end_ns, ended)
            restored = parent.attributes.get(names.KV_METHOD) == "restored"
            parent.attributes |= {
                names.KV_METHOD: "both" if restored else "recomputed",
                names.RECOMPUTED_TOKENS: log.tokens,
            }
        span = parent.child(names.RECOMPUTE, began, ended)
        _phase(span, log, trace)
        add_chunks(span, log)
        decode = phases[names.DECODE].attributes
        decode[names.RECOMPUTED_TOKENS] = _whole(decode.get(names.RECOMPUTED_TOKENS)) + log.tokens


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0
