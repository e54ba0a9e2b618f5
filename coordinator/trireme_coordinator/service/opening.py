"""From a Generate call to a reader of its answer: a new one, one that goes on, one that another call was given, or one
that is complete.

    session and request id  ->  runs here?       take it over
                                is complete?     replay it
                                was interrupted? go on behind its tokens
                                else             record it, and its prompt, and begin
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, replace

from trireme_coordinator.auth.identity import current
from trireme_coordinator.engine import Engine
from trireme_coordinator.scheduler import Finish, Sequence
from trireme_coordinator.service import requests
from trireme_coordinator.service.generation import Generation, SessionLog
from trireme_coordinator.service.looking import Looking
from trireme_coordinator.service.outbox import Outbox, beyond
from trireme_coordinator.service.runs import Reader, Run, usage
from trireme_coordinator.service.sessions import SessionGate
from trireme_coordinator.store import Loaded, RequestRecord, Start, new_session_id
from trireme_coordinator.store.records import check_whole
from trireme_coordinator.store.requests import CUT, kept, start_of
from trireme_coordinator.store.tenants import DEFAULT_TENANT, scoped, scoped_request, tag
from trireme_coordinator.telemetry import Layers, RequestTrace
from trireme_coordinator.text import StopMatcher, TextCodec
from trireme_proto.errors import (
    PipelineUnavailable,
    RequestConflict,
    RequestNotFound,
    RequestSuperseded,
    SessionBusy,
    SessionStoreUnavailable,
    TriremeError,
)
from trireme_proto.limits import LIMITS
from trireme_proto.v1 import inference_pb2 as pb

_ELSEWHERE_SECONDS = 0.5
"""After which to ask again for a session on which another coordinator generates."""


@dataclass(frozen=True, slots=True)
class Call:
    """A Generate call."""

    request: pb.GenerateRequest
    asked: requests.Asked
    content: str
    trace: RequestTrace
    tenant: str = DEFAULT_TENANT

    @property
    def index(self) -> int:
        """Where the answer is to begin."""
        return self.request.resume_index

    @property
    def resumes(self) -> bool:
        """Whether the caller knows that the request was sent before."""
        return self.request.HasField("resume_index")


@dataclass(frozen=True, slots=True)
class Opening:
    """Opens answers, with one engine."""

    engine: Engine
    codec: TextCodec
    gate: SessionGate
    bounds: requests.Bounds
    eos: frozenset[int]
    layers: Layers

    async def open(self, request: pb.GenerateRequest, asked: requests.Asked, trace: RequestTrace) -> Reader:
        """The reader, who has to `leave`. Raises what Generate raises before its first message."""
        call = Call(request, asked, requests.content(request), trace, current().tenant)
        if not request.session_id:
            return await self._without_session(call)
        requests.check_id("session_id", request.session_id)
        return await self._on(scoped(call.tenant, request.session_id), call)

    async def _without_session(self, call: Call) -> Reader:
        named = await self._named(call) if len(call.request.request_id) >= LIMITS.unique_id_length else None
        if named is not None:
            return await self._on(named, call, make=not call.resumes)
        if call.resumes:
            raise RequestNotFound("There is no record of this request: session_id is missing.")
        loaded = await self.gate.new(tag(call.tenant))
        return await self._on(loaded.record.session_id, call, loaded, make=True)

    async def _named(self, call: Call) -> str | None:
        """The session that a unique request id names; None where the store is away and the request begins without."""
        request = scoped_request(call.tenant, call.request.request_id)
        try:
            return await self.gate.store.name(request, scoped(call.tenant, new_session_id()))
        except SessionStoreUnavailable:
            if self.gate.required or call.resumes:
                raise
            return None

    async def _on(self, session_id: str, call: Call, loaded: Loaded | None = None, *, make: bool = False) -> Reader:
        """On one session; a session that is made for a request which is then refused does not stay."""
        run = self.gate.running(session_id)
        if run is not None and run.record.request_id == call.asked.request_id:
            return await self._taken_over(run, call)
        self.gate.claim(session_id)
        try:
            if loaded is None:
                loaded = await (self.gate.load_or_make if make else self.gate.load)(session_id)
            return await self._claimed(loaded, call)
        except BaseException:
            self.gate.release(session_id)
            if make and loaded is not None and loaded.stored and not loaded.fence:
                await self._unmade(session_id)
            raise

    async def _unmade(self, session_id: str) -> None:
        with suppress(TriremeError):  # it will expire
            if not (await self.gate.store.load(session_id)).fence:
                await self.gate.store.delete(session_id)

    async def _claimed(self, loaded: Loaded, call: Call) -> Reader:
        record = loaded.requests.get(call.asked.request_id)
        if record is not None:
            check_same(record, call)
            if record.complete:
                return await self._replayed(loaded, record, call)
        if loaded.owner not in {"", self.gate.owner.name}:
            raise SessionBusy(
                "Another coordinator is generating on this session, or was a moment ago; try again.",
                retry_after=_ELSEWHERE_SECONDS,
            )
        if record is not None:
            return await self._continued(loaded, record, call)
        if call.resumes:
            raise RequestNotFound("There is no record of this request: it never arrived, or it is too long ago.")
        return await self._new(loaded, call)

    # ---------------------------------------------------------------- the four ways

    async def _new(self, loaded: Loaded, call: Call) -> Reader:
        check_whole(loaded.record)
        earlier = loaded.tokens[: kept(loaded)]
        requests.check_held(call.request, len(earlier))
        prompt = await self._prompt(call.request, earlier)
        call.trace.tokenized()
        seed = call.asked.sampling.seed
        start, end = len(earlier), len(earlier) + len(prompt)
        record = RequestRecord(call.asked.request_id, call.content, start, end, seed)
        return await self._begun([*earlier, *prompt], record, start_of(loaded, record, prompt), loaded, call)

    async def _continued(self, loaded: Loaded, record: RequestRecord, call: Call) -> Reader:
        if record.state == CUT or len(loaded.tokens) < record.answer_start:
            raise RequestSuperseded("The session has gone on since this request was interrupted; send a new one.")
        call.trace.tokenized()
        start = Start(loaded.fence, len(loaded.tokens), put=[record])
        return await self._begun(loaded.tokens, record, start, loaded, call)

    async def _replayed(self, loaded: Loaded, record: RequestRecord, call: Call) -> Reader:
        """From the log; nobody generates, so the session is free."""
        session_id = loaded.record.session_id
        end = record.answer_start + record.answer_tokens
        if len(loaded.tokens) < end:
            raise RequestSuperseded("The session was taken back to before the end of this answer.")
        if call.index > record.answer_tokens:
            raise beyond(call.index, record.answer_tokens)
        call.trace.tokenized()
        outbox = self._outbox(loaded.tokens[: record.answer_start], call)
        await asyncio.to_thread(outbox.tokens, loaded.tokens[record.answer_start : end])
        outbox.finished(Finish(record.state))
        self.gate.release(session_id)
        cost = usage(record, record.answer_tokens, record.cached_tokens)
        return Reader(session_id, record, call.index, outbox, lambda: cost)

    async def _taken_over(self, run: Run, call: Call) -> Reader:
        check_same(run.record, call)
        self._check_index(run.record, call)
        outbox = self._outbox(run.sequence.tokens[: run.record.answer_start], call)
        await asyncio.to_thread(outbox.tokens, list(run.generation.token_ids))
        if self.gate.running(run.session_id) is not run:  # it ended meanwhile
            return await self._on(run.session_id, call)
        call.trace.tokenized()
        call.trace.queued()
        reader = run.read_by(outbox, call.index)
        run.generation.attach(outbox, call.trace)
        return reader

    # ---------------------------------------------------------------- what new ones and interrupted ones share

    async def _begun(
        self, tokens: list[int], record: RequestRecord, start: Start, loaded: Loaded, call: Call
    ) -> Reader:
        """Has the rest of an answer generated, once the store knows who generates it."""
        session_id, answered = loaded.record.session_id, tokens[record.answer_start :]
        most = self._check_index(record, call)
        sampling = replace(call.asked.sampling, seed=record.seed)
        ends = frozenset[int]() if call.request.ignore_eos else self.eos
        sequence = Sequence(tokens, sampling, most, ends, session_id, tag(call.tenant), answered=len(answered))
        sequence.priority, sequence.trace_id = call.asked.priority, call.trace.trace_id
        outbox = self._outbox(tokens[: record.answer_start], call)
        stopped = bool(answered) and await asyncio.to_thread(outbox.tokens, answered)
        log = SessionLog(self.gate.writer, session_id, len(tokens))
        looking = Looking(sequence, self.engine.clock).news
        generation = Generation(outbox, call.trace, log, self.layers, answered, looking)
        run = Run(session_id, record, sequence, generation, log, self.engine, self.gate.release)
        log.cached, log.on_close = run.cached, lambda: self.gate.owner.leave(session_id)
        reader = run.read_by(outbox, call.index)
        reason = self._ended(sequence, stopped=stopped)
        if reason is not None:
            generation.finished(reason)
        else:
            self._submit(sequence, generation, call.trace)
        try:
            stored = await self.gate.begin(loaded, start)
        except BaseException:
            self.engine.drop(sequence)
            raise
        self.gate.began(run)
        log.open(start.seen + 1, record, () if stored else start.prompt)
        return reader

    def _ended(self, sequence: Sequence, *, stopped: bool) -> Finish | None:
        """Why an answer that was interrupted is complete already, if it is."""
        if stopped:
            return Finish.STOP
        if sequence.generated >= sequence.max_tokens:
            return Finish.LENGTH
        return Finish.CONTEXT if len(sequence.tokens) >= self.bounds.context else None

    def _submit(self, sequence: Sequence, generation: Generation, trace: RequestTrace) -> None:
        trace.queued()
        if not self.engine.started:
            raise PipelineUnavailable("The stages are still starting; try again in a few seconds.", retry_after=2.0)
        self.engine.submit(sequence, generation)

    def _check_index(self, record: RequestRecord, call: Call) -> int:
        """Most tokens of the answer. InvalidRequest for an index that it cannot reach, PromptTooLong."""
        most = requests.max_tokens(call.request, self.bounds, record.answer_start)
        if call.index > (reach := min(most, self.bounds.context - record.answer_start)):
            raise beyond(call.index, reach)
        return most

    def _outbox(self, before: list[int], call: Call) -> Outbox:
        return Outbox(self.codec.stream(before), StopMatcher(call.asked.stops), call.index)

    async def _prompt(self, request: pb.GenerateRequest, earlier: list[int]) -> list[int]:
        """The prompt's tokens; a text at the start of a session gets the begin-of-text token in front."""
        if request.WhichOneof("prompt") == "token_ids":
            return list(request.token_ids.ids)
        room = self.bounds.context - len(earlier) - 1  # one is left for the answer
        return await asyncio.to_thread(self.codec.encode, request.text, not earlier, room)


def check_same(record: RequestRecord, call: Call) -> None:
    """RequestConflict unless the call asks for what the request of this id asked for."""
    sampling = call.request.sampling
    if call.content != record.content or (sampling.HasField("seed") and sampling.seed != record.seed):
        raise RequestConflict("The session has a request of this request_id already, with other content.")
