"""The fake server's `Inference` service: checks, a claim on the session, the answer, or what the script says."""
# ruff: noqa: N802, ARG002 - gRPC gives the methods their names and parameters

from __future__ import annotations

import threading
import zlib
from collections.abc import Iterator
from itertools import count

import grpc

from trireme.testing import checks
from trireme.testing.answer import answer
from trireme.testing.handlers import ConnectionLostError, end_of, interrupt, refuse, scripted
from trireme.testing.model import FakeModel
from trireme.testing.script import FakeCall, Script
from trireme.testing.store import Lease, Store
from trireme_proto.errors import TriremeError
from trireme_proto.v1 import inference_pb2 as inference
from trireme_proto.v1.inference_pb2_grpc import InferenceServicer

_DAY = 24 * 3600
Messages = Iterator[inference.GenerateResponse]


class FakeInference(InferenceServicer):
    """Answers at once, unless the script holds it up."""

    def __init__(self, store: Store, model: FakeModel, script: Script) -> None:
        self.script = script
        self.calls: list[FakeCall] = []
        self.arrival = threading.Condition()
        """Notified with each further one of `calls`."""
        self._store = store
        self._model = model
        self._numbers = count(1)

    def Generate(self, request: inference.GenerateRequest, context: grpc.ServicerContext) -> Messages:
        call = FakeCall(request, _metadata(context), context.time_remaining())
        with self.arrival:
            self.calls.append(call)
            self.arrival.notify_all()
        over = end_of(context)
        try:
            yield from self._messages(call, over)
            call.outcome = "cancelled" if over.is_set() else "finished"
        except (TriremeError, ConnectionLostError) as error:
            call.outcome = "failed"
            refuse(context, error)
        finally:
            call.end()

    @scripted
    def Tokenize(self, request: inference.TokenizeRequest, context: grpc.ServicerContext) -> inference.TokenizeResponse:
        add_bos = request.add_bos or not request.HasField("add_bos")
        return inference.TokenizeResponse(token_ids=self._model.tokenize(request.text, add_bos=add_bos))

    @scripted
    def Detokenize(
        self, request: inference.DetokenizeRequest, context: grpc.ServicerContext
    ) -> inference.DetokenizeResponse:
        checks.token_ids(request.token_ids, self._model)
        return inference.DetokenizeResponse(text=self._model.detokenize(request.token_ids))

    def _messages(self, call: FakeCall, over: threading.Event) -> Messages:
        step = self.script.take("Generate")
        if step is not None and step.messages is not None:
            yield from step.messages
            interrupt(step, over)
            return
        if step is not None and not step.after:
            interrupt(step, over)
        checks.generate(call.request, self._model)
        lease = self._store.claim(call.request.session_id or self._store.create(_DAY).session_id)
        try:
            for number, message in enumerate(self._answer(call, lease)):
                yield message
                if step is not None and number == step.after:  # message 0 holds no token
                    interrupt(step, over)
        finally:
            lease.give_back()

    def _answer(self, call: FakeCall, lease: Lease) -> Messages:
        request, number = call.request, next(self._numbers)
        earlier = len(lease.session.tokens)
        prompt = list(request.token_ids.ids) or self._model.tokenize(request.text, add_bos=not earlier)
        context = [*lease.session.tokens, *prompt]
        seed = request.sampling.seed if request.sampling.HasField("seed") else zlib.crc32(str(number).encode())
        messages = answer(self._model, context, request, seed)
        yield inference.GenerateResponse(
            session_id=lease.session.session_id,
            request_id=request.request_id or f"fake-request-{number}",
            trace_id=_trace_id(call, number),
            seed=seed,
        )
        yield from messages[:-1]
        generated = [token for message in messages for token in message.token_ids]
        last = messages[-1]
        last.usage.prompt_tokens = len(context)
        last.usage.completion_tokens = len(generated)
        last.usage.cached_tokens = earlier
        lease.give_back([*prompt, *generated])  # before the caller knows that it is over
        yield last


def _metadata(context: grpc.ServicerContext) -> dict[str, str]:
    return {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}


def _trace_id(call: FakeCall, number: int) -> str:
    """The caller's, where there is one (W3C: version-traceid-spanid-flags)."""
    parts = call.metadata.get("traceparent", "").split("-")
    return parts[1] if len(parts) == 4 else f"{number:032x}"
