"""Which coordinator drives the stages: who waits, who leads, until when, and which epochs a leader may use.

A term is the time for which one coordinator holds the lease, and it has a token. A token owns a range of epochs:

    epochs   |---- token 6 ----|---- token 7 ----|---- token 8 ----|     2**20 each

Stages refuse an epoch below the one they have, so the first epoch of a new term shuts out the leader before. A leader
that meets an epoch above its own range has been deposed and must not go higher. That is what makes it safe to go on
while Redis does not answer: nobody can take the lease from a Redis that is down; and where only we are cut off from it,
the successor's first frame ends ours. Knows no gRPC, no Ray and no Redis commands.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol

from trireme_proto.errors import NotLeading, SessionStoreUnavailable

log = logging.getLogger(__name__)
EPOCHS_A_TERM = 1 << 20
_RENEWALS = 4
"""Times that a lease is renewed while it lasts."""
_POLLS = 8
"""Times that a free lease is looked for while one lasts."""
Sleep = Callable[[float], Awaitable[None]]


class Lease(Protocol):
    """As `store.lease.RedisLease`, whose methods say what they do. All raise SessionStoreUnavailable."""

    owner: str
    ttl_seconds: float

    async def take(self, above: int = 0) -> int: ...
    async def keep(self, token: int) -> bool: ...
    async def rise(self, token: int, above: int) -> int: ...
    async def release(self, token: int) -> None: ...
    async def holder(self) -> str: ...
    async def stand_by(self) -> None: ...
    async def somebody_stands_by(self) -> bool: ...


class Leadership(Protocol):
    """Whether this coordinator leads."""

    lost: asyncio.Event
    """Set when the term is over."""

    @property
    def leading(self) -> bool: ...
    async def attempt(self) -> bool:
        """Tries once to lead."""

    async def win(self) -> None:
        """Waits until this coordinator leads."""

    async def next_epoch(self, seen: int) -> int:
        """An epoch above `seen`, the highest that the stages know. NotLeading where that is a successor's."""

    async def successor(self) -> bool:
        """Whether somebody would take over at once."""

    async def confirmed(self) -> bool:
        """Whether this coordinator leads still, as far as can be told now. It may have been frozen for a while."""

    async def alone(self) -> bool:
        """Whether it is certain that the stages are nobody else's, now or next."""

    async def resign(self) -> None:
        """Ends the term, so that the next one can begin."""

    async def leader(self) -> str:
        """Who leads, in a word; empty where nobody does or nobody knows."""


class SoleLeadership:
    """The one coordinator of stages that no other can reach."""

    def __init__(self) -> None:
        self.lost = asyncio.Event()
        self.leading = True

    async def attempt(self) -> bool:
        return True

    async def win(self) -> None:
        """At once."""

    async def next_epoch(self, seen: int) -> int:
        return seen + 1

    async def successor(self) -> bool:
        return False

    async def confirmed(self) -> bool:
        return True

    async def alone(self) -> bool:
        return True

    async def resign(self) -> None:
        """Nobody waits for it."""

    async def leader(self) -> str:
        return ""


class LeasedLeadership:
    """Leads while it holds the lease; stands by else. Belongs to one event loop."""

    def __init__(self, lease: Lease, sleep: Sleep = asyncio.sleep) -> None:
        self.lost = asyncio.Event()
        self._lease, self._sleep = lease, sleep
        self._token = 0
        self._writing = asyncio.Lock()  # a renewal must not meet a token that is being exchanged
        self._renewing: asyncio.Task[None] | None = None

    @property
    def leading(self) -> bool:
        """Whether the lease is ours, as far as we know."""
        return self._token > 0

    async def attempt(self) -> bool:
        """Tries once to take the lease. SessionStoreUnavailable."""
        token = await self._lease.take()
        if token:
            self._begin(token)
        return self.leading

    async def win(self) -> None:
        """Stands by until the lease is ours.

        A Redis that has just come back may have forgotten a lease whose owner drives the stages still. It is left the
        time to write it anew.
        """
        answered = _POLLS
        while not self.leading:
            try:
                await self._lease.stand_by()
                if answered < _POLLS:
                    answered += 1
                elif await self.attempt():
                    return
            except SessionStoreUnavailable:
                answered = 0
            await self._sleep(self._lease.ttl_seconds / _POLLS)

    async def next_epoch(self, seen: int) -> int:
        """See Leadership. Where Redis forgot how high tokens were, ours is raised above what the stages have seen."""
        if not self._token:
            raise _deposed()
        if seen + 1 >= (self._token + 1) * EPOCHS_A_TERM:
            await self._rise(seen // EPOCHS_A_TERM)
        return max(seen + 1, self._token * EPOCHS_A_TERM)

    async def successor(self) -> bool:
        """Whether another coordinator has said of late that it stands by."""
        with suppress(SessionStoreUnavailable):
            return await self._lease.somebody_stands_by()
        return False

    async def confirmed(self) -> bool:
        """Yes where Redis does not say: nobody can have taken the lease from one that is down."""
        with suppress(SessionStoreUnavailable):
            async with self._writing:
                if self._token and not await self._lease.keep(self._token):
                    self._depose()
        return self.leading

    async def alone(self) -> bool:
        """Whether the lease is ours and nobody waits for it; no where Redis does not say."""
        with suppress(SessionStoreUnavailable):
            async with self._writing:
                held = self._token > 0 and await self._lease.keep(self._token)
            return held and not await self._lease.somebody_stands_by()
        return False

    async def resign(self) -> None:
        """Gives the lease back where it is ours; nothing more is renewed afterwards."""
        token, self._token = self._token, 0
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait([self._renewing])
            self._renewing = None
        if token:
            with suppress(SessionStoreUnavailable):  # it expires
                await self._lease.release(token)

    async def leader(self) -> str:
        """The owner of the lease, without the part that tells its processes apart."""
        with suppress(SessionStoreUnavailable):
            return (await self._lease.holder()).partition("/")[0]
        return ""

    def _begin(self, token: int) -> None:
        self._token = token
        self.lost.clear()
        self._renewing = asyncio.get_running_loop().create_task(self._renew(), name="lease")

    async def _renew(self) -> None:
        """Keeps the lease for as long as it can be had."""
        while self._token:
            await self._sleep(self._lease.ttl_seconds / _RENEWALS)
            try:
                async with self._writing:
                    if not await self._lease.keep(self._token):
                        self._depose()
            except SessionStoreUnavailable:
                log.warning("the lease cannot be renewed, Redis does not answer: going on while the stages obey")

    async def _rise(self, above: int) -> None:
        """NotLeading where the lease is not ours, or where nobody can tell."""
        with suppress(SessionStoreUnavailable):
            async with self._writing:
                if risen := await self._lease.rise(self._token, above):
                    self._token = risen
                    return
        self._depose()
        raise _deposed()

    def _depose(self) -> None:
        log.warning("another coordinator leads now")
        self._token = 0
        self.lost.set()


def _deposed() -> NotLeading:
    return NotLeading("Another coordinator leads.")
