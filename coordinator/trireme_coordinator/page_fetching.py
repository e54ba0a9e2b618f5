"""Gets KV pages from the page store to the stages for sequences that wait for them, where that is quicker than
computing them again.

All stages must hold a page before a frame can restore it, so the fewest pages that any of them has count. Every
question has an end in time; whatever goes wrong, the sequence goes on and computes what is missing.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from collections.abc import Sequence as Items
from itertools import count
from types import TracebackType
from typing import Protocol, Self

from trireme_coordinator.scheduler import Restored, Scheduler, Wanted
from trireme_coordinator.scheduler.prefix import PAGE_TOKENS
from trireme_proto.errors import PipelineUnavailable
from trireme_proto.limits import LIMITS
from trireme_proto.v1 import stage_pb2 as pb

log = logging.getLogger(__name__)

_FIND_SECONDS = 0.25
_TRY_SECONDS = 2.0
"""For a fetch as long as nobody knows what computing costs."""

Choose = Callable[[Items[pb.FindPagesResponse], int, float], float]
"""From what the stages found, the pages that all of them have, and the nanoseconds that computing a token takes (0: not
known): the seconds that fetching them may take; 0: compute them.
"""


class Stages(Protocol):
    """What a Pipeline is to this file."""

    async def find_pages(self, keys: Items[bytes], seconds: float) -> list[pb.FindPagesResponse]: ...
    async def fetch_pages(
        self, fetch: int, first_page: int, keys: Items[bytes], seconds: float
    ) -> list[pb.FetchPagesResponse]: ...


def quicker(found: Items[pb.FindPagesResponse], pages: int, token_ns: float) -> float:
    """Fetch where the stages read faster than they compute, as measured; and where it is not known how fast they read:
    then it is found out, in the time that computing would take.
    """
    computing = pages * PAGE_TOKENS * token_ns / 1e9
    if not computing:
        return _TRY_SECONDS
    reading = max((pages * f.page_bytes / f.bytes_per_s for f in found if f.bytes_per_s), default=0.0)
    return min(computing, LIMITS.fetch_seconds) if reading < computing else 0.0


class PageFetching:
    """Context manager: fetches for one epoch's pipeline. Leaving it ends what is under way."""

    def __init__(self, scheduler: Scheduler, stages: Stages, tell: Callable[[], None], choose: Choose) -> None:
        """`tell` is called whenever a sequence goes on."""
        self._scheduler, self._stages, self._tell, self._choose = scheduler, stages, tell, choose
        self._numbers = count(1 + secrets.randbits(48))  # another coordinator's fetches have other numbers
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def begin(self) -> None:
        """Sets out for what has come to be wanted."""
        for wanted in self._scheduler.wanted():
            task = asyncio.ensure_future(self._get(wanted))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _get(self, wanted: Wanted) -> None:
        started, fetch, pages, found, size, reading_s = time.perf_counter(), 0, 0, 0, 0, 0.0
        try:
            answers = await self._stages.find_pages(wanted.keys, _FIND_SECONDS)
            found = min(answer.pages for answer in answers)
            seconds = self._choose(answers, found, self._scheduler.cost.slowest_prefill_ns) if found else 0.0
            if seconds and wanted.current:
                fetch, asked = next(self._numbers), time.perf_counter()
                held = await self._stages.fetch_pages(fetch, wanted.first_page, wanted.keys[:found], seconds)
                pages, size = min(answer.pages for answer in held), sum(answer.bytes for answer in held)
                reading_s = time.perf_counter() - asked
        except PipelineUnavailable as error:
            log.warning("KV pages are computed again: %s", error.message)
        finally:
            outcome = Restored(found, pages, size, time.perf_counter() - started, reading_s)
            self._scheduler.fetched(wanted, fetch, pages, outcome)
            self._tell()
