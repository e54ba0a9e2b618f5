"""What the life of a request tells: how long it waited, when its first token came, how it ended.

A `RequestTimes` belongs to one Generate call, and is told by the call's trace.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable

from trireme_coordinator.metrics.values import DEFAULT_TENANT, Bounded, Histogram
from trireme_proto.limits import LIMITS

log = logging.getLogger(__name__)
Clock = Callable[[], float]
"""Seconds, of a clock that is never set."""


class RequestMeter:
    """Adds up requests and calls. One for each process."""

    def __init__(self, clock: Clock = time.perf_counter) -> None:
        self.first_token, self.per_token = Histogram(), Histogram()
        self.queue, self.prefill = Histogram(), Histogram()
        self.durations: dict[str, Histogram] = {}
        """By the reason of the error; "" for those that succeeded."""
        self.requests: Counter[tuple[str, ...]] = Counter()
        """By code and reason."""
        self.calls: Counter[tuple[str, ...]] = Counter()
        """By method and code."""
        self.tenants: Counter[tuple[str, ...]] = Counter()
        """Requests that ended, by tenant and code."""
        self.tenant_labels = Bounded(LIMITS.metric_tenants)
        self.reasons = Bounded(LIMITS.metric_reasons)
        self.methods = Bounded(LIMITS.metric_reasons)
        self._clock = clock

    def begin(self, tenant: str = "") -> RequestTimes:
        """A request of this tenant has just come in."""
        return RequestTimes(self, self._clock, tenant)

    def call(self, method: str, code: str) -> None:
        """A call of the public API has ended. `code`: of gRPC, such as "OK"."""
        self.calls[self.methods.of(method), code] += 1


class RequestTimes:
    """The moments of one request. Those that come twice count once."""

    __slots__ = ("_admitted", "_arrived", "_clock", "_ended", "_first", "_meter", "_queued", "_tenant")

    def __init__(self, meter: RequestMeter, clock: Clock, tenant: str = "") -> None:
        self._meter, self._clock, self._tenant = meter, clock, tenant or DEFAULT_TENANT
        self._arrived = clock()
        self._queued = self._admitted = self._first = 0.0
        self._ended = False

    def queued(self) -> None:
        """It waits for its first micro-batch."""
        self._queued = self._queued or self._clock()

    def admitted(self) -> None:
        """Its first micro-batch is on its way."""
        if self._queued and not self._admitted:
            self._admitted = self._clock()
            self._meter.queue.add(self._admitted - self._queued)

    def first_token(self) -> None:
        """The first token of the answer is there."""
        if not self._first:
            self._first = self._clock()
            self._meter.first_token.add(self._first - self._arrived)
            if self._admitted:
                self._meter.prefill.add(self._first - self._admitted)

    def finished(self, reason: str, tokens: int) -> None:
        """The answer is complete, with so many tokens."""
        if not self._ended and self._first and tokens > 1:
            self._meter.per_token.add((self._clock() - self._first) / (tokens - 1))
        self._end("OK", reason, "")

    def failed(self, code: str, reason: str) -> None:
        """It ended with an error of the tree."""
        self._end(code, reason, self._meter.reasons.of(reason))

    def _end(self, code: str, reason: str, error: str) -> None:
        if self._ended:
            return
        self._ended = True
        self._log(code, reason)
        self._meter.requests[code, self._meter.reasons.of(reason)] += 1
        self._meter.tenants[self._meter.tenant_labels.of(self._tenant), code] += 1
        if error not in self._meter.durations:
            self._meter.durations[error] = Histogram()
        self._meter.durations[error].add(self._clock() - self._arrived)

    def _log(self, code: str, reason: str) -> None:
        if log.isEnabledFor(logging.INFO):
            seconds = round(self._clock() - self._arrived, 6)
            first = round(self._first - self._arrived, 6) if self._first else None
            fields = {"code": code, "reason": reason, "seconds": seconds, "first_token_seconds": first}
            log.info("a request ended: %s %s after %.3f s", code, reason, seconds, extra={"fields": fields})


NO_TIMES = RequestTimes(RequestMeter(), time.perf_counter)
"""Of a request that nobody counts."""
