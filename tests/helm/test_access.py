"""Certificates and keys: what is generated, given, or cert-manager's, and that who needs it has it."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from tests.helm.rendering import Manifest, find, names, pods, render
from tests.helm.test_conditions import pod
from tests.helm.test_manifests import OPEN
from tests.helm.test_schema import JWT

from trireme_coordinator.auth.api_key import digest, key_id_of
from trireme_coordinator.auth.key_file import read
from trireme_coordinator.auth.scopes import Scope

MANAGED = {"tls": {"certManager": {"enabled": True, "issuerRef": {"name": "inside"}}}}
REDIS_TLS = {"redis": {"embedded": {"tls": True, "image": {"repository": "valkey/valkey", "tag": "8.1"}}}}


def told(manifests: list[Manifest]) -> dict[str, str]:
    """Settings of the coordinator, by name without TRIREME_."""
    data = find(manifests, "ConfigMap", "trireme")["data"]
    return {name.removeprefix("TRIREME_"): value for name, value in data.items()}


def certificate(manifests: list[Manifest], secret: str) -> x509.Certificate:
    """The certificate of a secret; its key fits and its authority has signed it."""
    data = {k: base64.b64decode(v) for k, v in find(manifests, "Secret", secret)["data"].items()}
    found, authority = (x509.load_pem_x509_certificate(data[name]) for name in ("tls.crt", "ca.crt"))
    found.verify_directly_issued_by(authority)
    assert authority.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert isinstance(found.public_key(), ec.EllipticCurvePublicKey)
    return found


def alternative(found: x509.Certificate) -> tuple[list[str], list[str]]:
    """Names and addresses."""
    value = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return value.get_values_for_type(x509.DNSName), [str(a) for a in value.get_values_for_type(x509.IPAddress)]


def test_a_generated_certificate_has_the_names_under_which_the_coordinator_is_reached() -> None:
    manifests = render(OPEN | {"tls": {"names": ["llm.lan"], "addresses": ["10.0.0.7"], "generatedDays": 30}})
    found = certificate(manifests, "trireme-tls")
    inside = ["trireme", "trireme.llm", "trireme.llm.svc", "trireme.llm.svc.cluster.local", "localhost"]
    assert alternative(found) == ([*inside, "llm.example", "llm.lan"], ["127.0.0.1", "10.0.0.7"])
    assert (found.not_valid_after_utc - found.not_valid_before_utc).days == 30


def test_stages_have_an_authority_of_their_own() -> None:
    manifests = render()
    assert alternative(certificate(manifests, "trireme-stage-tls")) == (["trireme-stage"], [])
    both = [find(manifests, "Secret", name)["data"]["ca.crt"] for name in ("trireme-tls", "trireme-stage-tls")]
    assert both[0] != both[1]


@pytest.mark.parametrize("component", ["coordinator", "ray-worker"])
def test_the_certificate_of_stages_is_at_the_same_path_on_every_node(component: str) -> None:
    manifests = render()
    folder = told(manifests)["STAGE_TLS_DIR"]
    for each in pods(manifests):
        if each.component == component:
            mount = {"name": "stage-tls", "mountPath": folder, "readOnly": True}
            assert mount in each.spec["containers"][0]["volumeMounts"]


def test_a_generated_key_is_good_and_only_its_digest_is_with_the_coordinator(tmp_path: Path) -> None:
    manifests = render()
    key = base64.b64decode(find(manifests, "Secret", "trireme-client")["data"]["api-key"]).decode()
    assert key_id_of(key) is not None  # its checksum too
    (tmp_path / "keys.json").write_bytes(
        base64.b64decode(find(manifests, "Secret", "trireme-keys")["data"]["keys.json"])
    )
    (tmp_path / "keys.json").chmod(0o440)
    (stored,) = read(tmp_path / "keys.json").keys.values()
    assert (stored.key_id, stored.sha256) == (key_id_of(key), digest(key))
    assert stored.scopes == {Scope.GENERATE, Scope.SESSIONS, Scope.CLUSTER}
    assert key not in str(find(manifests, "Secret", "trireme-keys"))
    mounted = {
        v["secret"]["secretName"] for v in pod(manifests, "trireme-coordinator").spec["volumes"] if "secret" in v
    }
    assert "trireme-keys" in mounted
    assert "trireme-client" not in mounted


def test_checksums_of_many_generated_keys() -> None:
    keys = {find(render(), "Secret", "trireme-client")["data"]["api-key"] for _ in range(20)}
    assert len({key_id_of(base64.b64decode(key).decode()) for key in keys} - {None}) == 20


def test_nobody_is_asked_only_when_told_so_in_words() -> None:
    manifests = render({"auth": {"keys": {"enabled": False}}, "allowUnauthenticated": True})
    assert told(manifests)["INSECURE_NO_AUTH"] == "true"
    assert "KEYS" not in told(manifests)
    assert not names(manifests, "Secret") & {"trireme-keys", "trireme-client"}
    assert "INSECURE_NO_AUTH" not in told(render())


def test_quotas_and_the_audit_log() -> None:
    quota = {"requestsPerMinute": 60, "tokensPerMinute": 9000, "streams": 4}
    found = told(render({"auth": {"quota": quota, "auditLog": True, "reflection": "off"}}))
    assert [found[f"QUOTA_{name}"] for name in ("REQUESTS", "TOKENS", "STREAMS")] == ["60", "9000", "4"]
    assert (found["AUDIT_LOG"], found["REFLECTION"]) == ("-", "off")


def test_given_secrets_are_used_and_none_is_made() -> None:
    tls = {"existingSecret": "public", "stages": {"existingSecret": "stages"}}
    keys = {"existingSecret": "mine", "key": "file", "clientSecret": "client"}
    manifests = render({"tls": tls, "auth": {"keys": keys}})
    assert names(manifests, "Secret") == {"trireme-auth"}
    volumes = {v["name"]: v["secret"] for v in pod(manifests, "trireme-coordinator").spec["volumes"] if "secret" in v}
    assert {n: volumes[n]["secretName"] for n in ("tls", "stage-tls", "keys")} == {
        "tls": "public", "stage-tls": "stages", "keys": "mine",
    }  # fmt: skip
    assert volumes["keys"]["items"] == [{"key": "file", "path": "keys.json"}]
    test = pod(manifests, "trireme-test").container("generate")
    key = next(e for e in test["env"] if e["name"] == "TRIREME_API_KEY")
    assert key["valueFrom"]["secretKeyRef"] == {"name": "client", "key": "api-key"}


def test_certificates_of_cert_manager() -> None:
    manifests = render(MANAGED | REDIS_TLS)
    made = {m["metadata"]["name"]: m["spec"] for m in manifests if m["kind"] == "Certificate"}
    assert set(made) == {"trireme-tls", "trireme-stage-tls", "trireme-redis-tls"}
    assert not set(made) & names(manifests, "Secret")
    assert all(name == spec["secretName"] for name, spec in made.items())
    assert {spec["issuerRef"]["name"] for spec in made.values()} == {"inside"}
    assert "localhost" in made["trireme-tls"]["dnsNames"]
    mounted = {v["secret"]["secretName"] for p in pods(manifests) for v in p.spec.get("volumes", ()) if "secret" in v}
    assert set(made) <= mounted


def test_without_tls_there_is_no_trace_of_it() -> None:
    manifests = render({"tls": {"enabled": False, "stages": {"enabled": False}}})
    found = {name: value for name, value in told(manifests).items() if "TLS" in name}
    assert found == {"INSECURE_NO_TLS": "true", "INSECURE_NO_STAGE_TLS": "true"}  # the coordinator is told so in words
    assert not {name for name in names(manifests, "Secret") if "tls" in name}
    assert find(manifests, "Service", "trireme")["spec"]["ports"][0]["appProtocol"] == "kubernetes.io/h2c"
    assert find(render(), "Service", "trireme")["spec"]["ports"][0]["appProtocol"] == "https"


def test_clients_with_certificates() -> None:
    tls = {"clientCa": {"existingSecret": "clients", "key": "authority"}}
    manifests = render({"tls": tls, "tests": {"tlsSecret": "tester"}})
    assert told(manifests)["TLS_CLIENT_CA"] == "/etc/trireme/client-ca/ca.crt"
    volume = next(v for v in pod(manifests, "trireme-coordinator").spec["volumes"] if v["name"] == "client-ca")
    assert volume["secret"]["items"] == [{"key": "authority", "path": "ca.crt"}]
    env = {e["name"]: e.get("value") for e in pod(manifests, "trireme-test").container("generate")["env"]}
    assert env["TRIREME_CERT"] == "/etc/trireme/client-tls/tls.crt"


@pytest.mark.parametrize(
    ("given", "option", "ports"),
    [
        ({}, None, {443}),
        ({"jwksUrl": "https://keys.example:8443/k"}, "https://keys.example:8443/k", {443, 8443}),
        ({"jwksConfigMap": "jwks"}, "/etc/trireme/jwks/jwks.json", set()),
    ],
)
def test_tokens_of_an_identity_provider(given: dict[str, str], option: str | None, ports: set[int]) -> None:
    manifests = render({"auth": {"jwt": JWT | given}})
    found = told(manifests)
    assert found.get("JWT_JWKS") == option
    assert (found["JWT_ISSUER"], found["JWT_AUDIENCE"]) == ("https://id.example", "llm")
    egress = find(manifests, "NetworkPolicy", "trireme-coordinator")["spec"]["egress"]
    assert {p["port"] for rule in egress for p in rule["ports"]} - {"redis"} == ports


def test_an_embedded_store_with_tls() -> None:
    manifests = render(REDIS_TLS)
    assert told(manifests)["REDIS_CA"] == "/etc/trireme/redis-ca/ca.crt"
    env = {e["name"]: e.get("value") for e in pod(manifests, "trireme-coordinator").container("coordinator")["env"]}
    assert env["TRIREME_REDIS_URL"].startswith("rediss://trireme:")
    assert "trireme-redis" in alternative(certificate(manifests, "trireme-redis-tls"))[0]
    store = pod(manifests, "trireme-redis").container("redis")
    assert store["image"] == "valkey/valkey:8.1"
    assert {"name": "REDIS_TLS", "value": "/etc/trireme/redis-tls"} in store["env"]


def test_an_external_store_with_an_authority_of_its_own() -> None:
    external: dict[str, Any] = {"existingSecret": "r", "caSecret": "ca", "caKey": "root"}
    manifests = render({"redis": {"embedded": {"enabled": False}, "external": external}})
    assert told(manifests)["REDIS_CA"] == "/etc/trireme/redis-ca/ca.crt"
    for owner in ("trireme-coordinator", "trireme-worker"):
        volume = next(v for v in pod(manifests, owner).spec["volumes"] if v["name"] == "redis-ca")
        assert volume["secret"] == {
            "secretName": "ca", "defaultMode": 0o440, "items": [{"key": "root", "path": "ca.crt"}],
        }  # fmt: skip
    assert "REDIS_CA" not in told(render())


def test_a_gateway_that_checks_the_coordinators_certificate() -> None:
    gateway = OPEN["gateway"] | {"backendCa": "authority"}
    policy = find(render(OPEN | {"gateway": gateway}), "BackendTLSPolicy", "trireme")["spec"]
    assert policy["validation"]["hostname"] in alternative(certificate(render(), "trireme-tls"))[0]
    assert not names(render(OPEN), "BackendTLSPolicy")
