"""Redis ACL: with the printed user everything works that the session store and the requests' store can do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from tests.coordinator.store.backends import RedisBackend
from tests.coordinator.store.test_contract import *  # noqa: F403  the contract, on a server of an operator's
from tests.coordinator.store.test_requests_contract import *  # noqa: F403
from tests.security.redis_servers import Server, acl_server

del test_a_damaged_hash_of_requests  # noqa: F821  it damages what our user cannot


@pytest.fixture(scope="module")
def acl() -> Iterator[Server]:
    with acl_server() as server:
        yield server


@pytest.fixture
async def backend(acl: Server) -> AsyncIterator[RedisBackend]:
    found = RedisBackend(acl.url)
    yield found
    await found.close()
