"""Write-behind: tokens go to the session store in the background, never on a token's path.

One task writes session after session, each with everything it has put so far, in order. While the store is away it
tries again with growing pauses. The backlog is bounded in bytes: beyond it the oldest session's part is given up. What
was stored of that session is a prefix of it, and as soon as the store answers it is told how many tokens are missing,
so that nobody takes the prefix for the whole. Logs say how many tokens, never which, and name no session.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from trireme_coordinator.store.backlog import TOKEN_BYTES, Backlog, Run
from trireme_coordinator.store.health import Jitter, full_jitter
from trireme_coordinator.store.records import SessionStore
from trireme_coordinator.store.requests import Birth, End
from trireme_proto.errors import (
    Internal,
    LeaseLost,
    SessionBusy,
    SessionIncomplete,
    SessionStoreUnavailable,
    TriremeError,
)

_log = logging.getLogger(__name__)

_SESSION_BYTES = 512
"""What a session in the backlog costs beside its tokens, about."""
_FAILURES = 4096
"""Most sessions of which a failure is remembered until somebody flushes, or a loss until the store knows it."""
_LOOK_SECONDS = 0.25
"""Between two looks at whether the store is away, while somebody waits for it."""


@dataclass(slots=True)
class WriterCounters:
    """What happened since the start; only ever rises."""

    stored_tokens: int = 0
    retries: int = 0
    """Times that the store did not answer."""
    lost_sessions: int = 0
    """Sessions whose backlog was given up: it did not fit any more, or the store refused it for good."""
    lost_tokens: int = 0
    """Tokens that were put and will not be stored."""
    marked_sessions: int = 0
    """Times that the store was told that a session is incomplete."""


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
        self.counters = WriterCounters()
        self.on_lease_lost: Callable[[str], None] = lambda _: None
        """Told of a session that somebody else has taken over."""
        self._store = store
        self._limit = backlog_bytes
        self._flush_seconds = flush_seconds
        self._first_pause, self._longest_pause = first_pause, longest_pause
        self._sleep, self._jitter = sleep, jitter
        self._backlogs: dict[str, Backlog] = {}  # in order of age
        self._failures: dict[str, TriremeError] = {}
        self._unborn: dict[str, Birth] = {}  # their first token is still to come
        self._cut: dict[str, int] = {}  # sessions that were given up, and how many tokens each should have
        self._bytes = 0
        self._away = False
        self._work = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def backlog_bytes(self) -> int:
        """Memory held by what is not stored yet, about."""
        return self._bytes

    @property
    def away(self) -> bool:
        """Whether the store did not answer, or took nothing, when it was last written to."""
        return self._away

    def begin(self, session_id: str, birth: Birth) -> None:
        """Has the store told of a request, and of the session where it is new, together with the first tokens: there
        was no store to tell before.
        """
        self._unborn[session_id] = birth

    def end(self, session_id: str) -> None:
        """The request that `begin` was for is over; where it put no token there will be no session."""
        self._unborn.pop(session_id, None)

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
        if self._closed or session_id in self._failures or session_id in self._cut:
            self.counters.lost_tokens += len(token_ids)
            if session_id in self._cut:
                self._cut[session_id] = max(self._cut[session_id], position + len(token_ids))
            return
        if session_id not in self._backlogs:
            self._backlogs[session_id] = Backlog(self._unborn.pop(session_id, None))
            self._bytes += _SESSION_BYTES
        self._backlogs[session_id].add(position, token_ids, fence, end)
        self._bytes += len(token_ids) * TOKEN_BYTES
        self._make_room()
        self._note_work()

    async def flush(self, session_id: str, seconds: float | None = None) -> None:
        """Waits until all that was put so far for a session is stored.

        SessionStoreUnavailable after `seconds` (None: `flush_seconds`). Where the session's backlog was given up it
        returns when the store knows that. What the store refused for good is raised as the store raised it, once.
        """
        if failure := self._failures.pop(session_id, None):
            raise failure
        if not await self._in_time(session_id, self._flush_seconds if seconds is None else seconds):
            raise _not_stored()

    async def settled(self, session_id: str, seconds: float) -> bool:
        """Whether all that was put so far is stored within so many seconds; no sooner or later than the store is found
        to be away. Leaves a failure to be told by `flush`.
        """
        if session_id in self._failures or session_id in self._cut:
            return False
        if self._away and session_id in self._backlogs:
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
            if not isinstance(error, SessionStoreUnavailable) or session_id not in self._backlogs:
                self._failures[session_id] = error
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
            async with asyncio.timeout(self._flush_seconds):
                await self._idle.wait()
        except TimeoutError:
            raise _not_stored() from None
        finally:
            if self._task is not None:
                self._task.cancel()
                await asyncio.wait([self._task])
            self._cut.clear()
            for session_id in list(self._backlogs):
                self._give_up(session_id, _not_stored())

    async def _in_time(self, session_id: str, seconds: float) -> bool:
        """Whether all that was put so far is stored within so many seconds; too late is no failure. Raises what the
        store refused for good.
        """
        try:
            async with asyncio.timeout(seconds):
                if session_id in self._backlogs:
                    with suppress(SessionIncomplete):  # the store learns how much it lacks below
                        await self._backlogs[session_id].waiter()
                if session_id in self._cut:
                    await self._mark(session_id)
        except TimeoutError:
            return False
        return True

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
        if self._backlogs:
            session_id, backlog = next(iter(self._backlogs.items()))
            await self._write(session_id, backlog, backlog.take())
        else:
            await self._mark(next(iter(self._cut)))

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
            self._cut_off(session_id, backlog)
            self._give_up(session_id, error, backlog)
        except TriremeError as error:
            self._give_up(session_id, error, backlog)
            if isinstance(error, LeaseLost):
                self.on_lease_lost(session_id)
        else:
            self._stored(session_id, backlog, run)

    async def _bear(self, session_id: str, birth: Birth) -> None:
        """Tells the store what it could not be told when it began; once more where its answer was lost. LeaseLost."""
        store: Any = self._store
        if birth.session is not None:
            await self._store.ensure(birth.session)
        try:
            await store.begin(session_id, birth.owner, birth.start)
        except SessionBusy:
            loaded = await store.load(session_id)
            if (loaded.owner, loaded.fence) != (birth.owner, birth.start.seen + 1):
                raise LeaseLost("Another coordinator has taken over the session.") from None

    async def _mark(self, session_id: str) -> None:
        """Tells the store what a session lacks. SessionStoreUnavailable."""
        end = self._cut[session_id]
        try:
            await self._store.mark_incomplete(session_id, end)
        except SessionStoreUnavailable:
            raise
        except TriremeError:  # there is no such session (any more): whoever asks for it is told so
            self._cut.pop(session_id, None)
        else:
            self.counters.marked_sessions += 1
            if self._cut.get(session_id) == end:
                del self._cut[session_id]
        self._note_work()

    def _stored(self, session_id: str, backlog: Backlog, run: Run) -> None:
        self.counters.stored_tokens += len(run.token_ids)
        backlog.wrote(run)
        if self._backlogs.get(session_id) is not backlog:
            return  # given up while it was being written
        self._bytes -= len(run.token_ids) * TOKEN_BYTES
        del self._backlogs[session_id]
        if backlog.pending:
            self._backlogs[session_id] = backlog  # behind the others
        else:
            self._bytes -= _SESSION_BYTES
        self._note_work()

    def _make_room(self) -> None:
        while self._bytes > self._limit:
            session_id, backlog = next(iter(self._backlogs.items()))
            self._cut_off(session_id, backlog)
            self._give_up(session_id, _not_stored())

    def _cut_off(self, session_id: str, backlog: Backlog) -> None:
        """The session will lack the rest of what was put, and the store is to know it."""
        self._cut[session_id] = max(self._cut.get(session_id, 0), backlog.end)
        if len(self._cut) > _FAILURES:
            del self._cut[next(iter(self._cut))]

    def _give_up(self, session_id: str, error: TriremeError, only: Backlog | None = None) -> None:
        """Drops a session's backlog (only that one, where given) and keeps the error for whoever flushes next."""
        backlog = self._backlogs.get(session_id)
        if backlog is None or (only is not None and backlog is not only):
            return
        del self._backlogs[session_id]
        self._bytes -= _SESSION_BYTES + backlog.waiting * TOKEN_BYTES
        self.counters.lost_sessions += 1
        self.counters.lost_tokens += backlog.waiting
        _log.warning("%d tokens of a session were not stored: %s", backlog.waiting, error.reason)
        if not backlog.fail(error) and session_id not in self._cut:
            self._failures[session_id] = error
            if len(self._failures) > _FAILURES:
                del self._failures[next(iter(self._failures))]
        self._note_work()

    def _note_work(self) -> None:
        """Brings the events, and the task, in line with whether there is something to write."""
        if not self._backlogs and not self._cut:
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
        self._cut.clear()
        for session_id in list(self._backlogs):
            self._give_up(session_id, Internal("The session could not be stored."))


def _not_stored() -> SessionStoreUnavailable:
    return SessionStoreUnavailable(
        "The session store does not answer; part of the session is not stored.", retry_after=1.0
    )
