"""How stages and their coordinator reach each other: plainly on one machine, by mutual TLS between machines.

With TLS each side shows a certificate of the cluster's CA whose name is `trireme-stage`; addresses do not count, since
nodes come and go. A certificate of the same CA with another name, a client's for one, is refused: whoever may ask for
tokens may not drive a stage. The folder is the same on every node; its files may be exchanged while we run.
"""

from __future__ import annotations

import inspect
import ipaddress
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import grpc

from trireme_proto.certificates import CertificateFiles, channel_credentials, server_credentials
from trireme_proto.errors import ConfigurationError, StartupError
from trireme_worker.link import CHANNEL_OPTIONS, SERVER_OPTIONS, Open, open_plainly

STAGE_NAME = "trireme-stage"
"""Subject alternative name (DNS) of every certificate on the links between stages."""
CA_FILE, CERT_FILE, KEY_FILE = "ca.crt", "tls.crt", "tls.key"
"""In the folder; the names that Kubernetes gives the parts of a TLS secret."""
_NAME_KEY = "x509_subject_alternative_name"
_TLS_OPTIONS = [*CHANNEL_OPTIONS, ("grpc.ssl_target_name_override", STAGE_NAME)]
Port = tuple[grpc.aio.Server, int]


def link_files(folder: str) -> CertificateFiles:
    """The certificates in a folder. ConfigurationError."""
    ca, cert, key = (str(Path(folder) / name) for name in (CA_FILE, CERT_FILE, KEY_FILE))
    return CertificateFiles(ca, cert, key)


def opener(folder: str) -> Open:
    """How channels to stages are opened: by TLS with the certificates in the folder, as they are then; plainly where
    there is no folder. ConfigurationError.
    """
    if not folder:
        return open_plainly
    files = link_files(folder)

    def open_safely(address: str) -> grpc.aio.Channel:
        return grpc.aio.secure_channel(address, channel_credentials(files.current()), _TLS_OPTIONS)

    return open_safely


def stage_server(host: str, folder: str, *, plain: bool = False) -> Port:
    """A server, not started, and its port on that address. StartupError where it cannot listen there, or where it
    would on another address than this machine's own without TLS, unless `plain` says that it may.
    """
    if not folder and not plain and not is_loopback(host):
        raise StartupError(
            "Stages on several machines need mutual TLS: give --stage-tls-dir, "
            "or say --insecure-no-stage-tls where nobody else reaches their network."
        )
    try:
        return _secured(host, folder) if folder else _plain(host)
    except RuntimeError as error:
        raise StartupError("A worker cannot listen on the address of its node.") from error


def is_loopback(host: str) -> bool:
    """Whether an address is one of this machine that no other one reaches."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _plain(host: str) -> Port:
    server = grpc.aio.server(options=SERVER_OPTIONS)
    return server, server.add_insecure_port(f"{host}:0")


def _secured(host: str, folder: str) -> Port:
    try:
        credentials = server_credentials(link_files(folder), clients=True)
    except ConfigurationError as error:
        raise StartupError(f"{error.message[:-1]} (on a worker's node, in the folder of --stage-tls-dir).") from error
    server = grpc.aio.server(options=SERVER_OPTIONS, interceptors=[PeersOnly()])
    return server, server.add_secure_port(f"{host}:0", credentials)


class PeersOnly(grpc.aio.ServerInterceptor):
    """Refuses whoever's certificate has another name than a stage's. The CA was checked in the handshake."""

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        """GRPC asks for each call how it is to be handled."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        kind = f"{_many(handler.request_streaming)}_{_many(handler.response_streaming)}"
        return handler._replace(**{kind: _guarded(getattr(handler, kind))})


def _many(stream: bool) -> str:
    return "stream" if stream else "unary"


def _guarded(behaviour: Callable[[Any, Any], Awaitable[Any]]) -> Callable[[Any, Any], Awaitable[Any]]:
    if not inspect.iscoroutinefunction(behaviour):
        raise TypeError("a stage's methods are coroutines")

    async def guarded(request: Any, context: Any) -> Any:
        if not is_peer(context.auth_context().get(_NAME_KEY, ())):
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "This certificate is not a stage's.")
        return await behaviour(request, context)

    return guarded


def is_peer(names: Sequence[bytes]) -> bool:
    """Whether one of a certificate's names is that of stages."""
    return STAGE_NAME.encode() in names
