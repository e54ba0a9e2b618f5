"""What the fake server refuses, as the real one does: the ranges of the public API. Pure functions over messages."""

from __future__ import annotations

import re
from collections.abc import Iterable

from trireme.testing.model import FakeModel
from trireme_proto.errors import InvalidRequest, PromptTooLong, SessionIncomplete
from trireme_proto.limits import LIMITS
from trireme_proto.v1 import inference_pb2 as inference
from trireme_proto.v1 import sessions_pb2 as sessions

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]*")


def generate(request: inference.GenerateRequest, model: FakeModel) -> None:
    """Raises InvalidRequest for the first field that is out of its range."""
    if request.WhichOneof("prompt") is None:
        raise InvalidRequest("prompt must be given.")
    if request.HasField("token_ids") and not request.token_ids.ids:
        raise InvalidRequest("prompt must hold at least one token.")
    if len(request.text.encode()) > LIMITS.prompt_bytes:
        raise PromptTooLong(f"The prompt must be at most {LIMITS.prompt_bytes} bytes long.")
    token_ids(request.token_ids.ids, model)
    if request.HasField("max_tokens") and not 1 <= request.max_tokens <= model.context:
        raise InvalidRequest(f"max_tokens must be from 1 to {model.context}, not {request.max_tokens}.")
    _sampling(request.sampling, model)
    _names(request)
    if len(request.stop) > LIMITS.stop_texts or not all(
        1 <= len(s.encode()) <= LIMITS.stop_bytes for s in request.stop
    ):
        raise InvalidRequest(f"stop must be at most {LIMITS.stop_texts} texts of 1 to {LIMITS.stop_bytes} bytes.")


def _names(request: inference.GenerateRequest) -> None:
    if len(request.request_id) > LIMITS.id_length or not _REQUEST_ID.fullmatch(request.request_id):
        raise InvalidRequest("request_id must be up to 128 characters of A-Z, a-z, 0-9 and ._:-")
    if len(request.session_id) > LIMITS.id_length:
        raise InvalidRequest("session_id must be up to 128 characters long.")


def _sampling(sampling: inference.Sampling, model: FakeModel) -> None:
    if not 0 <= sampling.temperature <= LIMITS.temperature:
        raise InvalidRequest(f"temperature must be from 0 to {LIMITS.temperature:g}, not {sampling.temperature:g}.")
    if sampling.top_k > model.vocabulary:
        raise InvalidRequest(f"top_k must be from 0 to {model.vocabulary}, not {sampling.top_k}.")
    if sampling.HasField("top_p") and not 0 < sampling.top_p <= 1:
        raise InvalidRequest(f"top_p must be above 0 and up to 1, not {sampling.top_p:g}.")


def token_ids(ids: Iterable[int], model: FakeModel) -> None:
    """Raises InvalidRequest for an id outside of the vocabulary."""
    if any(number >= model.vocabulary for number in ids):
        raise InvalidRequest(f"Token ids must be from 0 to {model.vocabulary - 1}.")


def held(request: inference.GenerateRequest, tokens: int) -> None:
    """Raises SessionIncomplete where the session holds fewer tokens than the caller saw."""
    if tokens < request.session_tokens:
        raise SessionIncomplete(
            f"The session holds {tokens} tokens where its last answer ended at {request.session_tokens}."
        )


def session_ttl(request: sessions.CreateSessionRequest | sessions.ImportSessionRequest) -> None:
    """Raises InvalidRequest for a lifetime out of its range."""
    if request.HasField("ttl_seconds") and not 1 <= request.ttl_seconds <= LIMITS.session_ttl_seconds:
        raise InvalidRequest(f"ttl_seconds must be from 1 to {LIMITS.session_ttl_seconds}, not {request.ttl_seconds}.")


def list_sessions(request: sessions.ListSessionsRequest) -> None:
    """Raises InvalidRequest for a page out of its range."""
    if request.HasField("page_size") and not 1 <= request.page_size <= LIMITS.page_size:
        raise InvalidRequest(f"page_size must be from 1 to {LIMITS.page_size}, not {request.page_size}.")
