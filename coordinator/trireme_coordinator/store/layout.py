"""How a session lies in Redis, version 1. Pure: bytes in, values out; what comes back from Redis is data to be checked.

    trireme:1:session:{ID}          hash    created, last_used (microseconds since 1970), ttl (seconds),
                                            count (tokens), missing (tokens that could not be stored after them),
                                            model, pack (SHA-256, hexadecimal)
    trireme:1:session:{ID}:tokens   string  the token ids, uint32 little-endian, 4 bytes each
    trireme:1:session:{ID}:requests hash    by request id: its record (requests.py); #fence: the fencing number
    trireme:1:session:{ID}:owner    string  the coordinator that generates on the session; expires by itself
    trireme:1:request:HASH          string  ID of the session that a request without one was given, for an hour
    trireme:1:sessions:used         sorted set  ID by last_used; of a tenant with a tag: trireme:1:sessions:used:TAG
    trireme:1:leader:{NAME}         string  TOKEN OWNER: the coordinator that drives deployment NAME; expires
    trireme:1:leader:{NAME}:token   string  the highest fencing token given out so far
    trireme:1:leader:{NAME}:next    string  OWNER of a coordinator that stands by; expires
    trireme:1:sessions:expires      sorted set  ID by the time it expires; lets the index forget what Redis forgot

The braces are Redis's own: they keep all keys of a session on one node. Nothing is pickled, nothing is evaluated.
"""

from __future__ import annotations

import array
import base64
import binascii
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from trireme_coordinator.store.records import SessionRecord
from trireme_proto.errors import Internal, InvalidRequest
from trireme_proto.limits import LIMITS

PREFIX = "trireme:1:"
INDEX_USED = PREFIX + "sessions:used"
INDEX_EXPIRES = PREFIX + "sessions:expires"
KEY_PATTERN = "trireme:*"
"""Every key of ours; what a Redis user for Trireme must be allowed."""
COMMANDS = (
    *("auth", "hello", "ping", "multi", "exec", "discard", "watch", "unwatch"),
    *("hset", "hget", "hgetall", "hdel", "append", "get", "getrange", "set", "strlen", "del", "pexpire"),
    *("zadd", "zrem", "zrange", "info"),
)
"""Every command of ours, and of the metrics; no scripting, none that looks at other keys or settings."""

TOKEN_BYTES = 4
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIELDS = ("created", "last_used", "ttl", "count", "missing", "model", "pack")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NUMBER = re.compile(rb"[0-9]{1,18}")
_ID = re.compile(rb"(?:[0-9a-f]{32}\.)?[A-Za-z0-9_-]+")
_LAST_MICROS = 253_402_300_799_999_999
"""The last microsecond of the year 9999, where datetime ends."""

Hash = dict[str | bytes | bytearray | memoryview | int | float, str | bytes | bytearray | memoryview | int | float]
"""What redis takes as the fields of a hash."""


def session_key(session_id: str) -> str:
    """The key of the hash. `session_id` has been through `checked_id`."""
    return f"{PREFIX}session:{{{session_id}}}"


def tokens_key(session_id: str) -> str:
    """The key of the tokens. `session_id` has been through `checked_id`."""
    return session_key(session_id) + ":tokens"


def used_key(tag: str) -> str:
    """The key of the index of a tenant's sessions; `tag`: "" or 32 hexadecimal digits."""
    return f"{INDEX_USED}:{tag}" if tag else INDEX_USED


def leader_key(deployment: str) -> str:
    """The key of a deployment's lease. `deployment`: letters, digits and . _ or -."""
    return f"{PREFIX}leader:{{{deployment}}}"


def requests_key(session_id: str) -> str:
    """The key of the requests' records. `session_id` has been through `checked_id`."""
    return session_key(session_id) + ":requests"


def owner_key(session_id: str) -> str:
    """The key of the owner. `session_id` has been through `checked_id`."""
    return session_key(session_id) + ":owner"


def name_key(digest: str) -> str:
    """The key that leads from a request, by a hash of its id, to its session."""
    return f"{PREFIX}request:{digest}"


def micros(when: datetime) -> int:
    """Whole microseconds since 1970."""
    return (when - _EPOCH) // timedelta(microseconds=1)


def to_hash(record: SessionRecord) -> Hash:
    """The fields of the hash."""
    return {
        "created": micros(record.created),
        "last_used": micros(record.last_used),
        "ttl": record.ttl_seconds,
        "count": record.token_count,
        "missing": record.missing,
        "model": record.model,
        "pack": record.pack_sha256,
    }


def from_hash(session_id: str, fields: Mapping[bytes, bytes]) -> SessionRecord:
    """The record in a hash. Internal where the hash is not one that `to_hash` makes."""
    if set(fields) | {b"missing"} != {name.encode() for name in _FIELDS}:
        raise damaged()
    pack, model = _text(fields[b"pack"]), _text(fields[b"model"])
    if not _SHA256.fullmatch(pack):
        raise damaged()
    return SessionRecord(
        session_id=session_id,
        created=_time(fields[b"created"]),
        last_used=_time(fields[b"last_used"]),
        token_count=_number(fields[b"count"], LIMITS.request_tokens),
        model=model,
        pack_sha256=pack,
        ttl_seconds=_number(fields[b"ttl"], LIMITS.session_ttl_seconds),
        missing=_number(fields.get(b"missing", b"0"), LIMITS.request_tokens),
    )


def pack_tokens(token_ids: Sequence[int]) -> bytes:
    """uint32 little-endian, 4 bytes a token."""
    packed = array.array("I", token_ids)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def unpack_tokens(raw: bytes, count: int, vocabulary: int) -> list[int]:
    """Exactly `count` token ids, each in [0, vocabulary). Internal where the bytes are anything else."""
    if len(raw) != count * TOKEN_BYTES:
        raise damaged()
    packed = array.array("I")
    packed.frombytes(raw)
    if sys.byteorder == "big":
        packed.byteswap()
    if packed and max(packed) >= vocabulary:
        raise damaged()
    return packed.tolist()


def to_page_token(score: int, session_id: str) -> str:
    """Names the last entry of a page: the next page begins after it."""
    return base64.urlsafe_b64encode(f"{score}:{session_id}".encode()).decode()


def from_page_token(page_token: str) -> tuple[int, str]:
    """(score, session id) of the last entry of the page before. InvalidRequest where it is no token of ours."""
    try:
        score, _, session_id = base64.b64decode(page_token, altchars=b"-_", validate=True).partition(b":")
    except (ValueError, binascii.Error):
        score, session_id = b"", b""
    if not _NUMBER.fullmatch(score) or not _ID.fullmatch(session_id):
        raise InvalidRequest("page_token must be the next_page_token of the page before.")
    return int(score), session_id.decode()


def damaged() -> Internal:
    """The one sentence for values in Redis that are not ours."""
    return Internal("The stored session is damaged.")


def _number(raw: bytes, highest: int) -> int:
    if not _NUMBER.fullmatch(raw) or int(raw) > highest:
        raise damaged()
    return int(raw)


def _time(raw: bytes) -> datetime:
    return _EPOCH + timedelta(microseconds=_number(raw, _LAST_MICROS))


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise damaged() from None
