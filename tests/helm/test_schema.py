"""The schema covers every value, refuses unknown ones and says what is wrong with a value; so do the checks beyond."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import helm_python
import pytest
from tests.helm.rendering import chart, render

OPEN = {"$defs.strings", "$defs.peer.podSelector", "$defs.peer.namespaceSelector", "$defs.env.valueFrom"}
"""Where Kubernetes' own objects or free names go."""


def schema() -> dict[str, Any]:
    found = chart().schema
    assert found is not None
    return found


def objects(part: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every part of the schema that describes an object."""
    if part.get("type") == "object":
        yield path, part
    for name, child in part.get("properties", {}).items():
        yield from objects(child, f"{path}.{name}".strip("."))
    if isinstance(part.get("items"), dict):
        yield from objects(part["items"], f"{path}[]")
    for name, child in part.get("$defs", {}).items():
        yield from objects(child, f"$defs.{name}")


def test_every_object_refuses_unknown_values() -> None:
    loose = {path for path, part in objects(schema()) if part.get("additionalProperties") is not False}
    assert loose == OPEN | {"global"}
    assert schema()["properties"]["global"]["maxProperties"] == 0


def test_every_value_is_described() -> None:
    for path, part in objects(schema()):
        for name, child in part.get("properties", {}).items():
            assert len(child.get("description", "")) > 3, f"{path}.{name}"


def test_every_default_is_in_the_schema_and_every_value_has_a_default() -> None:
    def walk(values: dict[str, Any], part: dict[str, Any], path: str) -> None:
        assert set(values) == set(part["properties"]) - {"global"}, path
        for name, value in values.items():
            child = part["properties"][name]
            if isinstance(value, dict) and "properties" in child and name != "custom":
                walk(value, child, f"{path}.{name}")

    walk(chart().values, schema(), "")


def nested(path: str, value: object) -> dict[str, Any]:
    """{"a": {"b": value}} for "a.b"."""
    for name in reversed(path.split(".")):
        value = {name: value}
    return value  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("replicaCount", 2, "additional properties 'replicaCount' not allowed"),
        ("workers.replica", 2, "additional properties 'replica' not allowed"),
        ("workers.replicas", 0, "at '/workers/replicas': minimum: got 0, want 1"),
        ("workers.replicas", "two", "at '/workers/replicas': got string, want integer"),
        ("workers.memory", "64GB", "at '/workers/memory': '64GB' does not match pattern"),
        ("workers.groups", [{"replicas": 1}], "at '/workers/groups/0': missing property 'name'"),
        ("workers.groups", [{"name": "redis"}], "at '/workers/groups/0/name'"),
        ("workers.groups", [{"name": "a", "cpus": 1}], "additional properties 'cpus' not allowed"),
        ("coordinator.replicas", 5, "at '/coordinator/replicas': maximum: got 5, want 4"),
        ("coordinator.kvDtype", "bf16", "at '/coordinator/kvDtype': value must be one of"),
        ("coordinator.extraEnv", [{"name": "TRIREME_STAGES", "value": "9"}], "at '/coordinator/extraEnv/0/name'"),
        ("coordinator.extraEnv", [{"name": "RAY_AUTH_MODE", "value": "x"}], "at '/coordinator/extraEnv/0/name'"),
        ("image.digest", "sha256:1", "at '/image/digest'"),
        ("image.repository", "", "at '/image/repository': minLength: got 0, want 1"),
        ("model.source", "magic", "at '/model/source': value must be one of"),
        ("model", {"source": "claim", "shape": "8b"}, "at '/model/claim': minLength"),
        ("model", {"source": "hostPath", "shape": "8b"}, "at '/model/hostPath': minLength"),
        ("model", {"source": "fetch", "shape": "8b", "path": "p"}, "at '/model/fetch/url': minLength"),
        ("model", {"source": "fetch", "shape": "8b", "fetch": {"url": "s3://b/p"}}, "at '/model/path': minLength"),
        ("model", {"source": "claim", "claim": "a", "shape": "custom"}, "at '/model/custom': missing properties"),
        ("model.hostPath", "relative", "at '/model/hostPath'"),
        ("model.path", "/absolute", "at '/model/path'"),
        ("model.fetch.url", "file:///etc", "at '/model/fetch/url'"),
        ("ray.objectStore", "79Mi", "at '/ray/objectStore'"),
        ("ingress.enabled", True, "at '/ingress/hosts': minItems: got 0, want 1"),
        ("gateway.enabled", True, "at '/gateway/parentRefs': minItems: got 0, want 1"),
        ("networkPolicy.clients", [{}], "at '/networkPolicy/clients/0': minProperties"),
        ("service.type", "ExternalName", "at '/service/type': value must be one of"),
        ("tls.certManager.enabled", True, "at '/tls/certManager/issuerRef/name': minLength"),
        ("tls.secret", "mine", "additional properties 'secret' not allowed"),
        ("tls.generatedDays", 0, "at '/tls/generatedDays': minimum: got 0, want 1"),
        ("auth.keys.existingSecret", "Upper", "at '/auth/keys/existingSecret'"),
        ("auth.jwt.issuer", "https://id.example", "at '/auth/jwt/audience': minLength"),
        ("auth.jwt.issuer", "id.example", "at '/auth/jwt/issuer'"),
        ("metrics.serviceMonitor.interval", "15", "at '/metrics/serviceMonitor/interval'"),
        ("metrics.scrapers", [{}], "at '/metrics/scrapers/0': minProperties"),
        ("workers.autoscaling.by", "vpa", "at '/workers/autoscaling/by': value must be one of"),
        ("workers.largePages", True, "at '/workers/largePages': value must be one of"),
        ("redis.embedded.memory", "512Mi", "at '/redis/embedded/memory'"),
    ],
)
def test_refuses_by_schema(path: str, value: object, sentence: str) -> None:
    with pytest.raises(helm_python.HelmError) as refused:
        render(nested(path, value))
    assert sentence in str(refused.value)


CLAIMED = {"source": "claim", "claim": "packs", "shape": "8b"}
OPENED = {"allowUnauthenticated": True}
HOSTS = {"enabled": True, "hosts": ["llm.example"]}
CLEAR = {"tls": {"enabled": False}}
JWT = {"issuer": "https://id.example", "audience": "llm"}


def scaled(most: int = 4, prometheus: str = "http://prometheus:9090", **workers: object) -> dict[str, Any]:
    """Values with an autoscaler of the workers."""
    return {"workers": workers | {"autoscaling": {"enabled": True, "maxReplicas": most, "prometheus": prometheus}}}


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"model": CLAIMED | {"shape": "tiny"}}, "give the shape of your own model"),
        ({"model": {"shape": "8b"}}, "model.shape must be tiny"),
        ({"model": CLAIMED | {"path": "a/../../b"}}, "must not contain '..'"),
        ({"workers": {"replicas": 7}}, "7 stages are not possible: the model has 6 layers"),
        (
            {"workers": {"replicas": 3}, "coordinator": {"stages": 2}},
            "coordinator.stages is 2, but there are 3 workers",
        ),
        ({"redis": {"external": {"existingSecret": "r"}}}, "redis.embedded.enabled must be false"),
        ({"redis": {"embedded": {"enabled": False}}}, "There is no Redis"),
        ({"auth": {"keys": {"enabled": False}}}, "Nobody would be asked who they are"),
        ({"ingress": HOSTS} | CLEAR, "would carry keys in the clear"),
        ({"service": {"type": "LoadBalancer"}} | CLEAR, "would carry keys in the clear"),
        ({"gateway": {"enabled": True, "parentRefs": [{"name": "g"}]}} | CLEAR, "would carry keys in the clear"),
        ({"ingress": HOSTS} | OPENED, "needs networkPolicy.clients"),
        ({"ingress": HOSTS}, "needs networkPolicy.clients"),
        ({"metrics": {"enabled": False}}, "tls.enabled needs metrics.enabled"),
        ({"auth": {"keys": {"existingSecret": "k"}}}, "needs a plain key in auth.keys.clientSecret"),
        ({"auth": {"keys": {"enabled": False}, "jwt": JWT}}, "the chart's own test has none"),
        ({"tls": {"clientCa": {"existingSecret": "c"}}}, "the chart's own test needs a certificate too"),
        ({"redis": {"embedded": {"tls": True}}}, "redis.embedded.tls needs redis.embedded.image"),
        ({"redis": {"embedded": {"image": {"repository": "v"}}}}, "needs a tag or a digest"),
        (
            {"coordinator": {"kvStoreGb": 8}, "redis": {"embedded": {"persistence": {"enabled": True}}}},
            "redis.embedded.persistence.size is 8Gi",
        ),
        (scaled(groups=[{"name": "a"}]), "works with neither workers.groups"),
        (scaled() | {"ray": {"kuberay": {"enabled": True}}}, "works with neither workers.groups"),
        (scaled(replicas=3, most=2), "maxReplicas is less than workers.replicas"),
        (scaled(prometheus=""), "needs the URL of Prometheus"),
        (scaled() | {"metrics": {"enabled": False}, "tls": {"enabled": False}}, "autoscaling needs metrics.enabled"),
        ({"workers": {"groups": [{"name": "a", "replicas": 1}] * 2}}, "two groups named a"),
    ],
)
def test_refuses_contradictions(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(helm_python.HelmError) as refused:
        render(values)
    assert sentence in str(refused.value)
