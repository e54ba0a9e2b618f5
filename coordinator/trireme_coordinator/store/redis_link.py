"""The connection to Redis: bounded in number and in time, and left alone for a while where it does not answer.

Knows connections and failures; what is stored is redis_store.py's. Whatever goes wrong becomes SessionStoreUnavailable
with a time to come back, and no address in its message:

    down, hung, too slow   no answer within the bound; then refused at once until health.py says to ask again
    full, read-only        it answers and takes no writes; reads go on
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as NotConnected
from redis.exceptions import OutOfMemoryError, ReadOnlyError, RedisError
from redis.exceptions import TimeoutError as TooLate

from trireme_coordinator.store.health import Breaker
from trireme_coordinator.store.redis_url import checked_url
from trireme_proto.errors import ConfigurationError, SessionStoreUnavailable, TriremeError

_CONNECTIONS = 16
"""Most connections; further calls wait for one, within their own bound."""
_RETRY_AFTER = 1.0
"""Seconds after which a caller is told to come back."""


class RedisLink:
    """A client of one Redis. Must be made inside the running event loop; connects with the first call."""

    def __init__(self, url: str, timeout_seconds: float, breaker: Breaker | None = None) -> None:
        """ConfigurationError where the URL is no use. `timeout_seconds` bounds each use of `answering`."""
        self._pool = _pool(checked_url(url), timeout_seconds)
        self.client = Redis.from_pool(self._pool)
        self.breaker = breaker or Breaker()
        self._timeout = timeout_seconds

    @asynccontextmanager
    async def answering(self) -> AsyncIterator[None]:
        """Bounds what is inside in time and turns every failure of Redis into SessionStoreUnavailable.

        While Redis is away nothing inside is tried.
        """
        if self.breaker.wait() is not None:
            raise unavailable()
        try:
            async with asyncio.timeout(self._timeout):
                yield
        except (NotConnected, TooLate, OSError, TimeoutError) as error:
            self.breaker.failed()
            raise unavailable() from error
        except RedisError as error:
            self.breaker.answered()
            raise await self._refused(error) from error
        except TriremeError:  # about what it answered
            self.breaker.answered()
            raise
        except BaseException:
            self.breaker.gave_up()
            raise
        else:
            self.breaker.answered()

    async def close(self) -> None:
        """Gives back all connections."""
        await self.client.aclose()

    async def _refused(self, error: RedisError) -> SessionStoreUnavailable:
        if isinstance(error, OutOfMemoryError):
            return unavailable("The session store is full.")
        if str(error).startswith("MISCONF"):
            return unavailable("The session store cannot write to its disk.")
        if isinstance(error, ReadOnlyError):
            with suppress(RedisError, OSError):  # after a failover the address may lead to another server
                await self._pool.disconnect(inuse_connections=False)
            return unavailable("The session store is read-only.")
        return unavailable()


def unavailable(message: str = "The session store does not answer.") -> SessionStoreUnavailable:
    """The error for a Redis that is of no use right now."""
    return SessionStoreUnavailable(message, retry_after=_RETRY_AFTER)


async def awaited(answer: Any) -> Any:
    """The answer to a command. redis types one client for both kinds of use, so that nothing is known of it here."""
    return await answer


def _pool(url: str, timeout_seconds: float) -> BlockingConnectionPool:
    """A bounded pool. It tries again once at once: a connection kept from before Redis restarted is no failure.

    TCP keepalive is on, as redis does it by itself: a machine that vanished is noticed on idle connections too.
    """
    try:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=_CONNECTIONS,
            timeout=timeout_seconds,
            socket_timeout=timeout_seconds,
            socket_connect_timeout=timeout_seconds,
            retry=Retry(NoBackoff(), 1),
            driver_info=None,
        )
        pool.make_connection()  # type: ignore[no-untyped-call]  # connects nothing; finds options in the URL that there are not
    except (ValueError, TypeError, RedisError):
        raise ConfigurationError("The Redis URL is not one that can be used.") from None
    return pool
