"""What tenants have used of what they may: requests and tokens a minute, and streams at once. Pure but for the clock.

A balance that refills steadily up to a minute's worth, for each of the two. A request is taken before it runs; tokens
are taken as they come, so that a request may overdraw the balance, and the next ones wait until it is made up for.
Counted by the coordinator that serves; a successor begins with full balances.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, fields

from trireme_proto.errors import ConfigurationError, QuotaExceeded
from trireme_proto.limits import LIMITS

MOST = 10**12
"""Highest number of a quota."""
_STREAM_RETRY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Quota:
    """What a tenant may use. 0: as much as it likes."""

    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    """Of prompts and answers together."""
    streams: int = 0
    """Answers that are generated at once."""

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if type(value) is not int or not 0 <= value <= MOST:
                raise ConfigurationError(f"A quota of {each.name} must be a whole number from 0 to {MOST}.")


@dataclass(slots=True)
class _Balance:
    """Of one tenant."""

    requests: float
    tokens: float
    at: float
    streams: int = 0


class Quotas:
    """The balances of all tenants; bounded: those that were idle longest are forgotten."""

    def __init__(
        self,
        quota_of: Callable[[str], Quota],
        *,
        tenants: int = LIMITS.quota_tenants,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`quota_of`: what a tenant may use, asked each time, so that a change counts at once."""
        self._quota_of, self._most, self._monotonic = quota_of, tenants, monotonic
        self._balances: OrderedDict[str, _Balance] = OrderedDict()

    def __len__(self) -> int:
        return len(self._balances)

    def enter(self, tenant: str, *, stream: bool = False) -> None:
        """A request begins. QuotaExceeded, with the time after which it would be let in; then nothing was taken."""
        quota = self._quota_of(tenant)
        balance = self._balance(tenant, quota)
        if quota.streams and stream and balance.streams >= quota.streams:
            raise _exceeded(f"{quota.streams} streams at once", _STREAM_RETRY_SECONDS)
        if quota.requests_per_minute and balance.requests < 1:
            wait = (1 - balance.requests) * 60 / quota.requests_per_minute
            raise _exceeded(f"{quota.requests_per_minute} requests a minute", wait)
        if quota.tokens_per_minute and stream and balance.tokens <= 0:
            wait = (1 - balance.tokens) * 60 / quota.tokens_per_minute
            raise _exceeded(f"{quota.tokens_per_minute} tokens a minute", wait)
        balance.requests -= bool(quota.requests_per_minute)
        balance.streams += stream

    def spent(self, tenant: str, tokens: int) -> None:
        """So many tokens of a prompt or an answer were used."""
        if (quota := self._quota_of(tenant)).tokens_per_minute:
            self._balance(tenant, quota).tokens -= tokens

    def left(self, tenant: str) -> None:
        """A stream that had entered has ended, however it did."""
        if (balance := self._balances.get(tenant)) is not None:
            balance.streams = max(0, balance.streams - 1)

    def _balance(self, tenant: str, quota: Quota) -> _Balance:
        now = self._monotonic()
        balance = self._balances.get(tenant)
        if balance is None:
            self._make_room()
            balance = self._balances[tenant] = _Balance(quota.requests_per_minute, quota.tokens_per_minute, now)
        passed, balance.at = (now - balance.at) / 60, now
        balance.requests = min(quota.requests_per_minute, balance.requests + passed * quota.requests_per_minute)
        balance.tokens = min(quota.tokens_per_minute, balance.tokens + passed * quota.tokens_per_minute)
        self._balances.move_to_end(tenant)
        return balance

    def _make_room(self) -> None:
        """Forgets the tenant that was idle longest. Those with streams stay; calls at once are bounded."""
        if len(self._balances) >= self._most:
            idle = next((tenant for tenant, balance in self._balances.items() if not balance.streams), None)
            if idle is not None:
                del self._balances[idle]


def _exceeded(what: str, wait: float) -> QuotaExceeded:
    return QuotaExceeded(f"The quota of {what} is used up; try again in {max(wait, 0.1):.1f} s.", retry_after=wait)
