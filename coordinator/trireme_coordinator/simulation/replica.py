"""One pipeline on the virtual clock: the real scheduler, stages that take time, links between them.

A stage computes frames in the order of their arrival, one at a time, and nothing is decided between the first stage and
the last one; so a frame's way through all of them is known when it is sent:

    sent --link--> [ waits | computes ] --link--> [ waits | computes ] --link--> result
                     stage 0                        stage 1

and a micro-batch costs one event, however many stages there are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count

from trireme_coordinator.scheduler import Batch, SamplingParams, Scheduler, SchedulerConfig
from trireme_coordinator.scheduler import Sequence as Request
from trireme_coordinator.simulation.events import Events
from trireme_coordinator.simulation.work import StageTimes, work_of
from trireme_proto.errors import InvalidRequest, Overloaded
from trireme_proto.load import Arrival, Record

_NS = 1e9
_GREEDY = SamplingParams(0.0, 0, 1.0, 0)
_ANSWERS = 1 << 62
"""Token ids of answers begin here: none comes twice, nor in a prompt, so that there is nothing to guess or to share."""


@dataclass(frozen=True)
class Pipeline:
    """What a replica is made of."""

    config: SchedulerConfig
    stages: Sequence[StageTimes]
    latency_s: float = 0.0
    """Of the way from the coordinator to the first stage."""
    names: Sequence[str] = ()
    """Of the stages' nodes."""


@dataclass(frozen=True)
class _Passage:
    """A micro-batch's way: what each stage computed, all of it without waiting, and the moment of its result."""

    computed_ns: Sequence[int]
    round_ns: int
    ends: float


class Replica:
    """Runs requests to their ends. Their records are filled in as tokens come."""

    def __init__(self, pipeline: Pipeline, events: Events) -> None:
        self.pipeline = pipeline
        self.busy = [0.0] * len(pipeline.stages)
        """Seconds that each stage has computed."""
        self._events = events
        self._scheduler = Scheduler(pipeline.config)
        self._records: dict[Request, Record] = {}
        self._free = [0.0] * len(pipeline.stages)
        self._link_free = [0.0] * len(pipeline.stages)
        self._next_look = 0.0
        self._prompts, self._tokens = count(), count(_ANSWERS)

    @property
    def outstanding(self) -> int:
        """Requests that have not ended."""
        return len(self._records)

    def submit(self, arrival: Arrival, record: Record) -> None:
        """A request arrives; where it is refused, its record says why."""
        first = next(self._prompts) << 32  # no two prompts begin alike
        request = Request(list(range(first, first + arrival.prompt)), _GREEDY, arrival.output)
        try:
            self._scheduler.submit(request)
        except Overloaded as error:
            record.error, record.ended = error.reason, self._events.now
        except ValueError:  # it could never run
            record.error, record.ended = InvalidRequest.reason, self._events.now
        else:
            self._records[request] = record
            self._feed()

    def _feed(self) -> None:
        now_ns = self._now_ns()
        while (batch := self._scheduler.schedule(now_ns)) is not None:
            passage = self._passage(batch)
            self._events.at(passage.ends, self._completion(batch, passage))
        if wait := self._scheduler.wait_ns(now_ns):
            self._again(self._events.now + wait / _NS)

    def _again(self, moment: float) -> None:
        """One look at the scheduler at that moment, however often it asks for one."""
        if self._next_look <= self._events.now or moment < self._next_look:
            self._next_look = moment
            self._events.at(moment, self._feed)

    def _now_ns(self) -> int:
        return round(self._events.now * _NS)

    def _passage(self, batch: Batch) -> _Passage:
        """The way of a micro-batch that is sent now."""
        waited, computed = 0.0, []
        work = work_of(batch.rows, sum(row.sampled for row in batch.rows if row.samples))
        at, last = self._events.now + self.pipeline.latency_s, len(self.pipeline.stages) - 1
        for i, stage in enumerate(self.pipeline.stages):
            seconds = stage.compute_s(work)
            waited += max(0.0, self._free[i] - at)
            computed.append(round(seconds * _NS))
            self._free[i] = max(at, self._free[i]) + seconds
            self.busy[i] += seconds
            sent = work.tokens if i < last else 0  # the last stage sends token ids: next to nothing
            self._link_free[i] = max(self._free[i], self._link_free[i]) + stage.transfer_s(sent)
            at = self._link_free[i] + stage.latency_s
        return _Passage(computed, round((at - self._events.now - waited) * _NS), at)

    def _completion(self, batch: Batch, passage: _Passage) -> Callable[[], None]:
        return lambda: self._complete(batch, passage)

    def _complete(self, batch: Batch, passage: _Passage) -> None:
        sampled = [(row.slot, next(self._tokens)) for row in batch.rows if row.samples for _ in range(row.sampled)]
        _, tokens = self._scheduler.complete(batch.step, sampled)
        self._scheduler.learn(batch, passage.computed_ns, passage.round_ns)
        for request, taken in tokens.items():
            self._records[request].take(self._events.now, len(taken))
            if request.finish is not None:
                self._scheduler.drop(request)
                self._records.pop(request).ended = self._events.now
        self._feed()
