"""The HTTP port: what it answers, to whom, and what it does not let anybody do to it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from trireme_coordinator.metrics.endpoint import Endpoint
from trireme_coordinator.metrics.values import Readings
from trireme_proto.errors import ConfigurationError
from trireme_proto.limits import LIMITS


class Server:
    def __init__(self) -> None:
        self.reason = ""
        self.endpoint = Endpoint(self.readings, lambda: self.reason, ["metrics.example"])

    async def readings(self) -> Readings:
        found = Readings()
        found.put("trireme_leading", 1)
        return found

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, port = self.endpoint.address.rsplit(":", 1)
        return await asyncio.open_connection(host, int(port))

    async def ask(self, head: str) -> str:
        """The whole answer to these lines."""
        reader, writer = await self.open()
        writer.write(f"{head}\r\nConnection: close\r\n\r\n".encode("latin-1"))
        async with asyncio.timeout(10):
            answer = await reader.read()
        writer.close()
        return answer.decode()

    async def get(self, path: str, host: str = "127.0.0.1") -> str:
        return await self.ask(f"GET {path} HTTP/1.1\r\nHost: {host}")


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    await made.endpoint.start("127.0.0.1", 0)
    yield made
    await made.endpoint.stop()


async def test_health_and_readiness(server: Server) -> None:
    assert (await server.get("/readyz")).startswith("HTTP/1.1 200")
    server.reason = "The pipeline is being rebuilt."
    answer = await server.get("/readyz")
    assert answer.startswith("HTTP/1.1 503")
    assert answer.endswith("The pipeline is being rebuilt.\n")
    assert (await server.get("/healthz")).startswith("HTTP/1.1 200")
    assert "trireme_leading 1" in await server.get("/metrics")


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.0.0.1:9464", "localhost:80", "[::1]:9464", "10.1.2.3", "metrics.example", "METRICS.example.:1",
     socket.gethostname()],
)  # fmt: skip
async def test_who_may_ask(server: Server, host: str) -> None:
    assert (await server.get("/metrics", host)).startswith("HTTP/1.1 200")


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:9464", "evil@127.0.0.1", "", "127.0.0.1 evil",
     "metrics.example.evil", "xmetrics.example"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/metrics", "/readyz", "/healthz", "/nothing"])
async def test_who_may_not(server: Server, host: str, path: str) -> None:
    answer = await server.get(path, host)
    assert answer.split(" ")[1] in {"400", "403"}
    assert "trireme_leading" not in answer


@pytest.mark.parametrize("method", ["POST", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"])
async def test_get_alone(server: Server, method: str) -> None:
    assert (await server.ask(f"{method} /metrics HTTP/1.1\r\nHost: 127.0.0.1")).startswith("HTTP/1.1 405")


@pytest.mark.parametrize("path", ["/", "/metrics/", "/../metrics", "/metrics/../../etc/passwd", "/debug"])
async def test_nothing_else_is_there(server: Server, path: str) -> None:
    answer = await server.get(path)
    assert answer.split(" ")[1] in {"400", "404"}


@pytest.mark.parametrize("head", ["GET /" + "a" * 9000, "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + "a" * 9000])
async def test_long_lines_are_refused(server: Server, head: str) -> None:
    answer = await server.ask(head if "Host" in head else f"{head} HTTP/1.1\r\nHost: 127.0.0.1")
    assert answer.startswith(("HTTP/1.0 400", "HTTP/1.1 4"))


async def test_connections_that_say_nothing_go_for_newer_ones(server: Server) -> None:
    silent = [await server.open() for _ in range(3 * LIMITS.metric_connections)]
    assert "trireme_leading" in await server.get("/metrics")
    async with asyncio.timeout(10):
        assert await silent[0][0].read() == b""
    for _, writer in silent:
        writer.close()


async def test_a_port_that_is_taken(server: Server) -> None:
    host, port = server.endpoint.address.rsplit(":", 1)
    other = Endpoint(server.readings, lambda: "")
    with pytest.raises(ConfigurationError, match="cannot be listened on"):
        await other.start(host, int(port))
    await other.stop()
