"""The identity provider's keys over HTTP: discovery, bounds, no redirects."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from tests.coordinator.auth.test_tokens import SET

from trireme_coordinator.auth import jwks
from trireme_proto.limits import LIMITS


class Handler(BaseHTTPRequestHandler):
    pages: dict[str, bytes]

    def do_GET(self) -> None:
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/keys")
            self.end_headers()
            return
        body = self.pages.get(self.path, b"")
        self.send_response(200 if body else 404)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def provider() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    url = f"http://127.0.0.1:{server.server_address[1]}"
    pages = {"/keys": SET, "/large": b"x" * (LIMITS.jwks_bytes + 1)}
    for name, target in (("good", f"{url}/keys"), ("file", "file:///etc/hostname"), ("plain", "http://idp.example/k")):
        pages[f"/{name}/.well-known/openid-configuration"] = json.dumps({"jwks_uri": target}).encode()
    Handler.pages = pages
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield url
    server.shutdown()
    server.server_close()
    thread.join()


def test_keys_are_found_by_discovery_and_by_url(provider: str) -> None:
    assert len(jwks.parse(jwks.reader("", f"{provider}/good")())) == 3
    assert len(jwks.parse(jwks.reader(f"{provider}/keys", "")())) == 3


def test_a_provider_cannot_lead_elsewhere(provider: str) -> None:
    for issuer in ("file", "plain"):
        with pytest.raises(ValueError, match="jwks_uri"):
            jwks.reader("", f"{provider}/{issuer}")()
    with pytest.raises(OSError, match="302"):
        jwks.reader(f"{provider}/moved", "")()


def test_an_answer_is_bounded(provider: str) -> None:
    with pytest.raises(ValueError, match="too large"):
        jwks.reader(f"{provider}/large", "")()
    with pytest.raises(OSError, match="404"):
        jwks.reader(f"{provider}/none", "")()
