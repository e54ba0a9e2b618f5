"""What full pages are called in the page store: chains of keyed hashes, so that a page's key stands for all tokens up
to its end.

    key[n] = BLAKE2b(key[n - 1] | the 16 token ids of page n, uint32 little-endian; keyed with the tenant's secret)

Who does not know a tenant's secret cannot tell whether the tenant has been sent a text.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence

from trireme_coordinator.scheduler.prefix import PAGE_TOKENS

_BYTES = 32
_PAGE = struct.Struct(f"<{PAGE_TOKENS}I")


class PageKeys:
    """Makes keys. `secret`: the deployment's, from which those of tenants follow; ValueError where it is empty."""

    def __init__(self, secret: bytes) -> None:
        if not secret:
            raise ValueError("keys of pages need a secret")
        self._secret = secret

    def extend(self, keys: list[bytes], tenant: str, tokens: Sequence[int], pages: int) -> None:
        """Appends the keys of further pages of `tokens`, until there are `pages` of them."""
        if pages > len(keys):
            secret = hashlib.blake2b(tenant.encode(), key=self._secret, digest_size=_BYTES).digest()
            for n in range(len(keys), pages):
                page = _PAGE.pack(*tokens[PAGE_TOKENS * n : PAGE_TOKENS * (n + 1)])
                before = keys[-1] if keys else b""
                keys.append(hashlib.blake2b(before + page, key=secret, digest_size=_BYTES).digest())
