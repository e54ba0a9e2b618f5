"""The audit log: one JSON line for each call that wants a scope: who, which method, what came of it. Never a prompt, an
answer, a key, a token or a session's id (who knows one may use the session).

    {"time": "2026-01-31T12:00:00.000000+00:00", "method": "trireme.v1.Inference/Generate", "tenant": "acme",
     "subject": "key:0123456789ab", "peer": "ipv4:10.0.0.7:52100", "result": "OK", "reason": "", "seconds": 1.25,
     "tokens": 83, "trace_id": "..."}

Written by a thread of its own, so that a slow disk costs no token. What does not fit the queue is counted, and that
count is a line of its own. A file that was moved away (logrotate) is made anew.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import sys
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

from trireme_coordinator.store.records import Clock, utc_now
from trireme_proto.errors import ConfigurationError
from trireme_proto.limits import LIMITS

_log = logging.getLogger(__name__)
STDOUT = "-"


@dataclass(frozen=True, slots=True)
class Event:
    """One call that has ended."""

    method: str
    tenant: str
    subject: str
    peer: str
    result: str
    """Name of the gRPC status."""
    reason: str
    """Of the typed error, such as QUOTA_EXCEEDED; "" where there was none."""
    seconds: float
    tokens: int
    trace_id: str


class AuditLog:
    """Appends events to a file (made with mode 0600), or to standard output."""

    def __init__(self, target: str, *, clock: Clock = utc_now, lines: int = LIMITS.audit_lines) -> None:
        """`target`: a path, or "-". ConfigurationError where it cannot be written to."""
        self._target, self._clock = target, clock
        self._lines: queue.Queue[str | None] = queue.Queue(lines)
        self._lost, self._losing = 0, threading.Lock()
        self._file = self._open()
        self._thread = threading.Thread(target=self._run, name="audit-log", daemon=True)
        self._thread.start()

    def add(self, event: Event) -> None:
        """Queues an event; never waits."""
        line = json.dumps({"time": self._clock().isoformat(timespec="microseconds"), **asdict(event)})
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            with self._losing:
                self._lost += 1

    def close(self) -> None:
        """Writes what is queued, and ends."""
        self._lines.put(None)
        self._thread.join()
        if self._target != STDOUT:
            self._file.close()

    def _run(self) -> None:
        while (line := self._lines.get()) is not None:
            self._write(line)
            if self._lines.empty():
                self._tell_lost()
        self._tell_lost()

    def _tell_lost(self) -> None:
        with self._losing:
            lost, self._lost = self._lost, 0
        if lost:
            self._write(json.dumps({"time": self._clock().isoformat(timespec="microseconds"), "lost_lines": lost}))

    def _write(self, line: str) -> None:
        try:
            self._follow()
            self._file.write(line + "\n")
            self._file.flush()
        except (OSError, ConfigurationError) as error:
            _log.error("a line of the audit log could not be written: %s", type(error).__name__)

    def _follow(self) -> None:
        if self._target == STDOUT:
            return
        try:
            same = os.path.samestat(os.fstat(self._file.fileno()), Path(self._target).stat())
        except FileNotFoundError:
            same = False
        if not same:
            fresh = self._open()
            self._file.close()
            self._file = fresh

    def _open(self) -> TextIO:
        if self._target == STDOUT:
            return sys.stdout
        try:
            descriptor = os.open(Path(self._target), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigurationError(f"The audit log cannot be written to ({error.strerror}).") from error
        return os.fdopen(descriptor, "a", encoding="utf-8")
