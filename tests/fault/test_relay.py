"""The relay passes bytes, delays them, holds them back and loses them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.fault.relay import Relay

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
async def relay() -> AsyncIterator[Relay]:
    """In front of a server that says everything twice."""

    async def twice(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(100):
            writer.write(piece * 2)
        writer.close()

    server = await asyncio.start_server(twice, "127.0.0.1", 0)
    async with server, Relay(f"127.0.0.1:{server.sockets[0].getsockname()[1]}") as relay:
        yield relay


async def connect(relay: Relay) -> Ends:
    host, port = relay.address.split(":")
    return await asyncio.open_connection(host, int(port))


async def echo(ends: Ends, text: bytes) -> bytes:
    ends[1].write(text)
    return await asyncio.wait_for(ends[0].readexactly(2 * len(text)), 10)


async def test_bytes_pass_both_ways(relay: Relay) -> None:
    ends = await connect(relay)
    assert await echo(ends, b"abc") == b"abcabc"
    ends[1].close()
    await ends[1].wait_closed()


async def test_what_is_held_back_goes_on_when_healed(relay: Relay) -> None:
    ends = await connect(relay)
    await echo(ends, b"x")
    relay.stall()
    waiting = asyncio.ensure_future(echo(ends, b"abc"))
    done, _ = await asyncio.wait({waiting}, timeout=0.2)
    assert not done
    relay.heal()
    assert await waiting == b"abcabc"
    ends[1].close()
    await ends[1].wait_closed()


async def test_a_delay_comes_on_top(relay: Relay) -> None:
    ends = await connect(relay)
    relay.delay = 0.15
    start = asyncio.get_running_loop().time()
    assert await echo(ends, b"abc") == b"abcabc"
    assert asyncio.get_running_loop().time() - start >= 0.3  # once each way
    ends[1].close()
    await ends[1].wait_closed()


async def test_a_cut_resets_and_refuses_until_healed(relay: Relay) -> None:
    ends = await connect(relay)
    await echo(ends, b"x")
    relay.cut()
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await echo(ends, b"abc")
    refused = await connect(relay)
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await echo(refused, b"abc")
    relay.heal()
    again = await connect(relay)
    assert await echo(again, b"abc") == b"abcabc"
    for _, writer in (ends, refused, again):
        writer.close()
