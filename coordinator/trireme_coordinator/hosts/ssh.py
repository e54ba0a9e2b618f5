"""One call to a host's agent, through the system's ssh: what works with `ssh HOST` works here, jump hosts, agents and
hardware keys included.

Program and request go through standard input: the command line has neither. Every way in which it can fail is one
sentence (StartupError).
"""

from __future__ import annotations

import asyncio
import json
import shlex
import shutil
import tarfile
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import IO, Any, cast

from trireme_coordinator.hosts.agent.program import program
from trireme_coordinator.hosts.agent.words import MARK
from trireme_coordinator.hosts.hosts_file import Host
from trireme_proto.errors import ConfigurationError, StartupError

_NO_PYTHON, _OLD_PYTHON = 71, 72
_SSH_FAILED = 255
_CONNECT_SECONDS = 15
_LINE_BYTES = 4 << 20
_NEWEST = (3, 11)
_RUN = f"""
p={{python}}
command -v "$p" >/dev/null || exit {_NO_PYTHON}
"$p" -c 'import sys; sys.exit(sys.version_info < {_NEWEST})' || exit {_OLD_PYTHON}
exec "$p" {{rest}}
"""
_UNPACK = (
    "import sys, tarfile; tarfile.open(fileobj=sys.stdin.buffer, mode='r|').extractall(sys.argv[1], filter='data')"
)
_CAUSES = (
    ("REMOTE HOST IDENTIFICATION HAS CHANGED", "its host key has changed; make sure that it is the same machine"),
    ("Host key verification failed", "its host key is not known; connect once with ssh to accept it"),
    ("Permission denied", "it refuses the key of that user"),
    ("Too many authentication failures", "it refuses the keys of that user; name one with 'key'"),
    ("Connection refused", "nothing listens on its ssh port"),
    ("Could not resolve hostname", "its name is not known"),
    ("No route to host", "there is no route to it"),
    ("timed out", "it does not answer"),
    ("not accessible", "the key file is not there"),
    ("Bad configuration option", "an ssh option is not known"),
    ("UNPROTECTED PRIVATE KEY", "others can read the key file; chmod 600 it"),
)

Tell = Callable[[str], None]


async def call(host: Host, request: dict[str, Any], tell: Tell) -> dict[str, Any]:
    """The agent's result. `tell` gets what it says while it works. StartupError."""
    command = _RUN.format(python=_quoted_path(host.python), rest="-")
    process = await _started(host, command, program(request).encode())
    try:
        return await _result(host, process, tell)
    finally:
        await _end(process)


async def send(host: Host, folder: str, files: Iterable[Path]) -> None:
    """Copies local files into a folder of the host, which is there. StartupError."""
    command = _RUN.format(python=_quoted_path(host.python), rest=f"-c {shlex.quote(_UNPACK)} {shlex.quote(folder)}")
    process = await _started(host, command, b"")
    try:
        await asyncio.to_thread(_pack, cast("Any", process.stdin), list(files), asyncio.get_running_loop())
        if await process.wait():
            raise StartupError(f"The wheels could not be copied: {await _words(process)}")
    except (BrokenPipeError, ConnectionResetError):
        raise StartupError(f"The wheels could not be copied: {await _words(process)}") from None
    finally:
        await _end(process)


def arguments(host: Host) -> list[str]:
    """Of ssh, up to the destination."""
    ssh = host.ssh
    found = ["-T", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={_CONNECT_SECONDS}"]
    found += ["-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4"]
    found += ["-p", str(ssh.port)] if ssh.port else []
    found += ["-i", str(Path(ssh.key).expanduser()), "-o", "IdentitiesOnly=yes"] if ssh.key else []
    for option in ssh.options:
        found += ["-o", option]
    return [*found, *(["-l", ssh.user] if ssh.user else []), "--", host.host.strip("[]")]


async def _started(host: Host, command: str, data: bytes) -> asyncio.subprocess.Process:
    ssh = shutil.which("ssh")
    if ssh is None:
        raise ConfigurationError("There is no ssh on this machine; install OpenSSH's client.")
    process = await asyncio.create_subprocess_exec(
        ssh, *arguments(host), f"sh -c {shlex.quote(command)}",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        limit=_LINE_BYTES, start_new_session=True,
    )  # fmt: skip
    if data and process.stdin is not None:
        process.stdin.write(data)
        process.stdin.write_eof()
    return process


async def _result(host: Host, process: asyncio.subprocess.Process, tell: Tell) -> dict[str, Any]:
    words = asyncio.ensure_future(_words(process))
    result: dict[str, Any] | None = None
    async for line in _lines(cast("asyncio.StreamReader", process.stdout)):
        match _message(line.decode(errors="replace")):
            case {"progress": str(text)}:
                tell(text)
            case {"refused": str(text)}:
                raise StartupError(text)
            case {"result": dict(found)}:
                result = found
    said, code = await words, await process.wait()
    if result is None:
        raise StartupError(_why(host, code, said))
    return result


async def _lines(stream: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while True:
        try:
            line = await stream.readline()
        except ValueError:  # so asyncio says that a line is longer than `limit`
            raise StartupError("The host answers with a line that is too long.") from None
        if not line:
            return
        yield line


def _message(line: str) -> dict[str, Any]:
    if not line.startswith(MARK):
        return {}
    try:
        found = json.loads(line.removeprefix(MARK))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _why(host: Host, code: int, said: str) -> str:
    if code == _NO_PYTHON:
        return f"There is no Python at '{host.python}'; name one with 'python', or install with --install."
    if code == _OLD_PYTHON:
        return f"'{host.python}' is older than Python 3.11."
    for sign, cause in _CAUSES:
        if sign in said:
            return f"ssh cannot connect: {cause}."
    last = said.strip().splitlines()[-1] if said.strip() else "it said nothing"
    return f"{'ssh cannot connect' if code == _SSH_FAILED else 'The agent failed'}: {last}"


async def _words(process: asyncio.subprocess.Process) -> str:
    return (await cast("asyncio.StreamReader", process.stderr).read()).decode(errors="replace")


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
        await process.wait()


class _Pipe:
    """A file that tarfile writes to from a thread, and a stream of the loop gets."""

    def __init__(self, stream: asyncio.StreamWriter, loop: asyncio.AbstractEventLoop) -> None:
        self._stream, self._loop = stream, loop

    def write(self, data: bytes) -> int:
        asyncio.run_coroutine_threadsafe(self._write(bytes(data)), self._loop).result()
        return len(data)

    async def _write(self, data: bytes) -> None:
        self._stream.write(data)
        await self._stream.drain()


def _pack(stream: asyncio.StreamWriter, files: list[Path], loop: asyncio.AbstractEventLoop) -> None:
    with tarfile.open(fileobj=cast("IO[bytes]", _Pipe(stream, loop)), mode="w|") as archive:
        for path in files:
            archive.add(path, arcname=path.name, filter=_plain)
    loop.call_soon_threadsafe(stream.write_eof)


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Nothing of the local owner."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mode = 0o600
    return entry


def _quoted_path(path: str) -> str:
    """For sh, with ~ as the remote home."""
    return f'"$HOME"/{shlex.quote(path[2:])}' if path.startswith("~/") else shlex.quote(path)
