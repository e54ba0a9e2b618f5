"""CVE-2023-44487 (HTTP/2 rapid reset), CVE-2023-33953, CVE-2024-7246: ten thousand streams are opened and reset while
another one goes on: its tokens are those of a quiet server, memory stays bounded, and nothing is left behind. How long
it takes is not asserted: the machine may be busy.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from tests.security.keyed_server import KeyedServer, keyed_server
from tests.support.waiting import eventually

from trireme_proto.v1 import inference_pb2 as pb
from trireme_worker.pack import Pack

STREAMS, BATCH = 10_000, 100
MIB = 1 << 20
ANSWER = {"max_tokens": 200, "temperature": 0.0, "ignore_eos": True}
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _CANCEL = 0, 1, 3, 4, 8
_END_STREAM, _END_HEADERS = 1, 4


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """An HTTP/2 frame (RFC 9113, section 4.1)."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def literal(name: str, value: str) -> bytes:
    """A header that goes into no table (RFC 7541, section 6.2.2); lengths above 126 take a second byte."""
    coded = b"\x00"
    for text in (name.encode(), value.encode()):
        coded += (bytes([len(text)]) if len(text) < 127 else bytes([127, len(text) - 127])) + text
    return coded


def opened(stream: int, headers: bytes) -> bytes:
    """A request that is complete: only with its message does it become a call."""
    message = pb.GenerateRequest(token_ids=pb.TokenIds(ids=[0, 300, 301]), max_tokens=200).SerializeToString()
    body = b"\0" + struct.pack(">I", len(message)) + message
    return frame(_HEADERS, _END_HEADERS, stream, headers) + frame(_DATA, _END_STREAM, stream, body)


def reset(stream: int) -> bytes:
    return frame(_RST_STREAM, 0, stream, struct.pack(">I", _CANCEL))


async def flood(address: str, headers: bytes, arrived: Callable[[], Awaitable[bool]]) -> int:
    """Opens and resets so many streams, over new connections where the server has had enough of one; how many. The very
    first is reset only when it has `arrived`, as a call: such streams are calls.
    """
    host, _, port = address.rpartition(":")
    connections, sent = 0, 0
    while sent < STREAMS:
        connections += 1
        reader, writer = await asyncio.open_connection(host, int(port))
        swallowing = asyncio.ensure_future(_swallow(reader))
        writer.write(_PREFACE + frame(_SETTINGS, 0, 0, b""))
        stream = 1
        if connections == 1:
            writer.write(opened(stream, headers))
            await eventually(arrived)
            writer.write(reset(stream))
            stream += 2
        with suppress(ConnectionError):
            while sent < STREAMS and not swallowing.done():
                numbers = range(stream, stream + 2 * BATCH, 2)
                writer.write(b"".join(opened(number, headers) + reset(number) for number in numbers))
                await writer.drain()
                stream, sent = stream + 2 * BATCH, sent + BATCH
                await asyncio.sleep(0)
        writer.close()
        swallowing.cancel()
        with suppress(ConnectionError, asyncio.CancelledError):
            await swallowing
    return connections


async def _swallow(reader: asyncio.StreamReader) -> None:
    """Until the server closes."""
    with suppress(ConnectionError):
        while await reader.read(65536):
            pass


def call_headers(path: str, credential: str) -> bytes:
    pairs = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "x"), ("te", "trailers")]
    pairs += [("content-type", "application/grpc"), ("authorization", credential)]
    return b"".join(literal(name, value) for name, value in pairs)


@pytest.mark.parametrize("known", [True, False], ids=["with a key", "without"])
async def test_ten_thousand_streams_opened_and_reset(pack: Pack, tmp_path: Path, known: bool) -> None:
    async with keyed_server(pack, tmp_path) as server:
        client = server.clients["acme"]
        calm = await client.generate([0, 300, 301], **ANSWER).result()
        credential = f"Bearer {server.keys.keys['blue']}" if known else "Bearer nothing"
        headers = call_headers("/trireme.v1.Inference/Generate", credential)
        before = psutil.Process().memory_info().rss
        async with client.generate([0, 300, 301], **ANSWER) as stream:
            first = await anext(aiter(stream))
            assert first is not None
            await flood(server.served.address, headers, lambda: _arrived(server, known))
            busy = await stream.result()
        assert busy.token_ids == calm.token_ids
        assert ("blue" in server.keys.quotas._balances) == known
        assert psutil.Process().memory_info().rss - before < 200 * MIB
        await eventually(lambda: _idle(server))
        again = await client.generate([0, 300, 301], **ANSWER).result()
        assert again.token_ids == calm.token_ids


async def _arrived(server: KeyedServer, known: bool) -> bool:
    """Whether a call with the key has come in; of those without, nothing is kept that would tell."""
    return not known or "blue" in server.keys.quotas._balances


async def _idle(server: KeyedServer) -> bool:
    """Whether nothing of the flood is left: no sequence, and no stream that counts."""
    scheduler = server.local.engine.scheduler
    balance = server.keys.quotas._balances.get("blue")
    return not (len(scheduler.running) or len(scheduler.waiting) or (balance is not None and balance.streams))
