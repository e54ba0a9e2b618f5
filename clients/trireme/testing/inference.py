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
from trireme.testing.requests import Reader, Remembered, content
from trireme.testing.script import FakeCall, Script
from trireme.testing.store import Conversation, Lease, Store
from trireme.testing.traces import FakeTrace, FakeTraces
from trireme_proto.errors import RequestNotFound, TriremeError
from trireme_proto.limits import LIMITS
from trireme_proto.v1 import inference_pb2 as inference
from trireme_proto.v1.inference_pb2_grpc import InferenceServicer

_DAY = 24 * 3600
Messages = Iterator[inference.GenerateResponse]


class FakeInference(InferenceServicer):
    """Answers at once, unless the script holds it up."""

    def __init__(self, store: Store, model: FakeModel, script: Script, traces: FakeTraces) -> None:
        self.script = script
        self.calls: list[FakeCall] = []
        self.arrival = threading.Condition()
        """Notified with each further one of `calls`."""
        self._store = store
        self._model = model
        self._kept = traces
        self._numbers, self._traces = count(1), count(1)

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
        session, remembered, reader = self._opened(call, Reader(over))
        try:
            for number, message in enumerate(self._answer(call, session, remembered, reader)):
                yield message
                if step is not None and number == step.after:  # message 0 holds no token
                    interrupt(step, over)
                    reader.check()
                    return
        finally:
            remembered.left(reader)

    def _opened(self, call: FakeCall, reader: Reader) -> tuple[Conversation, Remembered, Reader]:
        """The request as it is remembered, from now on at the latest; the reader has it."""
        request = call.request
        session = self._session(request)
        remembered = session.requests.get(request.request_id) if request.request_id else None
        if remembered is not None:
            remembered.check(request)
            if not remembered.take_over(reader) and not remembered.complete:
                remembered.claim = self._store.claim(session.session_id)
            return session, remembered, reader
        if request.HasField("resume_index"):
            raise RequestNotFound("There is no record of this request: it never arrived, or it is too long ago.")
        lease = self._store.claim(session.session_id)
        try:
            remembered = self._remembered(request, lease)
        except BaseException:
            lease.give_back()
            raise
        remembered.reader = reader
        return session, remembered, reader

    def _session(self, request: inference.GenerateRequest) -> Conversation:
        if request.session_id:
            return self._store.get(request.session_id)
        resumes = request.HasField("resume_index")
        if len(request.request_id) >= LIMITS.unique_id_length:
            return self._store.named(request.request_id, make=None if resumes else self._made)
        if resumes:
            raise RequestNotFound("There is no record of this request: session_id is missing.")
        return self._made()

    def _made(self) -> Conversation:
        return self._store.create(_DAY)

    def _remembered(self, request: inference.GenerateRequest, lease: Lease) -> Remembered:
        """A new request, with all of its answer."""
        number = next(self._numbers)
        session, earlier = lease.session, list(lease.session.tokens)
        checks.held(request, len(earlier))
        prompt = list(request.token_ids.ids) or self._model.tokenize(request.text, add_bos=not earlier)
        seed = request.sampling.seed if request.sampling.HasField("seed") else zlib.crc32(str(number).encode())
        messages = answer(self._model, [*earlier, *prompt], request, seed)
        last = messages[-1]
        last.usage.prompt_tokens = len(earlier) + len(prompt)
        last.usage.completion_tokens = len(messages) - 1
        last.usage.cached_tokens = len(earlier)
        for other in session.requests.values():
            other.cut = other.cut or not other.complete
        remembered = Remembered(content(request), seed, len(earlier), prompt, messages, lease)
        session.requests[request.request_id or f"fake-request-{number}"] = remembered
        return remembered

    def _answer(self, call: FakeCall, session: Conversation, remembered: Remembered, reader: Reader) -> Messages:
        request_id = next(name for name, known in session.requests.items() if known is remembered)
        index, trace_id = call.request.resume_index, _trace_id(call, next(self._traces))
        yield inference.GenerateResponse(
            index=index,
            session_id=session.session_id,
            request_id=request_id,
            trace_id=trace_id,
            seed=remembered.seed,
        )
        usage = remembered.answer[-1].usage
        counts = usage.prompt_tokens, usage.completion_tokens
        self._kept.add(FakeTrace(trace_id, request_id, _parent_id(call), *counts))
        yield from remembered.read(reader, index)


def _metadata(context: grpc.ServicerContext) -> dict[str, str]:
    return {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}


def _trace_id(call: FakeCall, number: int) -> str:
    """The caller's, where there is one (W3C: version-traceid-spanid-flags)."""
    parts = call.metadata.get("traceparent", "").split("-")
    return parts[1] if len(parts) == 4 else f"{number:032x}"


def _parent_id(call: FakeCall) -> str:
    parts = call.metadata.get("traceparent", "").split("-")
    return parts[2] if len(parts) == 4 else ""
