"""The loop: schedule -> send -> collect, over a pipeline that is rebuilt when a stage is lost.

Owns the scheduler and the pipeline's lifetime. Knows nothing of gRPC requests, sessions or text: a listener is told of
each token and says whether the answer goes on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from collections.abc import Sequence as Items
from typing import Protocol

from trireme_coordinator.pipeline import Pipeline
from trireme_coordinator.scheduler import Batch, Finish, Scheduler, SchedulerConfig, Sequence
from trireme_proto.errors import PipelineUnavailable, TriremeError
from trireme_proto.v1 import stage_pb2 as pb

log = logging.getLogger(__name__)

Launch = Callable[[], Awaitable[list[str]]]
"""Makes sure that all stages run; returns their addresses in pipeline order. PipelineUnavailable if it cannot."""


class Listener(Protocol):
    """Told, on the event loop, what happens to its sequence. Must be quick."""

    def admitted(self) -> None: ...
    def timed(self, *, prefill: bool, tokens: int, timings: Items[pb.StageTiming]) -> None: ...
    def token(self, token_id: int) -> Finish | None:
        """A token of the answer. Returns STOP to end it here."""

    def finished(self, reason: Finish) -> None: ...


class Engine:
    """Runs sequences to their ends. `run` is the one task that does the work; the other methods return at once."""

    def __init__(self, config: SchedulerConfig, launch: Launch) -> None:
        self.scheduler = Scheduler(config)
        self.pipeline: Pipeline | None = None
        self.epoch = 0
        self.ready = asyncio.Event()
        self._launch = launch
        self._started = False
        self._listeners: dict[Sequence, Listener] = {}
        self._wake = asyncio.Event()

    @property
    def started(self) -> bool:
        """Whether the pipeline has been complete at least once."""
        return self._started

    def submit(self, sequence: Sequence, listener: Listener) -> None:
        """Starts work on a sequence. Overloaded when the queue is full."""
        self.scheduler.submit(sequence)
        self._listeners[sequence] = listener
        self._wake.set()

    def drop(self, sequence: Sequence) -> None:
        """Ends work on a sequence and frees what it holds on every stage; nothing happens where it has ended
        already.
        """
        if self._listeners.pop(sequence, None) is not None:
            self.scheduler.drop(sequence)
            self._wake.set()

    def forget(self, session_id: str) -> None:
        """Frees what is kept for a session between its requests."""
        self.scheduler.budget.evict(session_id)
        self._wake.set()

    async def run(self) -> None:
        """Serves until cancelled. A lost stage is replaced and every sequence goes on where it was."""
        while True:
            addresses = await self._launched()
            self.epoch += 1
            try:
                async with Pipeline(addresses, self.epoch) as self.pipeline:
                    await self._serve(self.pipeline)
            except PipelineUnavailable as error:
                log.warning("pipeline lost, rebuilding it: %s", error.message)
            finally:
                self.ready.clear()
                self.pipeline = None
            self.scheduler.restart()
            await asyncio.sleep(0.2)  # a stage that fails at once must not be restarted in a tight loop

    async def _launched(self) -> list[str]:
        while True:
            try:
                return await self._launch()
            except TriremeError as error:
                log.warning("the stages could not be started, trying again: %s", error.message)
                await asyncio.sleep(1.0)

    async def _serve(self, pipeline: Pipeline) -> None:
        """Feeds and collects until one of them fails."""
        self._started = True
        self.ready.set()
        tasks = [asyncio.ensure_future(self._feed(pipeline)), asyncio.ensure_future(self._collect(pipeline))]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome

    async def _feed(self, pipeline: Pipeline) -> None:
        while True:
            self._wake.clear()
            while (batch := self.scheduler.schedule()) is not None:
                self._tell_admitted(batch)
                await pipeline.send(batch)
            await self._wake.wait()

    async def _collect(self, pipeline: Pipeline) -> None:
        async for result in pipeline.results():
            self._take(result)
            self._wake.set()

    def _take(self, result: pb.StepResult) -> None:
        """Applies one step's result: time, tokens, ends."""
        batch = self.scheduler.under_way
        tokens = self.scheduler.complete(result.step, ((t.slot, t.token_id) for t in result.tokens))
        self._tell_times(batch, result)
        for sequence, token_id in tokens:
            if (reason := self._listeners[sequence].token(token_id)) is not None:
                self.scheduler.finish(sequence, reason)
        for row in batch.rows:
            self._end_if_finished(row.sequence)

    def _tell_admitted(self, batch: Batch) -> None:
        for row in batch.rows:
            if row.position == row.sequence.cached and (listener := self._listeners.get(row.sequence)):
                listener.admitted()

    def _tell_times(self, batch: Batch, result: pb.StepResult) -> None:
        for row in batch.rows:
            if (listener := self._listeners.get(row.sequence)) is not None:
                listener.timed(prefill=row.prefill, tokens=row.count, timings=result.timings)

    def _end_if_finished(self, sequence: Sequence) -> None:
        if sequence.finish is not None and (listener := self._listeners.pop(sequence, None)) is not None:
            self.scheduler.drop(sequence)
            listener.finished(sequence.finish)
