"""What one call with a single reply remembers over its attempts. Shared by both clients; never waits itself."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

import grpc

from trireme import _failures
from trireme._addresses import Addresses
from trireme._retry import Pursuit, RetryPolicy
from trireme_proto.errors import SessionNotFound


class Question:
    """State of a call, from the first attempt to the reply."""

    def __init__(
        self,
        addresses: Addresses,
        timeout: float | None,
        patience: float,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._addresses, self._timeout, self._clock = addresses, timeout, clock
        ends = None if timeout is None else clock() + timeout
        self._policy = RetryPolicy(0, ends, patience, len(addresses.targets))
        self._pursuit = Pursuit(self._policy, reached=addresses.reached)

    def remaining(self) -> float | None:
        """Seconds that an attempt may take; None where there is no deadline."""
        return self._policy.remaining(self._clock())

    def wait_after(self, failure: grpc.RpcError, place: int, *, forgiving: bool = False) -> float | None:
        """Seconds to wait before the next attempt, after the server of this index failed. Raises the typed error where
        there must not be another one. None (only where `forgiving`) where an attempt that was lost has done what was
        asked for: the session is gone.
        """
        error = _failures.typed(failure, target=str(self._addresses), timeout=self._timeout)
        if forgiving and self._pursuit.lost and isinstance(error, SessionNotFound):
            return None
        wait = self._pursuit.wait_after(error, self._clock())
        if wait is None:
            raise _failures.last(error, self._timeout, late=self._pursuit.late) from failure
        self._addresses.leave(place)
        return wait
