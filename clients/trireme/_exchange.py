"""What one `generate` call remembers over its attempts: the answer so far, its deadline, and whether to try again.

Shared by both kinds of stream; does no input or output and never waits itself.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

import grpc

from trireme import _failures
from trireme._answer import Answer
from trireme._retry import RetryPolicy


class Exchange:
    """State of a generation, from the first attempt to the last message."""

    def __init__(
        self, *, target: str, timeout: float | None, retries: int, clock: Callable[[], float] = monotonic
    ) -> None:
        self.answer = Answer(clock)
        self._target = target
        self._timeout = timeout
        self._clock = clock
        self._policy = RetryPolicy(retries, None if timeout is None else clock() + timeout)
        self._failed = 0

    def remaining(self) -> float | None:
        """Seconds that an attempt may take; None where there is no deadline."""
        return self._policy.remaining(self._clock())

    def wait_after(self, failure: grpc.RpcError) -> float:
        """Seconds to wait before the next attempt. Raises the typed error where there must not be one."""
        begun = self.answer.head is not None
        error = _failures.typed(failure, target=self._target, timeout=self._timeout, begun=begun)
        self._failed += 1
        wait = None if begun else self._policy.wait_before(self._failed, error, self._clock())
        if wait is None:
            raise error from failure
        return wait
