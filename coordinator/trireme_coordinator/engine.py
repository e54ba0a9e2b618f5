"""The loop: schedule -> send -> collect, over a pipeline that is rebuilt when a stage is lost.

Owns the scheduler and the pipeline's lifetime. Knows nothing of gRPC requests, sessions or text: a listener
(`listeners.py`) is told of each token and says whether the answer goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable
from collections.abc import Sequence as Items
from typing import Never

from trireme_coordinator.launching import Discard, Launch, NextEpoch, keep, one_more
from trireme_coordinator.listeners import FAULT, Listener, Listeners
from trireme_coordinator.loss import REPLACED, Cause, StageLost
from trireme_coordinator.metrics.steps import StepMeter
from trireme_coordinator.page_fetching import Choose, PageFetching, quicker
from trireme_coordinator.pipeline import Pipeline, highest_epoch
from trireme_coordinator.recovery import Recoveries
from trireme_coordinator.scheduler import Batch, PageKeys, Scheduler, SchedulerConfig, Sequence
from trireme_coordinator.telemetry import StepReport
from trireme_coordinator.vigilance import Patience
from trireme_proto.errors import FrameRefused, Internal, PipelineUnavailable, TriremeError
from trireme_proto.v1 import stage_pb2 as pb
from trireme_worker.concurrency import first_to_end
from trireme_worker.link import Open, open_plainly

log = logging.getLogger(__name__)

_PAUSE_SECONDS = 0.02
_LONGEST_PAUSE = 256
"""Times `_PAUSE_SECONDS`. Pauses double while the pipeline is lost again and again without a step in between."""
_LAUNCH_PAUSE_SECONDS = 0.25
_LONGEST_LAUNCH_PAUSE = 16
"""Times `_LAUNCH_PAUSE_SECONDS`, as above."""
_STOPPING = "The server is stopping."


class Engine:
    """Runs sequences to their ends. `run` is the one task that does the work; the other methods return at once.

    Every listener is told of its sequence's end, whatever happens, unless the sequence is dropped.
    """

    def __init__(
        self,
        config: SchedulerConfig,
        launch: Launch,
        clock: Callable[[], int] = time.perf_counter_ns,
        *,
        keys: PageKeys | None = None,
        choose: Choose = quicker,
        discard: Discard = keep,
        next_epoch: NextEpoch = one_more,
        opened: Open = open_plainly,
    ) -> None:
        """`keys`: the stages have a page store, in which pages go by these; `choose`: when they are fetched.
        `opened`: how stages are reached.
        """
        self.scheduler = Scheduler(config, keys)
        self._choose = choose
        self.pipeline: Pipeline | None = None
        self.epoch = 0
        self.ready = asyncio.Event()
        self.lost = asyncio.Event()  # the opposite of `ready`, to wait for
        self.recoveries = Recoveries()
        self.meter = StepMeter()
        self._launch, self._discard, self._next_epoch, self._clock = launch, discard, next_epoch, clock
        self._opened = opened
        self._patience: dict[int, Patience] = {}
        self._failures = 0  # of the pipeline since it last completed a step
        self._sent: deque[int] = deque()  # when the micro-batches under way were handed to the pipeline
        self._started = self._ended = False
        self._wake = asyncio.Event()
        self._listeners = Listeners(self.scheduler, self._wake.set)

    @property
    def clock(self) -> Callable[[], int]:
        """The clock by which the scheduler is told the time, nanoseconds."""
        return self._clock

    @property
    def started(self) -> bool:
        """Whether the pipeline has been complete at least once."""
        return self._started

    def submit(self, sequence: Sequence, listener: Listener) -> None:
        """Starts work on a sequence. Overloaded when the queue is full, PipelineUnavailable when `run` has ended."""
        if self._ended:
            raise PipelineUnavailable(_STOPPING)
        self.scheduler.submit(sequence)
        self._listeners.add(sequence, listener)
        self._wake.set()

    def drop(self, sequence: Sequence) -> None:
        """Ends work on a sequence and frees what it holds on every stage; nothing happens where it has ended
        already.
        """
        self._listeners.drop(sequence)

    def leave(self, error: TriremeError) -> None:
        """Ends every sequence with this error, at the token where it is, and takes no more of them."""
        self._ended = True
        self._listeners.fail_all(error)

    def reopen(self) -> None:
        """Takes sequences again, for the next `run`."""
        self._ended = False

    @property
    def busy(self) -> bool:
        """Whether a sequence runs or waits."""
        return bool(self._listeners)

    def forget(self, session_id: str) -> None:
        """Frees what is kept for a session between its requests."""
        self.scheduler.budget.evict(session_id)
        self._wake.set()

    async def run(self) -> None:
        """Serves until cancelled; may be run again after `reopen`. A lost stage is replaced and every sequence goes on
        where it was; a fault of ours ends the sequences, but not the service.
        """
        try:
            while True:
                await self._run_epoch()
                self._bring_back()
                await asyncio.sleep(_PAUSE_SECONDS * min(2**self._failures, _LONGEST_PAUSE))
                self._failures += 1
        finally:
            self.leave(PipelineUnavailable(_STOPPING))
            self.scheduler.restart()

    def _bring_back(self) -> None:
        """The one place where the keys and values of running sequences come back: computed again from their tokens, or
        fetched from the page store where there is one and that is quicker.
        """
        self.scheduler.restart()
        self._listeners.give_up_hopeless()

    async def _run_epoch(self) -> None:
        """Builds the pipeline and serves until it breaks."""
        try:
            addresses = await self._launched()
            self.epoch = await self._next_epoch(max(self.epoch, await highest_epoch(addresses, self._opened)))
            async with Pipeline(addresses, self.epoch, self._patience, self._opened) as self.pipeline:
                self.recoveries.complete(addresses)
                await self._serve(self.pipeline)
        except StageLost as lost:
            await self._lost(lost.losses[0].cause, lost)
        except TriremeError as error:
            log.warning("pipeline lost, rebuilding it: %s", error.message)
            await self._lost(Cause.REFUSED if isinstance(error, FrameRefused) else Cause.ENDED)
        except asyncio.CancelledError:  # gRPC raises it too, for a call that the other side cancelled
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            log.warning("pipeline lost, rebuilding it: a stage cancelled its call")
            await self._lost(Cause.ENDED)
        except Exception:  # the one task that serves everybody: it must not die, nor leave anybody waiting for ever
            log.exception("the engine failed in a way that it should not have")
            self._listeners.fail_all(Internal(FAULT))
        finally:
            self._not_ready()
            self.pipeline = None

    def _not_ready(self) -> None:
        self.ready.clear()
        self.lost.set()

    async def _lost(self, cause: Cause, lost: StageLost | None = None) -> None:
        """Writes it down, and has the processes of lost stages put away."""
        self._not_ready()
        losses = lost.losses if lost is not None else ()
        running = self.scheduler.running
        self.recoveries.lost(cause, losses, sequences=len(running), tokens=sum(s.computed for s in running))
        if lost is not None:
            log.warning("pipeline lost, rebuilding it: %s", lost)
            await self._discard([loss for loss in losses if loss.cause in REPLACED])

    async def _launched(self) -> list[str]:
        failures = 0
        while True:
            try:
                return await self._launch()
            except TriremeError as error:
                log.warning("the stages could not be started, trying again: %s", error.message)
                self.recoveries.trouble = error.message
                await asyncio.sleep(_LAUNCH_PAUSE_SECONDS * min(2**failures, _LONGEST_LAUNCH_PAUSE))
                failures += 1

    async def _serve(self, pipeline: Pipeline) -> None:
        """Feeds and collects until something is lost: StageLost where that is a stage's process."""
        self._started = True
        self.lost.clear()
        self._sent.clear()
        self.ready.set()
        try:
            async with PageFetching(self.scheduler, pipeline, self._wake.set, self._choose) as pages:
                work = self._feed(pipeline, pages), self._collect(pipeline), pipeline.lost(), pipeline.watched()
                await first_to_end(*work)
        except TriremeError as error:
            self._not_ready()
            if not isinstance(error, FrameRefused):
                await pipeline.blame()
            raise

    async def _feed(self, pipeline: Pipeline, pages: PageFetching) -> Never:
        while True:
            self._wake.clear()
            while (batch := self._scheduled(pages)) is not None:
                self._listeners.tell_admitted(batch)
                self._sent.append(self._clock())
                await pipeline.send(batch)
            await self._woken(self.scheduler.wait_ns(self._clock()))

    def _scheduled(self, pages: PageFetching) -> Batch | None:
        batch = self.scheduler.schedule(self._clock())
        pages.begin()
        return batch

    async def _woken(self, after_ns: int) -> None:
        """Something happened, or so much time has passed (0: however long it takes)."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(after_ns / 1e9 if after_ns else None):
                await self._wake.wait()

    async def _collect(self, pipeline: Pipeline) -> Never:
        while True:
            self._apply(await pipeline.receive())
            self._wake.set()

    def _apply(self, result: pb.StepResult) -> None:
        """Takes in one step's result and tells everybody concerned."""
        self._failures = 0
        batch, tokens = self.scheduler.complete(result.step, [(t.slot, t.token_id) for t in result.tokens])
        sent_ns, now_ns = self._sent.popleft(), self._clock()
        self._learn(batch, result.timings, now_ns - sent_ns)
        stages = self.pipeline.processes if self.pipeline is not None else []
        step = StepReport(result.timings, result.sent_ns, now_ns - sent_ns, stages)
        for row in batch.rows:
            self._listeners.tell_step(row, tokens.get(row.sequence, []), step)
        self.meter.stepped(batch, len(result.tokens), tokens, result.timings, sent_ns, now_ns)

    def _learn(self, batch: Batch, timings: Items[pb.StageTiming], round_ns: int) -> None:
        waited = sum(t.wait_ns for t in timings)
        self.scheduler.learn(batch, [t.compute_ns for t in timings], round_ns - waited)
