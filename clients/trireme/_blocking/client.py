"""The blocking client: one method for each thing the server can do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Self

from trireme import _replies, _requests, _trace_replies
from trireme._blocking.connection import Connection
from trireme._blocking.stream import GenerationStream
from trireme._security import File, security
from trireme.cluster import NodeSpec, PlacementPreview, Status
from trireme.profiles import Profile
from trireme.results import Session
from trireme.traces import RecentTraces, RequestSpans


class Client:
    """A connection to a Trireme server, for code that blocks. Safe to share between threads.

    target: HOST:PORT, or several of servers that stand in for each other ("A:1,B:2" or a list); a name may stand for
    several too. Where not given, the environment's TRIREME_TARGET, else localhost:50051.
    timeout: seconds that a call may take unless it says otherwise; None: no limit.
    retries: how often a generation that the server refused with a time to come back is sent again.
    patience: seconds for which a server that was lost is looked for, at all addresses, while nothing comes. An answer
    goes on where it was, every token delivered once. 0: a loss is an error at once.
    api_key: sent with each call, where the server asks for one (a token of an identity provider does as well); else the
    environment's TRIREME_API_KEY. It goes to another machine only by TLS, unless insecure_api_key says otherwise.
    ca, cert, key: files (PEM). `ca`, or the word "system" for the public CAs: calls go by TLS, to a server whose
    certificate comes from it; `cert` and `key`: shown to a server that asks for a certificate. Where not given, the
    environment's TRIREME_CA, TRIREME_CERT and TRIREME_KEY. They may be exchanged while the client is in use.

    Close it, or use it as a context manager. Every method raises the errors of `trireme.errors`; each takes
    `timeout` in seconds for itself, where `math.inf` means no limit.
    """

    def __init__(
        self,
        target: str | Sequence[str] | None = None,
        *,
        timeout: float | None = 600.0,
        retries: int = 2,
        patience: float = 30.0,
        api_key: str | None = None,
        ca: File | None = None,
        cert: File | None = None,
        key: File | None = None,
        insecure_api_key: bool = False,
    ) -> None:
        self._connection = Connection(
            target, timeout, patience, security(ca, cert, key), api_key=api_key, insecure=insecure_api_key
        )
        self._retries = retries
        self.sessions = Sessions(self._connection)
        """The conversations that the server keeps."""

    @property
    def target(self) -> str:
        """What is called: HOST:PORT, several with commas between."""
        return str(self._connection.addresses)

    def generate(
        self,
        prompt: str | Sequence[int],
        *,
        max_tokens: int | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        session: str | None = None,
        stop: str | Sequence[str] = (),
        ignore_eos: bool | None = None,
        request_id: str | None = None,
        priority: int | None = None,
        trace_steps: bool | None = None,
        timeout: float | None = None,
    ) -> GenerationStream:
        """Continues the prompt (text, or token ids taken as they are) and returns the answer as a stream.

        max_tokens: at least 1; else as many as the context window holds.
        temperature: 0 (always the most probable token) to 100; not given, as the next two: the model's own default.
        top_k: keeps the k most probable tokens; 0 keeps all.
        top_p: keeps the smallest set of tokens with this probability; above 0, up to 1.
        seed: 0 to 2**64-1; the same prompt, parameters and seed give the same tokens. Else drawn by the server.
        session: id of the conversation to continue; else a new one is made.
        stop: up to 8 texts before the first of which the answer ends.
        ignore_eos: go on past the model's end of text.
        request_id: the caller's name for the request in logs and traces.
        priority: 0 to 9, else 5; among one's own requests higher ones go first.
        trace_steps: every decode step becomes a span of the request's trace.
        """
        request = _requests.generate(
            prompt,
            max_tokens=max_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            seed=seed,
            session=session,
            stop=stop,
            ignore_eos=ignore_eos,
            request_id=request_id,
            priority=priority,
            trace_steps=trace_steps,
        )
        return GenerationStream(self._connection, request, timeout=timeout, retries=self._retries)

    def tokenize(self, text: str, add_bos: bool = True, *, timeout: float | None = None) -> tuple[int, ...]:
        """Token ids of a text, exactly as `generate` makes them; with `add_bos`, as at the start of a session."""
        request = _requests.tokenize(text, add_bos)
        return tuple(self._connection.unary(lambda link: link.inference.Tokenize, request, timeout).token_ids)

    def detokenize(self, ids: Iterable[int], *, timeout: float | None = None) -> str:
        """Text of token ids, special tokens left out."""
        request = _requests.detokenize(ids)
        return self._connection.unary(lambda link: link.inference.Detokenize, request, timeout).text

    def status(self, *, timeout: float | None = None) -> Status:
        """What runs where, and how full it is."""
        reply = self._connection.unary(lambda link: link.cluster.Status, _requests.status(), timeout)
        return _replies.status(reply)

    def profile(self, seconds: float = 5.0, *, timeout: float | None = None) -> Profile:
        """Watches the pipeline for `seconds` (0.1 to 60) and says what holds it back. Changes nothing."""
        reply = self._connection.unary(lambda link: link.cluster.Profile, _requests.profile(seconds), timeout)
        return _replies.profile(reply)

    def preview_placement(
        self,
        nodes: Iterable[NodeSpec] = (),
        *,
        prompt_tokens: int | None = None,
        context_tokens: int | None = None,
        timeout: float | None = None,
    ) -> PlacementPreview:
        """What some machines would do with the model that is served; without any, those of the cluster itself. Changes
        nothing.

        prompt_tokens: of the prompt that the first token is predicted for. context_tokens: positions that each new
        token attends to. Raises InvalidRequest where the model does not fit, too.
        """
        request = _requests.preview_placement(nodes, prompt_tokens, context_tokens)
        reply = self._connection.unary(lambda link: link.cluster.PreviewPlacement, request, timeout)
        return _replies.placement(reply)

    def traces(self, limit: int | None = None, *, timeout: float | None = None) -> RecentTraces:
        """The last requests that the server answered, up to 1000 (else 20), and how long they took."""
        request = _requests.list_traces(limit)
        return _trace_replies.recent(self._connection.unary(lambda link: link.traces.ListTraces, request, timeout))

    def trace(self, which: str, *, timeout: float | None = None) -> tuple[RequestSpans, ...]:
        """Where the time of a trace's requests went; `which`: its id, or that of one request. Raises TraceNotFound."""
        request = _requests.get_trace(which)
        return _trace_replies.requests(self._connection.unary(lambda link: link.traces.GetTrace, request, timeout))

    def close(self) -> None:
        """Cancels what is under way and closes the connection."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class Sessions:
    """The conversations that the server keeps. Each expires after a time without use."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def create(self, ttl_seconds: int | None = None, *, timeout: float | None = None) -> Session:
        """An empty session, kept for `ttl_seconds` without use (up to 30 days; else the server's default)."""
        request = _requests.create_session(ttl_seconds)
        return _replies.session(self._connection.unary(lambda link: link.sessions.Create, request, timeout))

    def get(self, session_id: str, include_tokens: bool = False, *, timeout: float | None = None) -> Session:
        """One session, on request with its tokens. Raises SessionNotFound."""
        request = _requests.get_session(session_id, include_tokens)
        reply = self._connection.unary(lambda link: link.sessions.Get, request, timeout)
        return _replies.session(reply, with_tokens=include_tokens)

    def list(self, *, page_size: int | None = None, timeout: float | None = None) -> Iterator[Session]:
        """All sessions, the most recently used first; fetched page by page while iterating."""
        token = ""
        while True:
            request = _requests.list_sessions(page_size, token)
            page = self._connection.unary(lambda link: link.sessions.List, request, timeout)
            yield from map(_replies.session, page.sessions)
            token = page.next_page_token
            if not token:
                return

    def delete(self, session_id: str, *, timeout: float | None = None) -> None:
        """Forgets a session. Raises SessionNotFound, SessionBusy."""
        request = _requests.delete_session(session_id)
        self._connection.lengths.forget(session_id)
        self._connection.unary(lambda link: link.sessions.Delete, request, timeout, if_gone=_requests.DELETED)

    def fork(self, session_id: str, at: int | None = None, *, timeout: float | None = None) -> Session:
        """A new session of the first `at` tokens (else all) of another one, which stays as it is.

        Raises SessionNotFound; InvalidRequest beyond its end; SessionIncomplete where its end was not stored.
        """
        request = _requests.fork_session(session_id, at)
        return _replies.session(self._connection.unary(lambda link: link.sessions.Fork, request, timeout))

    def rewind(self, session_id: str, at: int, *, timeout: float | None = None) -> Session:
        """Keeps the first `at` tokens; the next request goes on as if there had never been more.

        Raises SessionNotFound, SessionBusy; InvalidRequest beyond its end.
        """
        request = _requests.rewind_session(session_id, at)
        self._connection.lengths.forget(session_id)
        return _replies.session(self._connection.unary(lambda link: link.sessions.Rewind, request, timeout))

    def export(self, session_id: str, *, timeout: float | None = None) -> bytes:
        """The session as bytes, for `import_` of any server with the same model.

        Raises SessionNotFound; SessionIncomplete where its end was not stored.
        """
        request = _requests.export_session(session_id)
        return (self._connection.unary(lambda link: link.sessions.Export, request, timeout)).archive

    def import_(self, archive: bytes, ttl_seconds: int | None = None, *, timeout: float | None = None) -> Session:
        """A new session of what `export` gave, kept for `ttl_seconds` without use (else as long as the exported one).

        Raises ArchiveDamaged; WrongModel; InvalidRequest where it is longer than the server's context window.
        """
        request = _requests.import_session(archive, ttl_seconds)
        return _replies.session(self._connection.unary(lambda link: link.sessions.Import, request, timeout))
