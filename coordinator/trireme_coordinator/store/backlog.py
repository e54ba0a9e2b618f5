"""What one session still has to have stored: runs of tokens in order, and who waits for them. Pure; knows no store.

Counts tokens: `put` so far and `stored` so far. A waiter waits for what was put when it came: so many tokens, and the
ends of so many requests.
"""

from __future__ import annotations

import asyncio
from array import array
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from trireme_coordinator.store.requests import Birth, End
from trireme_proto.errors import TriremeError

TOKEN_BYTES = 4


@dataclass(slots=True)
class Run:
    """Tokens at consecutive positions: the first at `position`."""

    position: int
    token_ids: array[int]
    fence: int | None = None
    """Fencing number of the request that they belong to; None: of none."""
    end: End | None = None
    """Comes with the last of them."""


@dataclass(slots=True)
class Backlog:
    """Runs of one session that are not stored yet, the oldest first."""

    birth: Birth | None = None
    """What the store has to know before, where it does not yet."""
    end: int = 0
    """Position after the last token that was put."""
    put: int = 0
    stored: int = 0
    ends_put: int = 0
    ends_stored: int = 0
    runs: deque[Run] = field(default_factory=deque)
    waiters: list[tuple[tuple[int, int], asyncio.Future[None]]] = field(default_factory=list)

    @property
    def waiting(self) -> int:
        """Tokens that are not stored yet, the run being written included."""
        return self.put - self.stored

    @property
    def pending(self) -> bool:
        """Whether anything is not stored yet."""
        return (self.put, self.ends_put) != (self.stored, self.ends_stored)

    def add(self, position: int, token_ids: Sequence[int], fence: int | None = None, end: End | None = None) -> None:
        """Adds tokens, to the last run where they continue it."""
        last = self.runs[-1] if self.runs else None
        if last is None or last.end or last.fence != fence or last.position + len(last.token_ids) != position:
            self.runs.append(last := Run(position, array("I"), fence))
        last.token_ids.extend(token_ids)
        last.end = end
        self.put += len(token_ids)
        self.end = max(self.end, position + len(token_ids))
        self.ends_put += end is not None

    def take(self) -> Run:
        """Takes the oldest run out, to be written."""
        return self.runs.popleft()

    def put_back(self, run: Run) -> None:
        """Puts a run that could not be written back in front."""
        self.runs.appendleft(run)

    def wrote(self, run: Run) -> None:
        """Notes that a run is stored and wakes those who waited for it."""
        self.stored += len(run.token_ids)
        self.ends_stored += run.end is not None
        for (tokens, ends), waiter in self.waiters:
            if tokens <= self.stored and ends <= self.ends_stored and not waiter.done():
                waiter.set_result(None)
        self.waiters = [(target, waiter) for target, waiter in self.waiters if not waiter.done()]

    def fail(self, error: TriremeError) -> bool:
        """Tells all waiters of an error; whether there was one to tell."""
        told = [waiter for _, waiter in self.waiters if not waiter.done()]
        for waiter in told:
            waiter.set_exception(error)
        self.waiters.clear()
        return bool(told)

    def waiter(self) -> asyncio.Future[None]:
        """A future that is done when all that was put so far is stored."""
        waiter = asyncio.get_running_loop().create_future()
        self.waiters.append(((self.put, self.ends_put), waiter))
        return waiter
