"""Keeps this coordinator's name at the sessions that it generates on: all of them renewed in one batch, each second.

A session that turns out to be somebody else's is told of. While the store does not answer nothing is: whether a lease
has passed to another is seen when it answers again.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable

from trireme_coordinator.store.requests import LEASE_SECONDS, RequestStore
from trireme_proto.errors import TriremeError

_log = logging.getLogger(__name__)
_RENEW_SECONDS = LEASE_SECONDS / 3
_BATCH = 512
"""Most sessions in one exchange with the store."""


class Owner:
    """The sessions that one coordinator generates on. Belongs to one event loop."""

    def __init__(
        self,
        store: RequestStore,
        name: str = "",
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`name`: another one for each process; "": made here."""
        self.name = name or secrets.token_hex(8)
        self._store, self._sleep = store, sleep
        self._lost: dict[str, Callable[[], None]] = {}
        self._task: asyncio.Task[None] | None = None

    def keep(self, session_id: str, lost: Callable[[], None]) -> None:
        """Renews the session's lease from now on; `lost` is called, once, where it is another's."""
        self._lost[session_id] = lost
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="session-owner")

    def leave(self, session_id: str) -> None:
        """Renews it no longer."""
        self._lost.pop(session_id, None)

    async def close(self) -> None:
        """Stops renewing."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def renew(self) -> None:
        """Renews all of them once."""
        kept = list(self._lost)
        for start in range(0, len(kept), _BATCH):
            try:
                lost = await self._store.renew(self.name, kept[start : start + _BATCH])
            except TriremeError as error:
                _log.warning("the leases of sessions could not be renewed: %s", error.reason)
                return
            for session_id in lost:
                if (tell := self._lost.pop(session_id, None)) is not None:
                    tell()

    async def _run(self) -> None:
        while True:
            await self._sleep(_RENEW_SECONDS)
            await self.renew()
