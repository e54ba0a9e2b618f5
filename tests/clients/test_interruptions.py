"""Latencies of tokens within windows, and the readers that take them."""

from __future__ import annotations

import pytest
from tests.support.waiting import eventually

from trireme import AsyncClient
from trireme.bench.interruptions import Readers, latency_of
from trireme.testing import FakeServer
from trireme_proto.errors import SessionNotFound


def test_percentiles_of_the_times_between_tokens() -> None:
    found = latency_of([n / 1000 for n in range(1, 101)])
    assert (found.tokens, found.longest_s) == (100, 0.1)
    assert found.p50_s == pytest.approx(0.0505)
    assert found.p99_s == pytest.approx(0.09901)


@pytest.mark.parametrize("seconds", [[], [0.25]])
def test_too_few_for_percentiles(seconds: list[float]) -> None:
    found = latency_of(seconds)
    assert (found.tokens, found.p99_s, found.longest_s) == (len(seconds), 0.0, max(seconds, default=0.0))


async def test_readers_ask_again_and_count_what_ends_with_an_error(server: FakeServer) -> None:
    moments = iter(float(n) for n in range(1_000_000))
    async with AsyncClient(server.target, timeout=20) as client:
        readers = Readers(client, streams=1, tokens=6, clock=lambda: next(moments))
        await readers.start()
        server.fail_next(SessionNotFound("No session."), after=3)

        async def both() -> bool:
            return bool(readers.answers and readers.errors)

        await eventually(both)
        await readers.stop()
    assert (readers.wrong, [error.message for error in readers.errors]) == (0, ["No session."])
    assert all(b - a == 1.0 for a, b in readers.steps)
    whole = readers.latency([(0.0, 1e9)])
    assert whole.tokens == len(readers.steps) > 0
    assert readers.latency([(0.0, readers.steps[0][1])]).tokens == 0
    assert readers.latency([(0.0, readers.steps[0][1] + 0.5)]).tokens == 1
