"""Python values to request messages. Both clients use it, so that nothing is written twice.

None means "not given" and leaves a field unset; zero is sent as zero. Ranges that belong to the model are the
server's to check; here only what a message cannot hold is refused, with the name of the parameter.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from dataclasses import asdict

from trireme.cluster import NodeSpec
from trireme_proto.errors import InvalidRequest, PromptTooLong
from trireme_proto.limits import LIMITS
from trireme_proto.v1 import cluster_pb2 as cluster
from trireme_proto.v1 import inference_pb2 as inference
from trireme_proto.v1 import sessions_pb2 as sessions
from trireme_proto.v1 import traces_pb2 as traces

DELETED = sessions.DeleteSessionResponse()


def generate(
    prompt: str | Sequence[int],
    *,
    max_tokens: int | None,
    temperature: float | None,
    top_k: int | None,
    top_p: float | None,
    seed: int | None,
    session: str | None,
    stop: str | Sequence[str],
    ignore_eos: bool | None,
    request_id: str | None,
    priority: int | None,
    trace_steps: bool | None = None,
) -> inference.GenerateRequest:
    """The request of one generation. Raises InvalidRequest, PromptTooLong."""
    request = inference.GenerateRequest(
        max_tokens=_unsigned("max_tokens", max_tokens, 32),
        sampling=inference.Sampling(
            temperature=temperature,
            top_k=_unsigned("top_k", top_k, 32),
            top_p=top_p,
            seed=_unsigned("seed", seed, 64),
        ),
        session_id=_text("session", session or ""),
        request_id=_text("request_id", request_id or ""),
        stop=[_text("stop", text) for text in ((stop,) if isinstance(stop, str) else stop)],
        ignore_eos=ignore_eos,
        priority=_unsigned("priority", priority, 32),
        trace_steps=trace_steps,
    )
    if isinstance(prompt, str):
        request.text = _text("prompt", prompt)
    else:
        request.token_ids.CopyFrom(inference.TokenIds(ids=_ids("prompt", prompt)))
    if request.ByteSize() > LIMITS.message_bytes:
        raise PromptTooLong(f"The prompt takes {request.ByteSize()} bytes; at most {LIMITS.message_bytes} can be sent.")
    return request


def tokenize(text: str, add_bos: bool) -> inference.TokenizeRequest:
    """Text to token ids. Raises InvalidRequest."""
    return inference.TokenizeRequest(text=_text("text", text), add_bos=add_bos)


def detokenize(ids: Iterable[int]) -> inference.DetokenizeRequest:
    """Token ids to text. Raises InvalidRequest."""
    return inference.DetokenizeRequest(token_ids=_ids("ids", ids))


def create_session(ttl_seconds: int | None) -> sessions.CreateSessionRequest:
    """A new session. Raises InvalidRequest."""
    return sessions.CreateSessionRequest(ttl_seconds=_unsigned("ttl_seconds", ttl_seconds, 32))


def get_session(session_id: str, include_tokens: bool) -> sessions.GetSessionRequest:
    """One session. Raises InvalidRequest."""
    return sessions.GetSessionRequest(session_id=_text("session_id", session_id), include_tokens=include_tokens)


def list_sessions(page_size: int | None, page_token: str) -> sessions.ListSessionsRequest:
    """One page of sessions. Raises InvalidRequest."""
    return sessions.ListSessionsRequest(page_size=_unsigned("page_size", page_size, 32), page_token=page_token)


def delete_session(session_id: str) -> sessions.DeleteSessionRequest:
    """The end of a session. Raises InvalidRequest."""
    return sessions.DeleteSessionRequest(session_id=_text("session_id", session_id))


def fork_session(session_id: str, at: int | None) -> sessions.ForkSessionRequest:
    """A copy of a session's first tokens. Raises InvalidRequest."""
    return sessions.ForkSessionRequest(session_id=_text("session_id", session_id), at=_unsigned("at", at, 32))


def rewind_session(session_id: str, at: int) -> sessions.RewindSessionRequest:
    """The end of a session's last tokens. Raises InvalidRequest."""
    return sessions.RewindSessionRequest(session_id=_text("session_id", session_id), at=_unsigned("at", at, 32) or 0)


def export_session(session_id: str) -> sessions.ExportSessionRequest:
    """A session as bytes. Raises InvalidRequest."""
    return sessions.ExportSessionRequest(session_id=_text("session_id", session_id))


def import_session(archive: bytes, ttl_seconds: int | None) -> sessions.ImportSessionRequest:
    """A session of bytes. Raises InvalidRequest."""
    request = sessions.ImportSessionRequest(archive=archive, ttl_seconds=_unsigned("ttl_seconds", ttl_seconds, 32))
    if request.ByteSize() > LIMITS.message_bytes:
        raise InvalidRequest(f"archive has {len(archive)} bytes; no exported session has as many.")
    return request


def status() -> cluster.StatusRequest:
    """The state of the server."""
    return cluster.StatusRequest()


def profile(seconds: float) -> cluster.ProfileRequest:
    """What holds the pipeline back."""
    return cluster.ProfileRequest(seconds=seconds)


def preview_placement(
    nodes: Iterable[NodeSpec], prompt_tokens: int | None, context_tokens: int | None
) -> cluster.PreviewPlacementRequest:
    """A plan for some machines. Raises InvalidRequest."""
    return cluster.PreviewPlacementRequest(
        nodes=[cluster.NodeSpec(**asdict(node)) for node in nodes],
        prompt_tokens=_unsigned("prompt_tokens", prompt_tokens, 32) or 0,
        context_tokens=_unsigned("context_tokens", context_tokens, 32) or 0,
    )


def list_traces(limit: int | None) -> traces.ListTracesRequest:
    """The recent requests. Raises InvalidRequest."""
    return traces.ListTracesRequest(limit=_unsigned("limit", limit, 32))


def get_trace(which: str) -> traces.GetTraceRequest:
    """One trace. Raises InvalidRequest."""
    return traces.GetTraceRequest(id=_text("id", which))


def _unsigned(name: str, value: int | None, bits: int) -> int | None:
    if value is None:
        return None
    number = operator.index(value)
    if not 0 <= number < 1 << bits:
        raise InvalidRequest(f"{name} must be a whole number from 0 to {(1 << bits) - 1}, not {number}.")
    return number


def _ids(name: str, ids: Iterable[int]) -> list[int]:
    numbers = [operator.index(number) for number in ids]
    if numbers and not (min(numbers) >= 0 and max(numbers) < 1 << 32):
        raise InvalidRequest(f"{name} must hold token ids from 0 to {(1 << 32) - 1}.")
    return numbers


def _text(name: str, text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"{name} is not valid Unicode text at character {error.start}.") from error
    return text
