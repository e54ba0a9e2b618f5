"""Callers that keep asking: each runs chain after chain through the public client library and writes down what it gets.

Some calls are cancelled, some have a deadline that is likely to pass; which ones depends on the seed alone. A client
never looks at whether an answer is right.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import Iterator, Sequence

from tests.fault.history import CallBegan, CallEnded, Cancelled, History, Tokens
from tests.fault.requests import Chain, Turn

from trireme import AsyncClient
from trireme.errors import TriremeError

DEADLINE = 40.0
"""Seconds, of an ordinary call: more than any recovery takes."""
_PAUSE = 0.1
"""Seconds after a failed call: nobody should call in a tight loop."""
_CANCELS, _HURRIES, _KEEPS = 0.08, 0.08, 0.1


class Caller:
    """One client. `numbers` gives each call of the run its own."""

    def __init__(
        self, number: int, target: str, chains: Sequence[Chain], seed: int, history: History, numbers: Iterator[int]
    ) -> None:
        self.number, self._chains, self._history, self._numbers = number, chains, history, numbers
        self._draw = random.Random(f"client/{seed}/{number}")
        self._client = AsyncClient(target, timeout=DEADLINE)
        self._leaving = asyncio.Event()

    def leave(self) -> None:
        """The call that is under way is the last one."""
        self._leaving.set()

    async def run(self) -> None:
        """Until told to leave."""
        async with self._client:
            while not self._leaving.is_set():
                await self.ask(self._draw.choice(self._chains))

    async def once(self, chains: Sequence[Chain]) -> None:
        """Each of these, calmly."""
        async with self._client:
            for chain in chains:
                await self.ask(chain, calm=True)

    async def ask(self, chain: Chain, *, calm: bool = False) -> None:
        """The turns of a chain, as long as they succeed."""
        session: str | None = None
        for turn in chain:
            session, whole = await self._call(turn, session, calm=calm)
            if not whole:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._leaving.wait(), _PAUSE)
            if not whole or self._leaving.is_set():
                break
        if session and (calm or self._draw.random() >= _KEEPS):
            with contextlib.suppress(TriremeError):  # whoever cannot now leaves it to the end of the run
                await self._client.sessions.delete(session, timeout=2)

    async def _call(self, turn: Turn, session: str | None, *, calm: bool) -> tuple[str | None, bool]:
        """One request; the session it was on, and whether it ended OK."""
        mood = 1.0 if calm else self._draw.random()
        until = self._draw.randrange(turn.tokens) if mood < _CANCELS else None
        seconds = self._draw.uniform(0.1, 1.5) if _CANCELS <= mood < _CANCELS + _HURRIES else DEADLINE
        call = next(self._numbers)
        self._history.add(CallBegan(self._history.now(), call, self.number, turn.name, round(seconds, 3)))
        status, message = "OK", ""
        try:
            session = await self._listen(call, turn, session, seconds, until)
        except TriremeError as error:
            status, message = error.reason, error.message
        except Exception as error:  # noqa: BLE001  whatever else a user would get to see is what we look for
            status, message = "UNTYPED", repr(error)
        self._history.add(CallEnded(self._history.now(), call, status, message))
        return session, status == "OK"

    async def _listen(self, call: int, turn: Turn, session: str | None, seconds: float, until: int | None) -> str:
        """Writes down all tokens; cancels after `until` of them, which raises Cancelled."""
        async with self._client.generate(
            list(turn.prompt), max_tokens=turn.tokens, session=session, ignore_eos=True, timeout=seconds, **turn.how
        ) as stream:
            got = 0
            async for chunk in stream:
                if chunk.token_ids:
                    self._history.add(Tokens(self._history.now(), call, chunk.index, chunk.token_ids))
                got += len(chunk.token_ids)
                if until is not None and got > until:
                    self._history.add(Cancelled(self._history.now(), call))
                    stream.cancel()
            return (await stream.result()).session_id


async def sweep(target: str) -> None:
    """Deletes every session, as a tidy caller would. Typed errors where that cannot be."""
    async with AsyncClient(target, timeout=30) as client:
        ids = [session.session_id async for session in client.sessions.list(page_size=1000)]
        for session_id in ids:
            with contextlib.suppress(TriremeError):
                await client.sessions.delete(session_id)


def numbers() -> Iterator[int]:
    """1, 2, 3, ..."""
    return itertools.count(1)
