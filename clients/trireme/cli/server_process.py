"""A server of this installation as a child process: started, watched until it is ready, stopped for certain.

Its output goes to an unnamed file instead of a pipe: a file never fills up and nobody has to drain it.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from time import monotonic
from types import TracebackType
from typing import IO, Self

from trireme_proto.errors import StartupError

_READY = re.compile(r"^Trireme is ready on (\S+:\d+)")
_POLL_S = 0.1
_LAST_LINES = 8
_LINE = 200
"""Characters shown of a line."""


class ServerProcess:
    """Runs a command for as long as its `with` block lasts.

    command: must print a line `Trireme is ready on HOST:PORT ...` when it answers, and end on SIGTERM.
    stop_s: seconds it may take to end before it is killed. environment: variables besides this process's own.
    """

    def __init__(
        self, command: Sequence[str], *, stop_s: float = 20.0, environment: Mapping[str, str] | None = None
    ) -> None:
        self._command = command
        self._environment = dict(environment or {})
        self._stop_s = stop_s
        self._last = deque[str](maxlen=_LAST_LINES)

    def __enter__(self) -> Self:
        self._log: IO[bytes] = tempfile.TemporaryFile()
        self._read = 0
        # A session of its own: Ctrl-C reaches this process alone, which then stops the server in good order.
        self._process = subprocess.Popen(  # noqa: S603 - the command is this program's own
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=os.environ | self._environment | {"PYTHONUNBUFFERED": "1"},
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._stop()
        finally:
            self._log.close()

    def wait_ready(self, timeout: float, progress: Callable[[str], None]) -> str:
        """HOST:PORT of the server once it is ready; its lines meanwhile go to `progress`. Raises StartupError."""
        ends = monotonic() + timeout
        while True:
            ended = self._ended_within(_POLL_S)
            for line in self._new_lines():
                ready = _READY.match(line)
                if ready:
                    return ready[1]
                progress(line)
            if ended:
                raise self._ended("before it was ready")
            if monotonic() > ends:
                raise StartupError(f"The server was not ready within {timeout:g} s{self._why()}")

    def check(self) -> None:
        """StartupError where the server has ended."""
        if self._process.poll() is not None:
            for _ in self._new_lines():
                """Into the last lines."""
            raise self._ended("by itself")

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def kill(self) -> None:
        """As a crash: no signal that could be caught. Leaving the `with` block afterwards does no harm."""
        self._process.kill()
        self._process.wait()

    def _ended(self, when: str) -> StartupError:
        return StartupError(f"The server ended {when} (exit code {self._process.returncode}){self._why()}")

    def _ended_within(self, seconds: float) -> bool:
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _new_lines(self) -> Iterator[str]:
        """Complete lines that came since the last call."""
        new = os.pread(self._log.fileno(), 1 << 20, self._read)  # the child shares the file's own position
        whole = new[: new.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.decode(errors="replace").splitlines():
            if line.strip():
                self._last.append(line[:_LINE])
                yield line[:_LINE]

    def _why(self) -> str:
        return "; its last lines:\n" + "\n".join(f"  {line}" for line in self._last) if self._last else "."

    def _stop(self) -> None:
        """SIGTERM, then SIGKILL for it and all that is left of its process group; a second Ctrl-C does not wait."""
        try:
            if self._process.poll() is None:
                self._process.terminate()
                self._ended_within(self._stop_s)
        finally:
            self._kill_group()
            self._process.wait()

    def _kill_group(self) -> None:
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return  # nothing is left, as it should be


def serve_command(stages: int, *options: str, listen: str = "127.0.0.1:0") -> list[str]:
    """`trireme serve` of this installation, by default on a free port of the loopback interface."""
    return [sys.executable, "-m", "trireme", "serve", "--stages", str(stages), "--listen", listen, *options]
