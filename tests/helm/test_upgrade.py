"""An upgrade keeps the secrets that the first install generated: `lookup` against a stand-in for the Kubernetes API."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import helm_python
import yaml
from tests.helm.rendering import Manifest, chart

_PATH = "/api/v1/namespaces/llm/secrets/"
_DISCOVERY = {
    "/version": {"major": "1", "minor": "34", "gitVersion": "v1.34.0"},
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
    "/api/v1": {
        "kind": "APIResourceList",
        "groupVersion": "v1",
        "resources": [
            {"name": "secrets", "singularName": "", "namespaced": True, "kind": "Secret", "verbs": ["get", "list"]}
        ],
    },
}
_NOT_FOUND = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}


@contextmanager
def api(secrets: list[Manifest]) -> Iterator[helm_python.Config]:
    """A cluster that has those secrets."""
    known: dict[str, Any] = _DISCOVERY | {f"{_PATH}{secret['metadata']['name']}": secret for secret in secrets}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = known.get(self.path.partition("?")[0])
            body = json.dumps(found or _NOT_FOUND).encode()
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with helm_python.Config(kubeconfig_content=kubeconfig(server.server_port), namespace="llm") as config:
            yield config
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def kubeconfig(port: int) -> str:
    cluster = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}
    context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
    whole = {"apiVersion": "v1", "kind": "Config", "clusters": [cluster], "contexts": [context]}
    return yaml.safe_dump(whole | {"users": [{"name": "u", "user": {}}], "current-context": "c"})


def secret_of(kept: dict[str, str] | None) -> dict[str, str]:
    """What the chart renders where the cluster has a secret with these data."""
    return secrets_of({} if kept is None else {"trireme-auth": kept})["trireme-auth"]


def secrets_of(kept: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    """Data of all secrets by name, where the cluster has these."""
    there = [
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "llm"}, "data": data}
        for name, data in kept.items()
    ]
    with api(there) as config:
        rendered = config.render(chart(), {}, name="trireme", namespace="llm", is_upgrade=True)
    made = [
        m
        for name, text in rendered.items()
        if name.endswith(".yaml")
        for m in yaml.safe_load_all(text)
        if isinstance(m, dict)
    ]
    return {m["metadata"]["name"]: m["data"] for m in made if m["kind"] == "Secret"}


def test_what_is_there_is_kept() -> None:
    first = secret_of(None)
    assert {name: len(base64.b64decode(value)) for name, value in first.items()} == {
        "ray-token": 64,
        "redis-password": 48,
    }
    assert secret_of(first) == first


def test_what_is_missing_is_added() -> None:
    found = secret_of({"ray-token": "a2VwdA=="})
    assert found["ray-token"] == "a2VwdA=="
    assert len(base64.b64decode(found["redis-password"])) == 48


def test_each_install_generates_its_own() -> None:
    first, second = secret_of(None), secret_of(None)
    assert not set(first.values()) & set(second.values())


def test_all_that_was_generated_is_kept() -> None:
    first = secrets_of({})
    assert set(first) == {"trireme-auth", "trireme-tls", "trireme-stage-tls", "trireme-keys", "trireme-client"}
    assert secrets_of(first) == first


def test_a_file_of_keys_that_was_changed_is_kept() -> None:
    first = secrets_of({})
    changed = first | {"trireme-keys": {"keys.json": "e30="}}
    assert secrets_of(changed) == changed
    assert secrets_of({"trireme-client": first["trireme-client"]})["trireme-client"] != first["trireme-client"]
