"""The settings of `serve` about TLS, and what is made of them. Joins config.py and the command line; see options.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import quote

from trireme_coordinator.options import text
from trireme_proto.certificates import CertificateFiles
from trireme_proto.errors import ConfigurationError


@dataclass(frozen=True)
class TlsOptions:
    """A part of ServeConfig. The files may be exchanged while the server runs."""

    tls_cert: str = field(
        default="", metadata=text("Certificate of the server, PEM, with those between it and its CA.")
    )
    tls_key: str = field(default="", metadata=text("Its key, PEM, without a password."))
    tls_client_ca: str = field(
        default="", metadata=text("CA of the clients, PEM: who shows no certificate of it is refused.")
    )
    stage_tls_dir: str = field(
        default="",
        metadata=text("Folder with ca.crt, tls.crt and tls.key for the links between stages; the same on every node."),
    )
    redis_ca: str = field(
        default="", metadata=text("CA of a rediss:// server, PEM; the same file on every node. Default: the system's.")
    )
    insecure_no_auth: bool = field(
        default=False, metadata=text("Let anybody who can reach a non-loopback address use the model.")
    )
    insecure_no_tls: bool = field(
        default=False,
        metadata=text("Listen on a non-loopback address without TLS: something in front of it does that."),
    )
    insecure_no_stage_tls: bool = field(
        default=False, metadata=text("Link stages on several machines without TLS: nobody else reaches their network.")
    )


def check_tls(options: TlsOptions) -> None:
    """ConfigurationError where settings contradict each other."""
    if bool(options.tls_cert) != bool(options.tls_key):
        raise ConfigurationError("tls-cert and tls-key belong together: give both, or none.")
    if options.tls_client_ca and not options.tls_cert:
        raise ConfigurationError("tls-client-ca needs tls-cert and tls-key: without TLS clients show no certificates.")


def public_files(options: TlsOptions) -> CertificateFiles | None:
    """The files of the public server; None without TLS. ConfigurationError."""
    if not options.tls_cert:
        return None
    return CertificateFiles(options.tls_client_ca, options.tls_cert, options.tls_key)


def redis_url_with_ca(url: str, ca: str) -> str:
    """The URL, with the CA that its server's certificate must come from. ConfigurationError."""
    if not ca:
        return url
    if not url.startswith("rediss://"):
        raise ConfigurationError("redis-ca needs a redis-url that begins with rediss://.")
    CertificateFiles(ca)
    return f"{url}{'&' if '?' in url else '?'}ssl_ca_certs={quote(ca)}"
