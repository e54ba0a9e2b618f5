"""When requests come, and how long each is. The same seed gives the same requests at every rate; the gaps differ."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from random import Random

from trireme_proto.errors import ConfigurationError
from trireme_proto.limits import LIMITS
from trireme_proto.load.mix import Mix


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request to come."""

    at: float
    """Seconds after the start."""
    prompt: int
    """Tokens of the prompt."""
    output: int
    """Tokens of the answer."""
    seed: int
    """For the prompt's contents and the answer's sampling."""


def poisson(
    rate: float, *, prompt: Mix, output: Mix, seed: int, requests: int | None = None, seconds: float | None = None
) -> list[Arrival]:
    """Arrivals of an open loop: independent of each other, `rate` a second on average, until `requests` have come or
    `seconds` have passed, whichever is first. ConfigurationError for more of them than the limits allow.
    """
    if not 0 < rate <= LIMITS.load_rate:
        raise ConfigurationError(f"rate is {rate:g}; it must be above 0, up to {LIMITS.load_rate} requests a second.")
    found: list[Arrival] = []
    for arrival in _endless(rate, prompt, output, seed):
        if (requests is not None and len(found) >= requests) or (seconds is not None and arrival.at >= seconds):
            break
        if len(found) >= LIMITS.load_requests:
            raise ConfigurationError(
                f"A load has at most {LIMITS.load_requests} requests: fewer seconds, or a lower rate."
            )
        found.append(arrival)
    return found


def sequence(count: int, *, prompt: Mix, output: Mix, seed: int) -> list[Arrival]:
    """The same requests without times, for a closed loop."""
    return list(islice(_endless(None, prompt, output, seed), count))


def _endless(rate: float | None, prompt: Mix, output: Mix, seed: int) -> Iterator[Arrival]:
    gaps, lengths = Random(f"{seed}-gaps"), Random(f"{seed}-lengths")
    at = 0.0
    while True:
        if rate is not None:
            at += gaps.expovariate(rate)
        yield Arrival(at, prompt.draw(lengths), output.draw(lengths), lengths.getrandbits(63))
