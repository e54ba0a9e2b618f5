"""What a test wants the fake server to do next, and what it saw. Knows nothing of gRPC."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from trireme_proto.errors import TriremeError
from trireme_proto.v1 import inference_pb2 as inference

Outcome = Literal["running", "finished", "failed", "cancelled"]


@dataclass(frozen=True, slots=True)
class Step:
    """What happens to one call instead of a normal answer."""

    after: int = 0
    """Tokens delivered before it; 0: not even the first message."""
    error: TriremeError | None = None
    """Raised then."""
    messages: Sequence[inference.GenerateResponse] | None = None
    """Sent as they are, in place of the whole answer."""
    hold: bool = False
    """Nothing more comes until the caller goes away."""
    lose: bool = False
    """The caller loses the connection then."""


class Script:
    """Steps waiting for calls, by method; each call takes one."""

    def __init__(self) -> None:
        self._steps: defaultdict[str, deque[Step]] = defaultdict(deque)
        self.refusal: TriremeError | None = None
        """What every call is refused with, for as long as it is set."""

    def add(self, method: str, step: Step) -> None:
        self._steps[method].append(step)

    def take(self, method: str) -> Step | None:
        """The step for a call that arrives now; None for a normal answer."""
        if self.refusal is not None:
            return Step(error=self.refusal)
        waiting = self._steps[method]
        return waiting.popleft() if waiting else None


@dataclass(slots=True)
class FakeCall:
    """A `generate` call as the server saw it."""

    request: inference.GenerateRequest
    """The message as it came."""
    metadata: Mapping[str, str]
    """Of the call, such as `traceparent`."""
    timeout: float | None
    """Seconds that the caller gave; None where there is no deadline."""
    outcome: Outcome = "running"
    """`cancelled` also where the caller's deadline passed."""
    _ended: threading.Event = field(default_factory=threading.Event)

    def wait_ended(self, timeout: float = 10.0) -> bool:
        """Waits until the call is over on the server; False where it is not within so many seconds."""
        return self._ended.wait(timeout)

    def end(self) -> None:
        """For the server: the call is over."""
        if self.outcome == "running":
            self.outcome = "cancelled"
        self._ended.set()
