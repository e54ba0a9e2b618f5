"""What an API key looks like: made so that scanners for leaked secrets can find one, and so that a typing error shows.

    trireme_sk_ 0123456789ab _ <43 characters of 0-9A-Za-z> <6 characters>
    prefix      key id         256 random bits               CRC-32 of all before it

    regular expression for scanners:  trireme_sk_[0-9a-f]{12}_[0-9A-Za-z]{49}

Only the SHA-256 of a key is ever stored. A slow password hash would add nothing: nobody guesses 256 random bits.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import zlib

PREFIX = "trireme_sk_"
PATTERN = r"trireme_sk_[0-9a-f]{12}_[0-9A-Za-z]{49}"
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_KEY = re.compile(rf"{PREFIX}([0-9a-f]{{12}})_[0-9A-Za-z]{{49}}")
_SECRET, _CHECK = 43, 6


def new_key() -> tuple[str, str]:
    """(key id, key): the id may be shown, the key only once."""
    key_id = secrets.token_hex(6)
    body = f"{PREFIX}{key_id}_{_base62(secrets.randbits(256), _SECRET)}"
    return key_id, body + _checksum(body)


def key_id_of(key: str) -> str | None:
    """The id in a well-formed key; None where it has not the form of one, or its checksum is wrong."""
    found = _KEY.fullmatch(key)
    if found is None or _checksum(key[:-_CHECK]) != key[-_CHECK:]:
        return None
    return found[1]


def digest(key: str) -> bytes:
    """What is stored of a key: its SHA-256, 32 bytes."""
    return hashlib.sha256(key.encode()).digest()


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), _CHECK)


def _base62(number: int, length: int) -> str:
    digits = ""
    for _ in range(length):
        number, digit = divmod(number, len(_ALPHABET))
        digits = _ALPHABET[digit] + digits
    return digits
