"""GenerateRequest to what the engine needs: every field checked against its bound, every default filled in."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from trireme_coordinator.scheduler import SamplingParams
from trireme_proto.errors import InvalidRequest, PromptTooLong, SessionIncomplete
from trireme_proto.limits import LIMITS
from trireme_proto.v1 import inference_pb2 as pb

_PRIORITY = 5
_ID = re.compile(r"[A-Za-z0-9._:-]+")


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the model and this server allow, and the model's own defaults."""

    vocabulary: int
    context: int
    temperature: float
    top_k: int
    top_p: float


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks for, apart from its prompt; every default filled in."""

    request_id: str
    sampling: SamplingParams
    stops: list[str]
    priority: int


def read(request: pb.GenerateRequest, bounds: Bounds) -> Asked:
    """Checks all that can be checked before the session's tokens are known. InvalidRequest, PromptTooLong."""
    check_prompt(request, bounds)
    check_max_tokens(request, bounds)
    request_id = request.request_id or secrets.token_hex(8)
    check_id("request_id", request_id)
    return Asked(request_id, sampling(request, bounds, secrets.randbits(64)), stops(request), priority(request))


def content(request: pb.GenerateRequest) -> str:
    """SHA-256 of what is asked for, hexadecimal: the same for the same request however often it is sent.

    The seed is not part of it, because one that was drawn need not be sent again.
    """
    bare = pb.GenerateRequest()
    bare.CopyFrom(request)
    for name in ("session_id", "request_id", "resume_index", "trace_steps", "session_tokens"):
        bare.ClearField(name)
    bare.sampling.ClearField("seed")
    if not bare.sampling.ByteSize():
        bare.ClearField("sampling")
    return hashlib.sha256(bare.SerializeToString(deterministic=True)).hexdigest()


def check_prompt(request: pb.GenerateRequest, bounds: Bounds) -> None:
    """InvalidRequest unless there is a prompt within its bounds."""
    kind = request.WhichOneof("prompt")
    if kind is None:
        raise InvalidRequest("prompt is missing: give text or token_ids.")
    if kind == "text":
        check_text(request.text)
    else:
        check_token_ids(request.token_ids.ids, bounds.vocabulary)


def check_held(request: pb.GenerateRequest, held: int) -> None:
    """SessionIncomplete where the session holds fewer tokens than the caller saw, and is another conversation then."""
    if held < request.session_tokens:
        raise SessionIncomplete(
            f"The session holds {held} tokens where its last answer ended at {request.session_tokens}: the end was not "
            f"stored in time; send the request again to go on from the {held}."
        )


def check_text(text: str) -> None:
    """PromptTooLong for a text beyond the bound on its bytes."""
    if (size := len(text.encode())) > LIMITS.prompt_bytes:
        raise PromptTooLong(f"text has {size} bytes; at most {LIMITS.prompt_bytes} are allowed.")


def check_token_ids(ids: Sequence[int], vocabulary: int) -> None:
    """InvalidRequest for an id outside the vocabulary, PromptTooLong for more of them than allowed."""
    if len(ids) > LIMITS.request_tokens:
        raise PromptTooLong(f"{len(ids)} token ids were given; at most {LIMITS.request_tokens} are allowed.")
    if ids and max(ids) >= vocabulary:
        raise InvalidRequest(f"token id {max(ids)} is not in the vocabulary of {vocabulary} tokens.")


def sampling(request: pb.GenerateRequest, bounds: Bounds, seed: int) -> SamplingParams:
    """The sampling parameters, the model's defaults where none are given; `seed` where the request has none."""
    s = request.sampling
    temperature = s.temperature if s.HasField("temperature") else bounds.temperature
    top_k = s.top_k if s.HasField("top_k") else bounds.top_k
    top_p = s.top_p if s.HasField("top_p") else bounds.top_p
    _within("temperature", temperature, 0, LIMITS.temperature)
    _within("top_k", top_k, 0, bounds.vocabulary)
    if not 0 < top_p <= 1:  # also refuses NaN
        raise InvalidRequest(f"top_p is {_shown(top_p)}; it must be above 0 and at most 1.")
    return SamplingParams(temperature, top_k, top_p, s.seed if s.HasField("seed") else seed)


def check_max_tokens(request: pb.GenerateRequest, bounds: Bounds) -> None:
    """InvalidRequest where more tokens are asked for than any answer can have, or none."""
    if request.HasField("max_tokens"):
        _within("max_tokens", request.max_tokens, 1, bounds.context)


def max_tokens(request: pb.GenerateRequest, bounds: Bounds, prompt_tokens: int) -> int:
    """Most tokens to generate: what was asked for, else a context's worth, so that the full window ends the answer.
    PromptTooLong: no room for one.
    """
    if prompt_tokens < 1:
        raise InvalidRequest("the prompt is empty and the model has no token to begin with.")
    if prompt_tokens >= bounds.context:
        raise PromptTooLong(
            f"the prompt has {prompt_tokens} tokens; prompt and answer together can have {bounds.context}, "
            f"so at most {bounds.context - 1} are left for the prompt."
        )
    return request.max_tokens if request.HasField("max_tokens") else bounds.context


def stops(request: pb.GenerateRequest) -> list[str]:
    """The stop texts."""
    if len(request.stop) > LIMITS.stop_texts:
        raise InvalidRequest(f"{len(request.stop)} stop texts were given; at most {LIMITS.stop_texts} are allowed.")
    for text in request.stop:
        if not 1 <= len(text.encode()) <= LIMITS.stop_bytes:
            raise InvalidRequest(f"a stop text has {len(text.encode())} bytes; it must have 1 to {LIMITS.stop_bytes}.")
    return list(request.stop)


def priority(request: pb.GenerateRequest) -> int:
    """The priority, the middle one where none is given."""
    if not request.HasField("priority"):
        return _PRIORITY
    _within("priority", request.priority, 0, LIMITS.priority)
    return request.priority


def check_id(name: str, value: str) -> None:
    """InvalidRequest unless `value` is a well-formed id."""
    if len(value) > LIMITS.id_length or not _ID.fullmatch(value):
        raise InvalidRequest(f"{name} must be 1 to {LIMITS.id_length} characters of A-Z, a-z, 0-9 and . _ : -")


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:  # also refuses NaN
        raise InvalidRequest(f"{name} is {_shown(value)}; it must be {_shown(low)} to {_shown(high)}.")


def _shown(value: float) -> str:
    return f"{value:.9g}" if isinstance(value, float) else str(value)
