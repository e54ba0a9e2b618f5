"""When to call again, and how long a call may take. Pure decisions over numbers: no gRPC, no sleeping, no clock.

A generation is repeated only where nothing of it was delivered and the server itself said when to come back
(RetryInfo), at most `retries` times and never past the caller's deadline.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from trireme_proto.errors import InvalidRequest, TriremeError


def limit(timeout: float | None, default: float | None) -> float | None:
    """Seconds a call may take; None for as long as it needs. `math.inf` says so for one call. Raises InvalidRequest."""
    seconds = default if timeout is None else timeout
    if seconds is None or seconds == math.inf:
        return None
    if not seconds > 0:
        raise InvalidRequest(f"timeout must be more than 0 seconds, not {seconds:g}.")
    return seconds


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often one call may be made again, and until when."""

    retries: int
    """Further attempts after the first; at least 0."""
    ends: float | None
    """The caller's deadline on the clock of `now`; None where there is none."""

    def remaining(self, now: float) -> float | None:
        """Seconds left for an attempt; never below zero."""
        return None if self.ends is None else max(self.ends - now, 0.0)

    def wait_before(self, attempt: int, error: TriremeError, now: float) -> float | None:
        """Seconds to wait before further attempt number `attempt` (1, 2, ...); None where it must not be made."""
        if not error.retryable or error.retry_after is None or attempt > self.retries:
            return None
        if self.ends is not None and now + error.retry_after >= self.ends:
            return None
        return error.retry_after
