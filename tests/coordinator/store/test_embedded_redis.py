"""The embedded server: starts fast, keeps its data, shows nothing, leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.coordinator.store.backends import MODEL
from tests.support.waiting import eventually

from trireme_coordinator import embedded_redis
from trireme_coordinator.embedded_redis import EmbeddedRedis
from trireme_coordinator.embedded_watch import keep_running
from trireme_coordinator.store import RedisSessionStore
from trireme_proto.errors import ConfigurationError, SessionStoreUnavailable, StartupError


async def kept(server: EmbeddedRedis, session_id: str) -> list[int]:
    store = RedisSessionStore(server.url, MODEL)
    try:
        return await store.tokens(session_id)
    finally:
        await store.close()


async def some_session(server: EmbeddedRedis) -> str:
    store = RedisSessionStore(server.url, MODEL)
    session_id = (await store.create()).session_id
    await store.append(session_id, 0, [1, 2, 3])
    await store.close()
    return session_id


def ends(pid: int, seconds: float = 60.0) -> bool:
    """Whether a process that is no child of ours ends in time."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], seconds)[0])
    finally:
        os.close(descriptor)


def test_starts_in_well_under_a_second_and_leaves_nothing_behind():
    started = time.monotonic()
    with EmbeddedRedis() as server:
        assert time.monotonic() - started < 6.0  # 0.06 s on a quiet machine
        pid, folder = server.pid, server._folder
        assert server.running
    assert ends(pid)
    assert not folder.exists()
    assert not server.running
    with pytest.raises(StartupError):
        _ = server.url
    server.stop()


def test_opens_no_port_and_shows_no_secret():
    with EmbeddedRedis() as server:
        password = server.url.split(":")[2].split("@")[0]
        assert len(password) >= 32
        descriptors = {str(link.readlink()) for link in Path(f"/proc/{server.pid}/fd").iterdir()}
        inodes = {name[8:-1] for name in descriptors if name.startswith("socket:")}
        assert inodes
        for table in ("tcp", "tcp6", "udp", "udp6"):
            lines = Path("/proc/net", table).read_text().splitlines()[1:]
            assert not inodes & {line.split()[9] for line in lines}
        assert password.encode() not in Path(f"/proc/{server.pid}/cmdline").read_bytes()
        assert password.encode() not in Path(f"/proc/{server._guard.pid}/cmdline").read_bytes()
        for file in server._folder.iterdir():
            if file.is_file():
                assert password.encode() not in file.read_bytes()
        assert stat.S_IMODE(server._folder.stat().st_mode) == 0o700


async def test_sessions_outlive_a_clean_stop_with_a_data_folder(tmp_path):
    server = EmbeddedRedis(tmp_path / "new" / "data")
    with server:
        session_id = await some_session(server)
    with server:
        assert await kept(server, session_id) == [1, 2, 3]


async def test_sessions_outlive_a_killed_server(tmp_path):
    with EmbeddedRedis(tmp_path) as server:
        session_id = await some_session(server)
        os.kill(server.pid, signal.SIGKILL)
        server._server.wait()
        assert not server.running
    with EmbeddedRedis(tmp_path) as server:
        assert await kept(server, session_id) == [1, 2, 3]


def test_two_servers_never_share_a_data_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(embedded_redis, "_LOCK_SECONDS", 0.01)
    with EmbeddedRedis(tmp_path):
        second = EmbeddedRedis(tmp_path)
        with pytest.raises(ConfigurationError, match="in use by another server"):
            second.start()
        assert not second.running


def test_a_data_folder_that_cannot_be_written_is_one_clear_sentence(tmp_path):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ConfigurationError, match="cannot be written"):
        EmbeddedRedis(file / "data").start()


def test_a_broken_data_file_is_one_clear_sentence(tmp_path):
    with EmbeddedRedis(tmp_path):
        pass
    for file in (tmp_path / "appendonlydir").glob("*.manifest"):
        file.write_text("this is no manifest\n")
    server = EmbeddedRedis(tmp_path)
    with pytest.raises(StartupError, match="did not start: "):
        server.start()
    assert server._folder is None


def test_a_folder_name_with_blanks_and_quotes_is_taken(tmp_path):
    with EmbeddedRedis(tmp_path / 'a "strange\\ name') as server:
        assert server.running


def test_too_long_a_temporary_folder_is_one_clear_sentence(tmp_path, monkeypatch):
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    with pytest.raises(ConfigurationError, match="TMPDIR"):
        EmbeddedRedis().start()
    assert list(long.iterdir()) == []


def test_a_server_that_runs_is_not_started_twice():
    with EmbeddedRedis() as server, pytest.raises(StartupError, match="already running"):
        server.start()


@pytest.mark.parametrize("end", ["os._exit(1)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_the_server_ends_with_the_process_that_started_it(tmp_path, end):
    program = (
        "import os, pathlib, signal, sys\n"
        "from trireme_coordinator.embedded_redis import EmbeddedRedis\n"
        "server = EmbeddedRedis(pathlib.Path(sys.argv[1]))\n"
        "server.start()\n"
        "print(server.pid, server._guard.pid, server._folder, flush=True)\n"
        f"{end}\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path], check=False, capture_output=True, text=True, env=environment
    )
    assert done.stderr == ""
    pid, guard, folder = done.stdout.split()
    assert ends(int(pid))
    assert ends(int(guard))
    with EmbeddedRedis(tmp_path) as server:
        assert server.running
    assert not Path(folder).exists()


def test_ctrl_c_in_a_terminal_does_not_reach_the_server():
    with EmbeddedRedis() as server:
        assert os.getpgid(server.pid) != os.getpgid(0)
        assert os.getpgid(server._guard.pid) != os.getpgid(0)


async def test_a_full_memory_refuses_writes_and_keeps_what_is_there():
    with EmbeddedRedis(max_memory_bytes=3 << 20) as server:
        store = RedisSessionStore(server.url, MODEL)
        session_id = (await store.create()).session_id
        await store.append(session_id, 0, [9] * 1000)

        async def fill() -> None:
            for _ in range(40):
                await store.append((await store.create()).session_id, 0, [1] * 50_000)

        with pytest.raises(SessionStoreUnavailable):
            await fill()
        assert await store.tokens(session_id) == [9] * 1000
        await store.close()


async def test_a_server_that_was_killed_is_started_again_with_its_data(tmp_path):
    with EmbeddedRedis(tmp_path / "data") as server:
        store, said = RedisSessionStore(server.url, MODEL), []
        session_id = (await store.create(None, [1, 2, 3])).session_id
        watch = asyncio.ensure_future(keep_running(server, said.append, 0.01))
        pid = server.pid
        os.kill(pid, signal.SIGKILL)

        async def back() -> bool:
            return bool(said) and await store.ping()

        await eventually(back)
        assert await store.tokens(session_id) == [1, 2, 3]
        assert said == ["The session store ended and was started again"]
        assert server.pid != pid
        watch.cancel()
        await asyncio.wait([watch])
        await store.close()
    assert not server.running


async def test_a_server_that_cannot_be_started_again_is_told_once(tmp_path, monkeypatch):
    with EmbeddedRedis() as server:
        os.kill(server.pid, signal.SIGKILL)
        tries = []

        def fail() -> None:
            tries.append(1)
            raise StartupError("No room.")

        monkeypatch.setattr(server, "revive", fail)
        said = []
        watch = asyncio.ensure_future(keep_running(server, said.append, 0.0))

        async def tried() -> bool:
            return len(tries) > 3

        await eventually(tried)
        watch.cancel()
        await asyncio.wait([watch])
        assert said == ["The session store ended and cannot be started again: No room."]
