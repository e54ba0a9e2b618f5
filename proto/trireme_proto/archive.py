"""An exported session as bytes, version 1: one file that tells whether it is whole. Knows no store and no server.

    b"TRIREME-SESSION" | version, 1 byte | SHA-256 of the rest, 32 bytes | SessionArchive (sessions.proto)

What comes in is data from anywhere: its size, its checksum and every field are checked before anything is used.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime

from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from trireme_proto.errors import ArchiveDamaged, InvalidRequest, WrongModel
from trireme_proto.limits import LIMITS
from trireme_proto.v1.sessions_pb2 import SessionArchive

_MAGIC = b"TRIREME-SESSION"
_VERSION = 1
_DIGEST_BYTES = 32
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Archived:
    """What an archive holds."""

    model: str
    pack_sha256: str
    """SHA-256 of the pack's manifest, hexadecimal."""
    ttl_seconds: int
    """In [1, LIMITS.session_ttl_seconds]."""
    created: datetime
    """UTC."""
    token_ids: tuple[int, ...]


def to_bytes(session: Archived) -> bytes:
    """The archive of a session."""
    created = Timestamp()
    created.FromDatetime(session.created)
    body = SessionArchive(
        model=session.model,
        pack_sha256=session.pack_sha256,
        ttl_seconds=session.ttl_seconds,
        created=created,
        token_ids=session.token_ids,
    ).SerializeToString()
    return _MAGIC + bytes([_VERSION]) + hashlib.sha256(body).digest() + body


def from_bytes(archive: bytes) -> Archived:
    """The session in an archive. ArchiveDamaged where it is not one, of a later version or changed.

    InvalidRequest where it holds more tokens than any session may.
    """
    at = len(_MAGIC)
    if not archive.startswith(_MAGIC) or len(archive) < at + 1 + _DIGEST_BYTES:
        raise ArchiveDamaged("archive: this is not an exported session.")
    if archive[at] != _VERSION:
        raise ArchiveDamaged(f"archive: it has version {archive[at]}; this server reads version {_VERSION}.")
    digest, body = archive[at + 1 : at + 1 + _DIGEST_BYTES], archive[at + 1 + _DIGEST_BYTES :]
    if hashlib.sha256(body).digest() != digest:
        raise ArchiveDamaged("archive: the exported session is damaged; its checksum does not fit.")
    return _checked(body)


def check_fits(session: Archived, *, pack_sha256: str, model: str, vocabulary: int, context: int) -> None:
    """WrongModel for another pack's; InvalidRequest for more tokens than the context or one that the model lacks."""
    if session.pack_sha256 != pack_sha256:
        raise WrongModel(
            f"archive: the session was made with {_shown(session.model)}; what is served is another pack ({model})."
        )
    if len(session.token_ids) > context:
        raise InvalidRequest(
            f"archive: the session has {len(session.token_ids)} tokens; this server's context window has {context}."
        )
    if session.token_ids and max(session.token_ids) >= vocabulary:
        raise InvalidRequest(f"archive: a token id is not in the vocabulary of {vocabulary} tokens.")


def _checked(body: bytes) -> Archived:
    try:
        message = SessionArchive.FromString(body)
        created = message.created.ToDatetime(UTC)
    except (DecodeError, ValueError, OverflowError):
        raise _malformed() from None
    if not 1 <= message.ttl_seconds <= LIMITS.session_ttl_seconds or not _SHA256.fullmatch(message.pack_sha256):
        raise _malformed()
    if len(message.token_ids) > LIMITS.request_tokens:
        raise InvalidRequest(f"archive: a session can have at most {LIMITS.request_tokens} tokens.")
    return Archived(message.model, message.pack_sha256, message.ttl_seconds, created, tuple(message.token_ids))


def _malformed() -> ArchiveDamaged:
    return ArchiveDamaged("archive: the exported session is malformed.")


def _shown(name: str) -> str:
    return name if name.isprintable() and 0 < len(name) <= LIMITS.id_length else "a model"
