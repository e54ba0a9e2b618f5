"""The last traces, in memory and bounded in bytes: the oldest go first. May be filled from another thread."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from itertools import islice

from trireme_proto.v1 import traces_pb2 as pb

_ENTRY_BYTES = 1024
"""Of an entry, beside its spans."""


@dataclass(frozen=True, slots=True)
class _Entry:
    summary: pb.TraceSummary
    spans: bytes
    """A serialised RequestSpans: a fifth of what its objects take."""

    @property
    def size(self) -> int:
        return _ENTRY_BYTES + len(self.spans)


class Ring:
    """Holds up to `limit` bytes; 0: nothing."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.bytes = 0
        self._entries: deque[_Entry] = deque()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, spans: pb.RequestSpans) -> None:
        """Keeps a request. One that is larger than all the room is not kept."""
        entry = _Entry(spans.summary, spans.SerializeToString())
        if entry.size > self.limit:
            return
        with self._lock:
            self._entries.append(entry)
            self.bytes += entry.size
            while self.bytes > self.limit:
                self.bytes -= self._entries.popleft().size

    def recent(self, most: int) -> list[pb.TraceSummary]:
        """The last ones, the most recent first."""
        with self._lock:
            return [entry.summary for entry in islice(reversed(self._entries), most)]

    def find(self, name: str) -> list[pb.RequestSpans]:
        """The requests of a trace, or of one request id, in the order of their starts."""
        with self._lock:
            found = [e.spans for e in self._entries if name in {e.summary.trace_id, e.summary.request_id}]
        return sorted(map(pb.RequestSpans.FromString, found), key=lambda each: each.summary.start_ns)
