"""Certificates to begin with: a CA of one's own, and from it one for the server, one for a client, one for stages.

    DIR/ca.crt      ca.key       the CA; keep its key away from servers
    DIR/server.crt  server.key   serve --tls-cert, --tls-key; for the names and addresses that clients call
    DIR/client.crt  client.key   clients with --cert, --key, where serve has --tls-client-ca
    DIR/stage/      ca.crt tls.crt tls.key: serve --stage-tls-dir, the same folder on every node

What is there is never written over: a new certificate comes by removing the old pair first. Keys are for their owner
alone (0600). Production has a CA of its own, such as cert-manager's; it needs nothing of this.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from trireme_proto.errors import ConfigurationError
from trireme_worker.stage_links import STAGE_NAME

_CA_DAYS = 3650
_EARLIER = dt.timedelta(minutes=5)
"""By which a certificate is valid before now: other machines' clocks differ."""
_NAME = re.compile(r"(\*\.)?[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*")
_LONGEST_NAME = 64
_SERVER, _CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA that can sign."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def pem(self) -> bytes:
        """Its certificate."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)


@dataclass(frozen=True, slots=True)
class _Leaf:
    stem: str
    """Of its files in the folder."""
    names: Sequence[str]
    uses: Sequence[x509.ObjectIdentifier]


def make_certificates(folder: Path, names: Sequence[str], client: str, days: int) -> list[Path]:
    """Makes what is missing in the folder; the files that were made. `names`: DNS names and addresses of the server;
    `client`: name of the client. ConfigurationError, OSError.
    """
    leaves = [
        _Leaf("server", names, [_SERVER]),
        _Leaf("client", [client], [_CLIENT]),
        _Leaf("stage/tls", [STAGE_NAME], [_SERVER, _CLIENT]),
    ]
    for name in (*names, client):
        _check(name)
    whole = [stem for stem in ("ca", "server", "client", "stage/tls") if _whole(folder, stem)]
    for each in (folder, folder / "stage"):
        each.mkdir(mode=0o700, parents=True, exist_ok=True)
    made: list[Path] = []
    authority = _load(folder) if "ca" in whole else _made_authority(folder, made)
    if not (shared := folder / "stage" / "ca.crt").exists():
        made.append(_write(shared, authority.pem(), 0o644))
    for leaf in leaves:
        if leaf.stem not in whole:
            made += _write_pair(folder / leaf.stem, *issue(authority, leaf.names, leaf.uses, days))
    return made


def new_authority(days: int = _CA_DAYS) -> Authority:
    """A CA that nobody has seen before."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("Trireme development CA")
    builder = _builder(name, name, key.public_key(), days)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(sign=True), critical=True)
    return Authority(builder.sign(key, hashes.SHA256()), key)


def issue(
    authority: Authority, names: Sequence[str], uses: Sequence[x509.ObjectIdentifier], days: int
) -> tuple[bytes, bytes]:
    """A certificate for these names and its key, PEM. The first name is its common name."""
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = authority.certificate
    builder = _builder(_name(names[0]), issuer.subject, key.public_key(), days)
    builder = builder.add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(sign=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage(list(uses)), critical=False)
    from_issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    builder = builder.add_extension(from_issuer, critical=False)
    certificate = builder.sign(authority.key, hashes.SHA256())
    return certificate.public_bytes(serialization.Encoding.PEM), _pem(key)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    begins = dt.datetime.now(dt.UTC) - _EARLIER
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + _EARLIER + dt.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign,
        crl_sign=sign,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _general(name: str) -> x509.GeneralName:
    with suppress(ValueError):
        return x509.IPAddress(ipaddress.ip_address(name))
    return x509.DNSName(name)


def _check(name: str) -> None:
    if name.lower() == STAGE_NAME:
        raise ConfigurationError(f"'{STAGE_NAME}' is the name of stages; no other certificate may have it.")
    with suppress(ValueError):
        ipaddress.ip_address(name)
        return
    if len(name) > _LONGEST_NAME or not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"'{name[:_LONGEST_NAME]}' is neither a DNS name of up to 64 characters nor an address."
        )


def _whole(folder: Path, stem: str) -> bool:
    """Whether certificate and key are there. ConfigurationError where only one of them is."""
    found = [(folder / f"{stem}.{kind}").exists() for kind in ("crt", "key")]
    if any(found) and not all(found):
        raise ConfigurationError(f"Of {stem}.crt and {stem}.key one is missing; remove the other, or bring it back.")
    return all(found)


def _made_authority(folder: Path, made: list[Path]) -> Authority:
    authority = new_authority()
    made += _write_pair(folder / "ca", authority.pem(), _pem(authority.key))
    return authority


def _load(folder: Path) -> Authority:
    try:
        key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
        certificate = x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes())
    except (ValueError, TypeError):
        raise ConfigurationError("ca.crt or ca.key is no PEM file that can be read without a password.") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise ConfigurationError("ca.crt and ca.key are not a pair that this command made.")
    return Authority(certificate, key)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write_pair(stem: Path, certificate: bytes, key: bytes) -> list[Path]:
    return [_write(stem.with_suffix(".key"), key, 0o600), _write(stem.with_suffix(".crt"), certificate, 0o644)]


def _write(path: Path, content: bytes, mode: int) -> Path:
    """Never over a file that is there, not even one that a link leads to."""
    opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(opened, "wb") as file:
        file.write(content)
    return path
