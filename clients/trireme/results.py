"""What calls return: frozen values, equal when their fields are.

Owns the shape of answers and sessions as users see them. Knows no protobuf, no gRPC and no clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class FinishReason(StrEnum):
    """Why an answer ended. A member is a string: `FinishReason.EOS == "eos"`."""

    EOS = "eos"
    """The model ended its text."""
    STOP = "stop"
    """One of the request's `stop` texts came up; it is not part of the text."""
    LENGTH = "length"
    """`max_tokens` were generated."""
    CONTEXT = "context"
    """The model's context window is full."""
    UNKNOWN = "unknown"
    """The server is newer than this client and gave a reason that the client has no word for."""


@dataclass(frozen=True, slots=True)
class TokenChunk:
    """A piece of an answer."""

    index: int
    """Index within the answer of the first of `token_ids` (of the next token, where there are none)."""
    token_ids: tuple[int, ...]
    """Mostly one id; none where only held-back text came."""
    text: str
    """Text that these tokens completed; a character that spans tokens comes with its last one."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a request cost, in tokens."""

    prompt_tokens: int
    """Tokens of the prompt, the session's earlier tokens included."""
    completion_tokens: int
    """Tokens generated."""
    cached_tokens: int
    """Those of `prompt_tokens` that did not have to be computed again."""


@dataclass(frozen=True, slots=True)
class Generation:
    """A whole answer."""

    token_ids: tuple[int, ...]
    text: str
    finish_reason: FinishReason
    usage: Usage
    session_id: str
    """Pass it as `session` to continue this conversation."""
    request_id: str
    trace_id: str
    """W3C trace id, 32 hexadecimal digits; operators find the request by it."""
    seed: int
    """With the same prompt and parameters, it gives the same tokens again."""
    ttft_s: float | None
    """Seconds from the call to the first token; None where the answer has none."""
    tokens_per_s: float | None
    """Tokens after the first message that held any, per second from its arrival to that of the last one. Where all came
    in one message: tokens per second of the whole call. None where the answer has none."""


@dataclass(frozen=True, slots=True)
class Session:
    """A conversation that the server keeps."""

    session_id: str
    created: datetime
    """UTC, as are the next two."""
    last_used: datetime
    expires: datetime
    """When it is forgotten unless it is used before."""
    token_count: int
    """Tokens held: prompts and answers."""
    model: str
    """Name of the model that it belongs to."""
    token_ids: tuple[int, ...] | None = None
    """The tokens themselves, where they were asked for."""
    missing_tokens: int = 0
    """Tokens at its end that the server could not store. Where there are some, `rewind` says from where to go on."""
