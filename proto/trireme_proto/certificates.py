"""Certificates and keys in files, and the gRPC credentials made of them. Shared by server, stages and clients.

Files may be exchanged while we run: whoever shakes hands next uses the new ones. A set of files that does not fit
together is one that is being exchanged, or a mistake: at the start it is an error, later the last good set stays in use
and the log says so. No path and no key ever appears in a message. Knows nothing of who may do what.
"""

from __future__ import annotations

import logging
import os
import ssl
import threading
from dataclasses import dataclass
from pathlib import Path

import grpc

from trireme_proto.errors import ConfigurationError

_log = logging.getLogger(__name__)
SYSTEM_CA = "system"
"""In place of a CA's file: the public CAs that gRPC comes with."""
_MOST_BYTES = 1 << 20
_State = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Certificates:
    """PEM, as read. None: not given."""

    ca: bytes | None
    """Of the CAs that the peer's certificate must come from."""
    cert: bytes | None
    key: bytes | None


class CertificateFiles:
    """A set of files that is looked at again whenever it is used. May be used by several threads."""

    def __init__(self, ca: str = "", cert: str = "", key: str = "") -> None:
        """Empty: not given. ConfigurationError where a file cannot be used, or where certificate and key are not one
        pair.
        """
        if bool(cert) != bool(key):
            raise ConfigurationError("A TLS certificate and its key belong together: give both files, or none.")
        self._ca, self._cert, self._key = ca, cert, key
        self._lock = threading.Lock()
        self._seen = self._state()
        self._good = self._read()

    def current(self) -> Certificates:
        """The files as they are now; as they were when they last fitted together where they do not."""
        with self._lock:
            if (state := self._state()) != self._seen:
                self._seen = state
                self._exchange()
            return self._good

    def _exchange(self) -> None:
        try:
            self._good = self._read()
        except ConfigurationError as error:
            _log.warning("the new certificates are not used: %s", error.message)
        else:
            _log.info("new certificates are in use")

    def _state(self) -> _State:
        """Changes when a file does, or its owner or mode, by which it may be read, or the link that leads to it."""
        found = [_stat(name) for name in (self._ca, self._cert, self._key) if name and name != SYSTEM_CA]
        return tuple((each.st_ctime_ns, each.st_size, each.st_ino) if each else (0, 0, 0) for each in found)

    def _read(self) -> Certificates:
        ca = None if self._ca == SYSTEM_CA else _content(self._ca, "CA certificate")
        found = Certificates(ca, _content(self._cert, "certificate"), _content(self._key, "key"))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if found.ca is not None:
            _check_ca(context, found.ca)
        if found.cert is not None:
            self._check_pair(context)
        if _content(self._cert, "certificate") != found.cert or _content(self._key, "key") != found.key:
            raise ConfigurationError("The TLS certificate and key are being exchanged; try again.")
        return found

    def _check_pair(self, context: ssl.SSLContext) -> None:
        try:
            context.load_cert_chain(self._cert, self._key, password=lambda: b"")  # without it OpenSSL asks the terminal
        except (ssl.SSLError, ValueError) as error:
            if getattr(error, "reason", "") == "KEY_VALUES_MISMATCH":
                raise ConfigurationError("The TLS certificate and the TLS key are not of one pair.") from None
            raise ConfigurationError("The TLS certificate or key is no PEM file, or its key has a password.") from None


def server_credentials(files: CertificateFiles, *, clients: bool) -> grpc.ServerCredentials:
    """For a port: the files as they are at each handshake. `clients`: they must show a certificate of the CA."""
    used = files.current()

    def exchanged() -> grpc.ServerCertificateConfiguration | None:
        nonlocal used
        if (now := files.current()) is used:
            return None
        used = now
        return _configuration(now)

    return grpc.dynamic_ssl_server_credentials(_configuration(used), exchanged, clients)  # type: ignore[arg-type]  # None: as before


def channel_credentials(certificates: Certificates) -> grpc.ChannelCredentials:
    """For one channel, which keeps them: a new set wants a new channel."""
    return grpc.ssl_channel_credentials(certificates.ca, certificates.key, certificates.cert)


def _configuration(found: Certificates) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(found.key or b"", found.cert or b"")], found.ca)


def _stat(name: str) -> os.stat_result | None:
    try:
        return Path(name).stat()
    except OSError:
        return None


def _content(name: str, what: str) -> bytes | None:
    if not name:
        return None
    try:
        with Path(name).open("rb") as file:
            found = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"The TLS {what} cannot be read: {(error.strerror or 'no file').lower()}.") from None
    if not found.strip() or len(found) > _MOST_BYTES:
        raise ConfigurationError(f"The TLS {what} is no PEM file.")
    return found


def _check_ca(context: ssl.SSLContext, pem: bytes) -> None:
    try:
        context.load_verify_locations(cadata=pem.decode("ascii"))
    except (ssl.SSLError, ValueError):
        raise ConfigurationError("The TLS CA certificate is no PEM file.") from None
