"""A coordinator's terms: takes the stages over when it comes to lead, gives them up when it does not lead any more.

    standing by --(wins the lease)--> taking over --(a token came through)--> serving
         ^                                |                                      |
         `---------(cannot: lease given back)      (another one leads) ----------'
    serving --(told to stop)--> draining --> left to a successor, or ended where there is none

Decides when; what stages are is the business of `Stages`, who leads that of `Leadership`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol

from trireme_coordinator.engine import Engine
from trireme_coordinator.leadership import Leadership, Sleep
from trireme_coordinator.self_test import one_token
from trireme_coordinator.service.door import Door
from trireme_proto.errors import CoordinatorLeaving, NotLeading, SessionStoreUnavailable, TriremeError
from trireme_worker.concurrency import first_to_end

log = logging.getLogger(__name__)
_PAUSE_SECONDS = 1.0
"""Before a coordinator that could not take over tries again: another one may have more luck."""
_POLL_SECONDS = 0.1
_FLUSH_SECONDS = 3.0
_SOON = 0.2
"""Seconds after which a caller may ask again for who leads."""


class Stages(Protocol):
    """The workers, on whatever cluster."""

    async def begin(self) -> None:
        """Has all of them running, those of the coordinator before if they are still there. TriremeError."""

    def disown(self) -> None:
        """Leaves them to another coordinator."""

    async def end(self) -> None:
        """Ends them."""


class Reign:
    """Runs the engine while this coordinator leads, and keeps the door closed while it does not."""

    def __init__(
        self, leadership: Leadership, stages: Stages, engine: Engine, door: Door, sleep: Sleep = asyncio.sleep
    ) -> None:
        self.serving = asyncio.Event()
        self._leadership, self._stages, self._engine, self._door = leadership, stages, engine, door
        self._sleep = sleep
        self._work: asyncio.Task[None] | None = None
        self._terms: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Leads at once where nobody does, and else stands by. A TriremeError where it should lead, but cannot."""
        leads = False
        with suppress(SessionStoreUnavailable):  # it is asked again as long as we stand by
            leads = await self._leadership.attempt()
        if leads:
            try:
                await first_to_end(self._begin(), self._deposed())
            except NotLeading:  # it was slow to start
                await self._depart()
        else:
            self._stand_by()
        self._terms = asyncio.get_running_loop().create_task(self._run(), name="terms")

    async def drain(self, seconds: float, flush: Callable[[float], Awaitable[object]]) -> None:
        """Ends what runs, as gently as can be: no new calls; running answers go on elsewhere where somebody stands by,
        and have `seconds` to end where nobody does. `flush` has the tokens so far stored within so many seconds.
        """
        leaving = CoordinatorLeaving("This coordinator is stopping; another one goes on.", retry_after=_SOON)
        self._door.refusal = leaving
        await _ended(self._terms)
        ends = asyncio.get_running_loop().time() + seconds
        while self._engine.busy and asyncio.get_running_loop().time() < ends:
            if await self._leadership.successor():
                break
            await self._sleep(_POLL_SECONDS)
        self._engine.leave(leaving)
        await flush(_FLUSH_SECONDS)  # before the successor can read
        await self.stop()

    async def stop(self) -> None:
        """Leaves the stages to whoever stands by; ends them where nobody does. May be called again."""
        await _ended(self._terms)
        await self._end(CoordinatorLeaving("This coordinator is stopping."))
        if await self._leadership.alone():
            await self._stages.end()
        else:
            self._stages.disown()
        await self._leadership.resign()

    async def _run(self) -> None:
        while True:
            if not self.serving.is_set():
                await self._leadership.win()
                await self._take_over()
            await self._leadership.lost.wait()
            await self._depart()

    async def _take_over(self) -> None:
        try:
            await first_to_end(self._begin(), self._deposed())
        except TriremeError as error:
            log.warning("the stages could not be taken over: %s", error.message)
            await self._give_back()
        except Exception:  # whatever it is: the lease must not be kept by somebody who does not serve
            log.exception("the stages could not be taken over, in a way that should not be")
            await self._give_back()

    async def _give_back(self) -> None:
        self._leadership.lost.set()
        await self._sleep(_PAUSE_SECONDS)

    async def _begin(self) -> None:
        await self._stages.begin()
        self._engine.reopen()
        self._work = asyncio.get_running_loop().create_task(self._engine.run(), name="engine")
        await one_token(self._engine)
        self._door.refusal = None
        self.serving.set()

    async def _deposed(self) -> None:
        await self._leadership.lost.wait()
        raise NotLeading("Another coordinator leads.")

    async def _depart(self) -> None:
        """The end of a term: the stages are another one's now."""
        self._stand_by()
        await self._end(NotLeading("Another coordinator leads.", retry_after=_SOON))
        self._stages.disown()
        await self._leadership.resign()

    def _stand_by(self) -> None:
        self._door.refusal = NotLeading("This coordinator stands by: another one leads.", retry_after=_SOON)

    async def _end(self, error: TriremeError) -> None:
        self.serving.clear()
        self._engine.leave(error)
        await _ended(self._work)


async def _ended(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
