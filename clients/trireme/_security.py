"""Whether calls go by TLS, and whose certificates are shown and believed. Reads files; opens no channel.

TLS is on where a CA is given, the word `system` for the public ones, or a certificate of our own. Files are looked at
again for each call: after an exchange the next call opens a new channel, while answers under way keep theirs.
"""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike

from trireme import _config
from trireme_proto.certificates import SYSTEM_CA, CertificateFiles, Certificates

File = str | PathLike[str]


@dataclass(frozen=True, slots=True)
class Security:
    """`files` is None where calls go without TLS."""

    files: CertificateFiles | None = None

    @property
    def current(self) -> Certificates | None:
        """What a channel would be opened with now; another object after an exchange."""
        return None if self.files is None else self.files.current()


def security(ca: File | None, cert: File | None, key: File | None) -> Security:
    """From the arguments, each else from the environment (TRIREME_CA, TRIREME_CERT, TRIREME_KEY).
    ConfigurationError.
    """
    names = [_config.file_of(name, given) for name, given in (("CA", ca), ("CERT", cert), ("KEY", key))]
    if not any(names):
        return Security()
    return Security(CertificateFiles(names[0] or SYSTEM_CA, *names[1:]))
