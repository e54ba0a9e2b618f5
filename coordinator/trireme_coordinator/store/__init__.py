"""Sessions that outlive requests, connections and processes: records, stores, and writing behind.

records.py      what a session is; the SessionStore protocol          splice.py   the rule of an idempotent append
redis_store.py  on Redis; redis_link.py, redis_index.py: its parts    layout.py   keys and bytes in Redis
memory.py       in memory, for tests                                  writer.py   write-behind, off the token's path
requests.py     what is remembered of requests (redis_requests.py, memory_requests.py: where); owners.py  who generates
health.py       when to ask a store again that did not answer         backlog.py, backlogs.py  what is to be stored
"""

from trireme_coordinator.store.backlogs import WriterCounters
from trireme_coordinator.store.memory import MemorySessionStore
from trireme_coordinator.store.memory_requests import MemoryRequestStore
from trireme_coordinator.store.owners import Owner
from trireme_coordinator.store.records import (
    DEFAULT_TTL_SECONDS,
    ModelIdentity,
    SessionRecord,
    SessionStore,
    new_session_id,
)
from trireme_coordinator.store.redis_requests import RedisRequestStore
from trireme_coordinator.store.redis_store import RedisSessionStore
from trireme_coordinator.store.requests import End, Loaded, RequestRecord, RequestStore, Start
from trireme_coordinator.store.writer import SessionWriter

__all__ = [
    "DEFAULT_TTL_SECONDS",
    "End",
    "Loaded",
    "MemoryRequestStore",
    "MemorySessionStore",
    "ModelIdentity",
    "Owner",
    "RedisRequestStore",
    "RedisSessionStore",
    "RequestRecord",
    "RequestStore",
    "SessionRecord",
    "SessionStore",
    "SessionWriter",
    "Start",
    "WriterCounters",
    "new_session_id",
]
