"""The calls about KV pages in the page store: which ones it has, and reading them into memory ahead of their frame.

Owns the checks of these calls. Never waits for the compute thread: the store has threads of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial

from trireme_proto.errors import FrameRefused
from trireme_proto.limits import LIMITS
from trireme_proto.v1 import stage_pb2 as pb
from trireme_worker.epoch import Epoch
from trireme_worker.frames import read_keys
from trireme_worker.page_store import PageStore


class PageCalls:
    """Answers for a store, or for none: then there are no pages."""

    def __init__(self, store: PageStore | None, current: Callable[[], Epoch]) -> None:
        """`current`: the epoch that is now."""
        self._store, self._current = store, current

    async def find(self, request: pb.FindPagesRequest) -> pb.FindPagesResponse:
        """How many of the pages the store has. FrameRefused for another epoch, and for keys that are none."""
        store, keys = self._store, self._keys(request)
        if store is None:
            return pb.FindPagesResponse()
        pages = await asyncio.get_running_loop().run_in_executor(store.reader.threads, store.reader.find, keys)
        return pb.FindPagesResponse(pages=pages, page_bytes=store.page_bytes, bytes_per_s=store.reader.bytes_per_s())

    async def fetch(self, request: pb.FetchPagesRequest) -> pb.FetchPagesResponse:
        """Reads pages into memory. FrameRefused as `find`, and for a number that is in use."""
        store, keys = self._store, self._keys(request)
        if store is None:
            return pb.FetchPagesResponse()
        seconds = min(request.seconds, LIMITS.fetch_seconds)
        work = partial(store.reader.fetch, request.fetch, request.first_page, keys, seconds)
        pages, seconds = await asyncio.get_running_loop().run_in_executor(store.reader.threads, work)
        if self._is_over(request.epoch):
            store.reader.forget(request.fetch)  # it began before the epoch ended, which has freed only what was there
            pages = 0
        return pb.FetchPagesResponse(pages=pages, bytes=pages * store.page_bytes, seconds=seconds)

    def counters(self) -> pb.PageCounters:
        """What the store has done so far, and what waits in memory."""
        store = self._store
        if store is None:
            return pb.PageCounters()
        waiting = {"waiting_bytes": store.writer.waiting_bytes, "fetched_bytes": store.reader.fetched_bytes}
        return pb.PageCounters(**asdict(store.counters), **waiting)

    def _keys(self, request: pb.FindPagesRequest | pb.FetchPagesRequest) -> Sequence[bytes]:
        if self._is_over(request.epoch):
            raise FrameRefused(f"epoch is {request.epoch}, expected {self._current().number}")
        return read_keys(request.keys)

    def _is_over(self, epoch: int) -> bool:
        return epoch != self._current().number or self._current().ended.is_set()
