"""Sends the requests of a load and records when their tokens come.

Owns the two kinds of loop: open, where requests come when they are due whatever became of the earlier ones, and closed,
where each of N streams sends its next request when the last one ended. Knows nothing of percentiles or of printing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from random import Random
from typing import Any, Protocol

from trireme import AsyncClient
from trireme_proto.errors import TriremeError
from trireme_proto.load import Arrival, Record


class Clock(Protocol):
    """Seconds, and waiting for a moment."""

    def now(self) -> float: ...
    async def until(self, moment: float) -> None: ...


class LoopClock:
    """The event loop's own clock."""

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    async def until(self, moment: float) -> None:
        await asyncio.sleep(max(0.0, moment - self.now()))


class Load:
    """Requests to a client's server, and what was recorded of each; broken off, it keeps what it has.

    vocabulary: prompts are token ids below it, drawn from each arrival's seed.
    report: called with (requests ended, requests in all).
    """

    def __init__(
        self, client: AsyncClient, vocabulary: int, *, clock: Clock, report: Callable[[int, int], None]
    ) -> None:
        self.records: list[Record] = []
        self.sessions: list[str] = []
        """Ids of the sessions that the requests left on the server."""
        self._client, self._vocabulary, self._clock, self._report = client, vocabulary, clock, report
        self._ended = 0

    async def open_loop(self, arrivals: Sequence[Arrival]) -> None:
        """Sends each request when it is due; returns when all have ended."""
        started = self._clock.now()

        async def send(tasks: asyncio.TaskGroup) -> None:
            for arrival in arrivals:
                await self._clock.until(started + arrival.at)
                tasks.create_task(self._request(arrival, started + arrival.at, len(arrivals)))

        await _together([send])

    async def closed_loop(self, arrivals: Sequence[Arrival], streams: int) -> None:
        """Keeps `streams` requests under way until all have ended."""
        waiting: Iterator[Arrival] = iter(arrivals)

        async def stream(_tasks: asyncio.TaskGroup) -> None:
            for arrival in waiting:
                await self._request(arrival, self._clock.now(), len(arrivals))

        await _together([stream] * streams)

    async def forget_sessions(self) -> None:
        """Deletes what the requests left on the server; what is gone already is none of our business."""
        waiting = iter(self.sessions)

        async def delete(_tasks: asyncio.TaskGroup) -> None:
            for session in waiting:
                try:
                    await self._client.sessions.delete(session)
                except TriremeError:
                    continue

        await _together([delete] * 8)
        self.sessions.clear()

    async def _request(self, arrival: Arrival, scheduled: float, total: int) -> None:
        record = Record(scheduled, arrival.prompt)
        self.records.append(record)
        random = Random(arrival.seed)
        prompt = [random.randrange(self._vocabulary) for _ in range(arrival.prompt)]
        record.sent = self._clock.now()
        stream = self._client.generate(prompt, max_tokens=arrival.output, seed=arrival.seed, ignore_eos=True)
        async with stream:
            try:
                async for chunk in stream:
                    record.take(self._clock.now(), len(chunk.token_ids))
            except TriremeError as error:
                record.error = error.reason
            record.ended = self._clock.now()
            if stream.session_id:
                self.sessions.append(stream.session_id)
        self._ended += 1
        self._report(self._ended, total)


async def _together(works: Sequence[Callable[[asyncio.TaskGroup], Coroutine[Any, Any, None]]]) -> None:
    """Runs them in one group, to which they may add; a cancelled group leaves nothing behind."""
    async with asyncio.TaskGroup() as tasks:
        for work in works:
            tasks.create_task(work(tasks))
