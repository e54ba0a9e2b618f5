"""When to call again, and how long a call may take. Pure decisions over numbers: no gRPC, no sleeping, no clock.

Two reasons to call again, with a bound each:

    refused   the server itself said when to come back (Overloaded with a time): at most `retries` times, and only while
              nothing of the answer was delivered
    lost      the server is gone, stops, or does not lead: for as long as `patience` lasts since anything came, at the
              next address at once, and with growing pauses once all addresses have been asked

Neither goes past the caller's deadline.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

from trireme_proto.errors import (
    InvalidRequest,
    ServerUnreachable,
    SessionBusy,
    SessionStoreUnavailable,
    TriremeError,
    Unavailable,
)

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0
_MOMENT = 0.01


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
    """Further attempts after refusals; at least 0."""
    ends: float | None
    """The caller's deadline on the clock of `now`; None where there is none."""
    patience: float = 0.0
    """Seconds without progress for which a lost server is looked for; 0: not at all."""
    addresses: int = 1
    """Addresses at which to look."""

    def remaining(self, now: float) -> float | None:
        """Seconds left for an attempt; never below zero."""
        return None if self.ends is None else max(self.ends - now, 0.0)

    def wait_before(self, attempt: int, error: TriremeError, now: float) -> float | None:
        """Seconds to wait before further attempt number `attempt` (1, 2, ...) after refusals; None: not again."""
        if not error.retryable or error.retry_after is None or attempt > self.retries:
            return None
        return self._in_time(error.retry_after, now)

    def wait_elsewhere(self, losses: int, error: TriremeError, now: float, jitter: float) -> float | None:
        """Seconds to wait after the `losses`-th loss in a row (1, 2, ...). `jitter`: 0 to 1, for pauses that differ."""
        rounds, further = divmod(losses, self.addresses)
        if further:
            return self._fitted(0.0, now)
        pause = min(_FIRST_PAUSE * 2.0 ** min(rounds - 1, 10), _LONGEST_PAUSE)
        return self._fitted(max(pause, min(error.retry_after or 0.0, _LONGEST_PAUSE)) * (1 + jitter) / 2, now)

    def _fitted(self, wait: float, now: float) -> float | None:
        """Shorter where it would last beyond the deadline, as long as there is a moment left."""
        if self.ends is None:
            return wait
        left = self.ends - now
        return None if left < _MOMENT else min(wait, left / 2)

    def _in_time(self, wait: float, now: float) -> float | None:
        return None if self.ends is not None and now + wait >= self.ends else wait


class Pursuit:
    """What one call remembers of its failures."""

    def __init__(self, policy: RetryPolicy, *, reached: bool, jitter: Callable[[], float] = random.random) -> None:
        """`reached`: whether any server has answered this client before. Where none has, each address is tried once."""
        self.lost = False
        """Whether the call was lost at least once: what it asked for may have been done."""
        self.late = False
        """Whether a lost call is not made again because the deadline comes before the next attempt."""
        self._policy, self._reached, self._jitter = policy, reached, jitter
        self._refusals = self._losses = 0
        self._since = math.inf

    def progressed(self) -> None:
        """Something came: the server is there."""
        self._reached, self._losses, self._since = True, 0, math.inf

    def wait_after(self, error: TriremeError, now: float, *, begun: bool = False) -> float | None:
        """Seconds to wait before the next attempt; None: there must not be one. `begun`: part of the answer came."""
        if self._is_loss(error):
            return self._after_loss(error, now)
        if begun:
            return None
        self._reached = True
        self._refusals += 1
        return self._policy.wait_before(self._refusals, error, now)

    def _is_loss(self, error: TriremeError) -> bool:
        """A session that is in use, or a store that is away, is part of a loss where it comes after one."""
        if isinstance(error, SessionBusy | SessionStoreUnavailable):
            return self.lost
        return isinstance(error, Unavailable)

    def _after_loss(self, error: TriremeError, now: float) -> float | None:
        self._losses += 1
        self._since = min(self._since, now)
        self._reached |= not isinstance(error, ServerUnreachable)
        nobody = not self._reached and self._losses >= self._policy.addresses
        if nobody or now - self._since >= self._policy.patience:
            return None
        self.lost = True
        wait = self._policy.wait_elsewhere(self._losses, error, now, self._jitter())
        self.late = wait is None
        return wait
