"""What one `generate` call remembers over its attempts: the answer so far, its deadline, and whether to try again.

Shared by both kinds of stream; does no input or output and never waits itself. A lost answer is asked for again under
the same request id and from the first token that is missing, so that each is delivered once, wherever it comes from.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from time import monotonic

import grpc

from trireme import _failures
from trireme._addresses import Addresses
from trireme._answer import Answer
from trireme._lengths import SessionLengths
from trireme._retry import Pursuit, RetryPolicy
from trireme.results import TokenChunk
from trireme_proto.errors import RequestNotFound, SessionIncomplete, SessionNotFound, TriremeError
from trireme_proto.v1 import inference_pb2 as inference


class Exchange:
    """State of a generation, from the first attempt to the last message."""

    def __init__(
        self,
        request: inference.GenerateRequest,
        *,
        addresses: Addresses,
        timeout: float | None,
        retries: int,
        patience: float,
        lengths: SessionLengths,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """A request without an id gets one that nobody can guess: whoever knows it may resume the answer."""
        self.answer = Answer(clock)
        self._request = inference.GenerateRequest()
        self._request.CopyFrom(request)
        self._request.request_id = request.request_id or secrets.token_hex(16)
        self._lengths = lengths
        if (held := lengths.get(request.session_id)) is not None:
            self._request.session_tokens = held
        self._addresses, self._timeout, self._clock = addresses, timeout, clock
        ends = None if timeout is None else clock() + timeout
        self._policy = RetryPolicy(retries, ends, patience, len(addresses.targets))
        self._pursuit = Pursuit(self._policy, reached=addresses.reached)
        self._forgotten = False
        """Whether no server knows the request of which a part was delivered, until one answers it again."""
        self._unmade = False
        """Whether no server knows the session either that was made for it."""

    def remaining(self) -> float | None:
        """Seconds that an attempt may take; None where there is no deadline."""
        return self._policy.remaining(self._clock())

    def request(self) -> inference.GenerateRequest:
        """What to send now: the request as it was, or the rest of its answer."""
        self.answer.attempt(anew=self._forgotten)
        head = self.answer.head
        if head is None:
            return self._request
        rest = inference.GenerateRequest()
        rest.CopyFrom(self._request)
        if not self._forgotten:
            rest.session_id, rest.resume_index = head.session_id, self.answer.count
        elif not self._unmade:
            rest.session_id = head.session_id
        if head.HasField("seed"):
            rest.sampling.seed = head.seed
        return rest

    def take(self, message: inference.GenerateResponse) -> TokenChunk | None:
        """Checks and keeps a message; None where there is nothing new in it. Raises Internal."""
        self._addresses.reached = True
        self._pursuit.progressed()
        chunk = self.answer.take(message)
        self._forgotten = False
        if self.answer.head is not None and (usage := self.answer.usage) is not None:
            self._lengths.note(self.answer.head.session_id, usage.prompt_tokens + usage.completion_tokens)
        return chunk

    def wait_after(self, failure: grpc.RpcError) -> float | None:
        """Seconds to wait before the next attempt; None where the answer was complete already. Raises the typed error
        where there must not be another attempt.
        """
        if self.answer.finish_reason is not None:
            return None
        begun = self.answer.head is not None
        error = _failures.typed(failure, target=str(self._addresses), timeout=self._timeout, begun=begun)
        if isinstance(error, SessionIncomplete):
            self._lengths.forget(self._request.session_id)  # the caller knows now: a next request goes on from there
        if begun and self._pursuit.lost and self._is_forgotten(error):
            # The server was lost before the store heard of the request. Nobody generates it: it is generated again,
            # from its seed, and the answer must begin with what was delivered.
            self._forgotten, self._unmade = True, isinstance(error, SessionNotFound)
            return 0.0
        wait = self._pursuit.wait_after(error, self._clock(), begun=begun)
        if wait is None:
            raise _failures.last(error, self._timeout, late=self._pursuit.late) from failure
        return wait

    def _is_forgotten(self, error: TriremeError) -> bool:
        """A session that the caller named must be there; one that was made for this request need not."""
        return isinstance(error, RequestNotFound) or (
            isinstance(error, SessionNotFound) and not self._request.session_id
        )
