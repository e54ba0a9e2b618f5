"""redis-py cancellation (CVE-2023-28858, -28859): a cancelled command must not leave its reply to the next caller.

10,000 reads of sessions with tokens of their own, over few connections, cancelled at random moments; what is read by
those that are not is theirs.
"""

from __future__ import annotations

import asyncio
import random

from tests.coordinator.store.backends import MODEL
from tests.security.redis_servers import acl_server

from trireme_coordinator.store import RedisRequestStore
from trireme_proto.errors import SessionStoreUnavailable

READS = 10_000
AT_ONCE = 50
SESSIONS = 20
TURNS = 20
"""Most turns of the event loop after which a read is cancelled: about as many as a read takes. Not a time: on a busy
machine all reads would be through by then.
"""


async def test_redis_cancelled_reads_give_nobody_another_sessions_tokens() -> None:
    draw = random.Random(7)
    with acl_server() as server:
        store = RedisRequestStore(server.url, MODEL, timeout_seconds=30.0)
        sessions = [await _session(store, number) for number in range(SESSIONS)]
        read = cancelled = 0
        for _ in range(READS // AT_ONCE):
            chosen = [draw.choice(sessions) for _ in range(AT_ONCE)]
            tasks = [asyncio.ensure_future(store.load(session_id)) for session_id, _ in chosen]
            cuts = [_cut(task, draw.randrange(TURNS)) for task in tasks if draw.random() < 0.5]
            cancelled += sum(await asyncio.gather(*cuts))
            for (session_id, tokens), found in zip(
                chosen, await asyncio.gather(*tasks, return_exceptions=True), strict=True
            ):
                if isinstance(found, asyncio.CancelledError | SessionStoreUnavailable):
                    continue
                assert not isinstance(found, BaseException), repr(found)
                assert (found.record.session_id, found.tokens) == (session_id, tokens)
                read += 1
        for session_id, tokens in sessions:  # the connections that are left are whole
            assert (await store.load(session_id)).tokens == tokens
        await store.close()
    assert read > READS // 10
    assert cancelled > READS // 10


async def _cut(task: asyncio.Task[object], turns: int) -> bool:
    """Whether the task was still under way then."""
    for _ in range(turns):
        await asyncio.sleep(0)
    return task.cancel()


async def _session(store: RedisRequestStore, number: int) -> tuple[str, list[int]]:
    session_id = (await store.create()).session_id
    tokens = [number] * (10 + number)
    await store.append(session_id, 0, tokens)
    return session_id, tokens
