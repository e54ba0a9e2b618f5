"""Exported sessions: whole or refused."""

from __future__ import annotations

import hashlib
import random
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from trireme_proto.archive import Archived, check_fits, from_bytes, to_bytes
from trireme_proto.errors import ArchiveDamaged, InvalidRequest, TriremeError, WrongModel
from trireme_proto.limits import LIMITS
from trireme_proto.v1.sessions_pb2 import SessionArchive

SESSION = Archived("tiny", "a" * 64, 60, datetime(2025, 1, 2, 3, 4, 5, 678901, tzinfo=UTC), (0, 1, 4095))
HEAD = b"TRIREME-SESSION\x01"


def sealed(body: bytes) -> bytes:
    """A well-formed frame around any body."""
    return HEAD + hashlib.sha256(body).digest() + body


def test_a_session_comes_back_as_it_was() -> None:
    for session in (SESSION, replace(SESSION, token_ids=()), replace(SESSION, token_ids=tuple(range(100_000)))):
        assert from_bytes(to_bytes(session)) == session


def test_every_changed_or_missing_byte_is_noticed() -> None:
    archive = to_bytes(SESSION)
    for at in range(len(archive)):
        with pytest.raises(ArchiveDamaged):
            from_bytes(archive[:at] + bytes([archive[at] ^ 0x10]) + archive[at + 1 :])
        with pytest.raises(ArchiveDamaged):
            from_bytes(archive[:at])
    with pytest.raises(ArchiveDamaged):
        from_bytes(archive + b"\x00")


def test_a_later_version_is_refused_by_its_number() -> None:
    with pytest.raises(ArchiveDamaged, match="version 2; this server reads version 1"):
        from_bytes(b"TRIREME-SESSION\x02" + to_bytes(SESSION)[len(HEAD) :])


@pytest.mark.parametrize("wrong", [{"ttl_seconds": 0}, {"ttl_seconds": 1 << 31}, {"pack_sha256": "A" * 64}], ids=str)
def test_a_field_out_of_its_range_is_refused(wrong) -> None:
    with pytest.raises(ArchiveDamaged, match="malformed"):
        from_bytes(to_bytes(replace(SESSION, **wrong)))


def test_a_time_that_there_is_not_is_refused() -> None:
    body = SessionArchive(pack_sha256="a" * 64, ttl_seconds=1, created={"seconds": 1 << 60}).SerializeToString()
    with pytest.raises(ArchiveDamaged, match="malformed"):
        from_bytes(sealed(body))


def test_more_tokens_than_any_session_has_are_refused() -> None:
    with pytest.raises(InvalidRequest, match=str(LIMITS.request_tokens)):
        from_bytes(to_bytes(replace(SESSION, token_ids=(1,) * (LIMITS.request_tokens + 1))))


def test_any_body_is_a_session_or_a_typed_error() -> None:
    random_ = random.Random(3)
    whole = to_bytes(SESSION)[len(HEAD) + 32 :]
    for _ in range(2000):
        body = bytearray(whole)
        for _ in range(random_.randrange(1, 6)):
            body[random_.randrange(len(body))] = random_.randrange(256)
        try:
            from_bytes(sealed(bytes(body[: random_.randrange(len(body) + 1)])))
        except TriremeError as error:
            assert str(error).startswith("archive")  # noqa: PT017


def fits(session: Archived) -> None:
    check_fits(session, pack_sha256="a" * 64, model="tiny", vocabulary=4096, context=3)


def test_only_what_the_server_can_go_on_with_fits() -> None:
    fits(SESSION)
    with pytest.raises(WrongModel, match="made with tiny"):
        fits(replace(SESSION, pack_sha256="b" * 64))
    with pytest.raises(WrongModel, match="made with a model"):
        fits(replace(SESSION, pack_sha256="b" * 64, model="\x1b[2J"))
    with pytest.raises(InvalidRequest, match="4 tokens; this server's context window has 3"):
        fits(replace(SESSION, token_ids=(1, 2, 3, 4)))
    with pytest.raises(InvalidRequest, match="vocabulary of 4096"):
        fits(replace(SESSION, token_ids=(4096,)))
