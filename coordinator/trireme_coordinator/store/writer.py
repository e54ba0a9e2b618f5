"""Write-behind: tokens go to the session store in the background, never on a token's path.

One task writes session after session, each with everything it has put so far, in order. While the store is away it
tries again with growing pauses. What waits, and what becomes of it when there is too much, is `backlogs.py`'s.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from trireme_coordinator.store.backlog import Backlog, Run
from trireme_coordinator.store.backlogs import Backlogs, WriterCounters, not_stored
from trireme_coordinator.store.health import Jitter, full_jitter
from trireme_coordinator.store.records import SessionStore
from trireme_coordinator.store.requests import Birth, End, began
from trireme_proto.errors import (
    Internal,
    LeaseLost,
    SessionBusy,
    SessionIncomplete,
    SessionStoreUnavailable,
    TriremeError,
)

_log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.25
"""Between two looks at whether the store is away, while somebody waits for it."""


class SessionWriter:
    """Appends to sessions in the background. Belongs to one event loop."""

    def __init__(
        self,
        store: SessionStore,
        *,
        backlog_bytes: int = 64 << 20,
        flush_seconds: float = 5.0,
        first_pause: float = 0.05,
        longest_pause: float = 2.0,
        jitter: Jitter = full_jitter,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`backlog_bytes` bounds what waits, `flush_seconds` a flush; between attempts lies a pause that `jitter` draws
        from a longest one, which grows from `first_pause` to `longest_pause` (seconds).
        """
        self.on_lease_lost: Callable[[str], None] = lambda _: None
        """Told of a session that somebody else has taken over."""
        self._store = store
        self._flush_seconds = flush_seconds
        self._first_pause, self._longest_pause = first_pause, longest_pause
        self._sleep, self._jitter = sleep, jitter
        self._backlogs = Backlogs(backlog_bytes)
        self._away = False
        self._work = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def counters(self) -> WriterCounters:
        """What happened since the start."""
        return self._backlogs.counters

    @property
    def backlog_bytes(self) -> int:
        """Memory held by what is not stored yet, about."""
        return self._backlogs.bytes

    @property
    def backlog_limit(self) -> int:
        """Bytes beyond which the oldest session's part is given up."""
        return self._backlogs.limit

    @property
    def away(self) -> bool:
        """Whether the store did not answer, or took nothing, when it was last written to."""
        return self._away

    def begin(self, session_id: str, birth: Birth) -> None:
        """Has the store told of a request, and of the session where it is new, together with the first tokens: there
        was no store to tell before.
        """
        self._backlogs.begin(session_id, birth)

    def end(self, session_id: str) -> None:
        """The request that `begin` was for is over; where it put no token there will be no session."""
        self._backlogs.end(session_id)

    def put(
        self,
        session_id: str,
        position: int,
        token_ids: Sequence[int],
        fence: int | None = None,
        end: End | None = None,
    ) -> None:
        """Has tokens stored at `position`, soon. Never waits and never fails; `flush` tells how it went.

        `fence`: under this fencing number, for which it takes a RequestStore; `end` is stored with the last of them.
        """
        if not token_ids and end is None:
            return
        if self._closed:
            self._backlogs.lose(session_id, position, token_ids)
            return
        self._backlogs.put(session_id, position, token_ids, fence, end)
        self._note_work()

    async def flush(self, session_id: str, seconds: float | None = None) -> None:
        """Waits until all that was put so far for a session is stored.

        SessionStoreUnavailable after `seconds` (None: `flush_seconds`). Where the session's backlog was given up it
        returns when the store knows that. What the store refused for good is raised as the store raised it, once.
        """
        if failure := self._backlogs.failures.pop(session_id, None):
            raise failure
        if not await self._in_time(session_id, self._flush_seconds if seconds is None else seconds):
            raise not_stored()

    async def settled(self, session_id: str, seconds: float) -> bool:
        """Whether all that was put so far is stored within so many seconds; no sooner or later than the store is found
        to be away. Leaves a failure to be told by `flush`.
        """
        backlogs = self._backlogs
        if session_id in backlogs.failures or session_id in backlogs.cut:
            return False
        if self._away and session_id in backlogs.sessions:
            return False
        try:
            while seconds > _LOOK_SECONDS:
                if await self._in_time(session_id, _LOOK_SECONDS):
                    return True
                if self._away:
                    return False
                seconds -= _LOOK_SECONDS
            return await self._in_time(session_id, seconds)
        except TriremeError as error:
            if not isinstance(error, SessionStoreUnavailable) or session_id not in backlogs.sessions:
                backlogs.failures[session_id] = error
            return False

    async def emptied(self, seconds: float) -> bool:
        """Whether all that was put so far, for any session, is stored or given up within so many seconds."""
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """Stores what is left and stops. SessionStoreUnavailable where that does not succeed in `flush_seconds`."""
        self._closed = True
        try:
            if not await self.emptied(self._flush_seconds):
                raise not_stored()
        finally:
            if self._task is not None:
                self._task.cancel()
                await asyncio.wait([self._task])
            self._give_all_up(not_stored())

    async def _in_time(self, session_id: str, seconds: float) -> bool:
        """Whether all that was put so far is stored within so many seconds; too late is no failure. Raises what the
        store refused for good.
        """
        try:
            async with asyncio.timeout(seconds):
                if backlog := self._backlogs.sessions.get(session_id):
                    with suppress(SessionIncomplete):  # the store learns how much it lacks below
                        await backlog.waiter()
                if session_id in self._backlogs.cut:
                    await self._mark(session_id)
        except TimeoutError:
            return False
        return True

    # ---------------------------------------------------------------- the task

    async def _run(self) -> None:
        pause = self._first_pause
        while True:
            await self._work.wait()
            try:
                await self._next()
            except SessionStoreUnavailable:
                self._away = True
                self.counters.retries += 1
                await self._sleep(self._jitter(pause))
                pause = min(2 * pause, self._longest_pause)
            else:
                self._away = False
                pause = self._first_pause

    async def _next(self) -> None:
        """Writes what is due. SessionStoreUnavailable."""
        if self._backlogs.sessions:
            session_id, backlog = self._backlogs.oldest()
            await self._write(session_id, backlog, backlog.take())
            self._note_work()
        else:
            await self._mark(next(iter(self._backlogs.cut)))

    async def _write(self, session_id: str, backlog: Backlog, run: Run) -> None:
        """Stores a run, or gives the session up where the store refuses it for good. SessionStoreUnavailable."""
        try:
            if backlog.birth is not None:
                await self._bear(session_id, backlog.birth)
                backlog.birth = None
            if run.fence is None:
                await self._store.append(session_id, run.position, run.token_ids)
            else:
                store: Any = self._store  # one that gives out fencing numbers takes them
                await store.commit(session_id, run.fence, run.position, run.token_ids, run.end)
        except SessionStoreUnavailable:
            backlog.put_back(run)
            raise
        except SessionIncomplete as error:  # its earlier tokens were given up, and the store knows it already
            self._backlogs.cut_off(session_id, backlog)
            self._backlogs.give_up(session_id, error, backlog)
        except TriremeError as error:
            self._backlogs.give_up(session_id, error, backlog)
            if isinstance(error, LeaseLost):
                self.on_lease_lost(session_id)
        else:
            self._backlogs.stored(session_id, backlog, run)

    async def _bear(self, session_id: str, birth: Birth) -> None:
        """Tells the store what it could not be told when it began; once more where its answer was lost. LeaseLost."""
        store: Any = self._store
        if birth.session is not None:
            await self._store.ensure(birth.session)
        try:
            await store.begin(session_id, birth.owner, birth.start)
        except SessionBusy:
            if not began(await store.load(session_id), birth):
                raise LeaseLost("Another coordinator has taken over the session.") from None

    async def _mark(self, session_id: str) -> None:
        """Tells the store what a session lacks. SessionStoreUnavailable."""
        end = self._backlogs.cut[session_id]
        try:
            await self._store.mark_incomplete(session_id, end)
        except SessionStoreUnavailable:
            raise
        except TriremeError:  # there is no such session (any more): whoever asks for it is told so
            self._backlogs.cut.pop(session_id, None)
        else:
            self._backlogs.marked(session_id, end)
        self._note_work()

    def _note_work(self) -> None:
        """Brings the events, and the task, in line with whether there is something to write."""
        if self._backlogs.empty:
            self._work.clear()
            self._idle.set()
            return
        self._idle.clear()
        self._work.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="session-writer")
            self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A fault of ours ended the task: nobody is left waiting, and the next `put` starts it again."""
        if task.cancelled():
            return
        self._task = None
        _log.error("The session writer failed: %s", type(task.exception()).__name__)
        self._give_all_up(Internal("The session could not be stored."))

    def _give_all_up(self, error: TriremeError) -> None:
        self._backlogs.give_all_up(error)
        self._note_work()
