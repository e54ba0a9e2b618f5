"""A fake server for each test, and one way to write a test for both clients."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from trireme import AsyncClient, Client
from trireme.testing import FakeServer

pytest.register_assert_rewrite("tests.clients.contract")

Do = Callable[[Callable[[Any], Any]], Any]


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch):
    for name in ("TRIREME_TARGET", "TRIREME_DEBUG", "PYTHONUNBUFFERED"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as running:
        yield running


@pytest.fixture(params=["blocking", "asyncio"])
async def do(request, server) -> AsyncIterator[Do]:
    """`await do(lambda client: client.x())` calls x on a client of either kind; iterators come back as lists."""
    if request.param == "asyncio":
        async with AsyncClient(server.target, timeout=20) as client:
            yield lambda act: _asyncio(act, client)
    else:
        with Client(server.target, timeout=20) as client:
            yield lambda act: asyncio.to_thread(_blocking, act, client)


def _blocking(act, client):
    value = act(client)
    return list(value) if isinstance(value, Iterator) else value


async def _asyncio(act, client):
    value = act(client)
    if inspect.isawaitable(value):
        value = await value
    return [item async for item in value] if isinstance(value, AsyncIterator) else value
