"""Redis ACL (CVE-2025-49844, -46817, -21605): a user with our keys and commands alone, no scripts or settings."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
from redis import Redis
from redis.exceptions import AuthenticationError, NoPermissionError, ResponseError
from tests.security.redis_servers import Server, acl_server

from trireme_coordinator.redis_acl import acl_line
from trireme_coordinator.store.layout import COMMANDS
from trireme_coordinator.store.lease import RedisLease
from trireme_proto.errors import ConfigurationError
from trireme_worker.page_redis import COMMANDS as PAGE_COMMANDS
from trireme_worker.page_redis import RedisPages, StoreSettings, shared_secret

REFUSED = (
    *("EVAL return(1) 0", "EVALSHA 0 0", "SCRIPT LOAD return(1)", "FUNCTION LIST", "FCALL f 0", "FLUSHALL", "FLUSHDB"),
    *("KEYS *", "SCAN 0", "RANDOMKEY", "CONFIG GET *", "CONFIG SET dir /", "SHUTDOWN", "SAVE", "ACL LIST"),
    *("MODULE LIST", "MONITOR", "CLIENT LIST", "SLAVEOF localhost 1", "REPLICAOF localhost 1"),
    *("PUBLISH trireme:x y", "SUBSCRIBE trireme:x", "RENAME trireme:a b", "DUMP trireme:a"),
    *("MIGRATE h 1 trireme:a 0 1", "OBJECT HELP"),
)
PASSWORD = "correct-horse-battery"  # noqa: S105  of no server


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with acl_server() as started:
        yield started


@pytest.fixture
def client(server: Server) -> Iterator[Redis]:
    with Redis.from_url(server.url, driver_info=None) as opened:
        yield opened


@pytest.mark.parametrize("command", REFUSED, ids=lambda command: command.split()[0].lower())
def test_redis_acl_refuses(client: Redis, command: str) -> None:
    with pytest.raises(NoPermissionError):
        client.execute_command(*command.split())


def test_redis_acl_refuses_every_command_that_is_not_ours(server: Server) -> None:
    """All that this server has, so that a later one's new commands are refused too."""
    ours = {*COMMANDS, *PAGE_COMMANDS}
    with server.admin() as admin:
        admin.set_response_callback("COMMAND", lambda names, **_: names)
        names = [name.decode() for name in admin.execute_command("COMMAND", "LIST")]
        allowed = {name for name in names if _may(admin, name)}
    assert len(names) > 200
    assert allowed - {"quit", "reset"} == ours  # these two end or empty a connection; no rule can refuse them


def _may(admin: Redis, name: str) -> bool:
    """Whether our user may run it, on a key of ours where it takes one; asked without running it."""
    for count in range(1, 8):
        try:
            arguments = ["trireme:a"] * count
            return admin.execute_command("ACL", "DRYRUN", "trireme", *name.split("|"), *arguments[:-1]) == b"OK"
        except ResponseError as error:
            if "wrong number of arguments" not in str(error):
                return False
    return False


@pytest.mark.parametrize(
    "command", ["GET other", "SET other 1", "DEL trireme", "HGETALL session:1", "GETRANGE trirem 0 1"]
)
def test_redis_acl_refuses_keys_that_are_not_ours(client: Redis, command: str) -> None:
    with pytest.raises(NoPermissionError):
        client.execute_command(*command.split())


def test_nobody_comes_in_without_a_password(server: Server) -> None:
    with Redis(unix_socket_path=server.socket, driver_info=None) as nobody, pytest.raises(AuthenticationError):
        nobody.ping()
    wrong = server.url.replace(server.password, "x" * 20)
    with Redis.from_url(wrong, driver_info=None) as somebody, pytest.raises(AuthenticationError):
        somebody.ping()


async def test_leases_are_taken_kept_and_given_up(server: Server) -> None:
    one, two = (RedisLease(server.url, "acl", name) for name in ("one", "two"))
    token = await one.take()
    assert await one.keep(token)
    assert not await two.take()
    await two.stand_by()
    assert await one.somebody_stands_by()
    token = await one.rise(token, token + 5)
    assert token
    await one.release(token)
    assert await two.take(token) > token
    await one.close()
    await two.close()


def test_pages_are_kept_used_and_given_up(server: Server) -> None:
    """Room for four of eight pages."""
    assert len(shared_secret(server.url)) == 32
    pages = RedisPages(StoreSettings(server.url, 400, 60), b"stage", 100)
    names = [f"{i:064x}" for i in range(8)]
    for i, name in enumerate(names):
        pages.write([(name, i, memoryview(bytes(100)))])
    pages.touch([(names[-1], 0)])
    held = pages.present(names)
    assert sum(held) == 4
    assert held[-1]
    assert pages.read(names[-1:]) == [bytes(100)]
    pages.close()


def test_a_user_for_sessions_alone_cannot_keep_pages() -> None:
    with acl_server(pages=False) as server, Redis.from_url(server.url, driver_info=None) as client:
        client.execute_command("ZCARD", "trireme:1:x") if "zcard" in COMMANDS else None
        with pytest.raises(NoPermissionError):
            client.execute_command("ZPOPMIN", "trireme:1:kv:used:x")


def test_the_line_holds_no_password() -> None:
    line = acl_line("trireme", PASSWORD)
    assert PASSWORD not in line
    assert line.startswith("user trireme reset on #")
    assert "~trireme:* " in line
    assert "@" not in line.partition("~")[2]  # single commands, no categories


@pytest.mark.parametrize("password", ["", "short", "two words are too many", "a" * 15, "tab\tin-the-middle-of"])
def test_a_password_that_is_none_is_refused(password: str) -> None:
    with pytest.raises(ConfigurationError, match="16 characters"):
        acl_line("trireme", password)


@pytest.mark.parametrize("user", ["", "two words", "a\nuser default on nopass", "x" * 65])
def test_a_name_cannot_bring_rules_along(user: str) -> None:
    with pytest.raises(ConfigurationError, match="name must be"):
        acl_line(user, PASSWORD)


def test_the_command_prints_the_line_alone_on_standard_output() -> None:
    code = "from trireme_coordinator.commands import redis_acl; import typer; typer.run(redis_acl)"
    command = [sys.executable, "-c", code, "--password-file", "-"]
    done = subprocess.run(command, input=PASSWORD + "\n", capture_output=True, text=True, check=True)
    assert done.stdout == acl_line("trireme", PASSWORD) + "\n"
    assert PASSWORD not in done.stderr
