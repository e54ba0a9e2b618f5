"""The real server keeps the same contract as the fake one."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from tests.clients.contract import Contract
from tests.cluster.test_serve_process import Server

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    server = Server("--stages", "2")
    yield server.address
    server.end(signal.SIGTERM)


class TestRealServer(Contract):
    @pytest.fixture
    def target(self, address: str) -> str:
        return address
