"""Every manifest against the schemas of Kubernetes; custom resources against the part of theirs that is used here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
from tests.helm.rendering import VALUES, Manifest, find, render, values_of

VERSIONS = ("1.29", "1.34", "1.37")
"""The oldest that the chart takes, and two later ones."""
OPEN: dict[str, Any] = {
    "service": {"type": "LoadBalancer"},
    "ingress": {
        "enabled": True,
        "className": "nginx",
        "hosts": ["llm.example"],
        "annotations": {"nginx.ingress.kubernetes.io/backend-protocol": "GRPC"},
        "tls": [{"hosts": ["llm.example"], "secretName": "tls"}],
    },
    "gateway": {"enabled": True, "parentRefs": [{"name": "g", "namespace": "edge"}], "hostnames": ["llm.example"]},
    "networkPolicy": {"clients": [{"namespaceSelector": {"matchLabels": {"name": "edge"}}}]},
    "telemetry": {"endpoint": "http://collector:4317", "headersSecret": "otel"},
    "coordinator": {"podDisruptionBudget": {"enabled": True}, "extraEnv": [{"name": "OTEL_SDK_DISABLED", "value": ""}]},
    "priorityClassName": "serving",
    "podAnnotations": {"team": "llm"},
    "serviceAccount": {"annotations": {"a": "b"}},
}
CUSTOM = {
    file.stem: json.loads(file.read_text()) for file in sorted((Path(__file__).parent / "schemas").glob("*.json"))
}
OPERATED: dict[str, Any] = {
    "tls": {"certManager": {"enabled": True, "issuerRef": {"name": "inside"}}, "addresses": ["10.0.0.7"]},
    "auth": {"jwt": {"issuer": "https://id.example", "audience": "llm", "jwksConfigMap": "jwks"}},
    "metrics": {
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "rules": {"enabled": True},
        "dashboards": {"enabled": True},
        "scrapers": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}],
    },
    "gateway": {"enabled": True, "parentRefs": [{"name": "g"}], "backendCa": "authority"},
    "networkPolicy": {"clients": [{"namespaceSelector": {"matchLabels": {"name": "edge"}}}]},
    "workers": {"autoscaling": {"enabled": True, "prometheus": "http://prometheus:9090"}, "largePages": "check"},
    "coordinator": {"replicas": 2, "kvStoreGb": 4},
    "redis": {"embedded": {"tls": True, "image": {"repository": "valkey/valkey", "tag": "8.1"}}},
}
"""What needs an operator, or another image, to be there."""
SCALED: dict[str, Any] = {"workers": {"autoscaling": {"enabled": True, "by": "hpa"}, "spreadOver": "zone"}}
CLEAR: dict[str, Any] = {
    "auth": {"keys": {"enabled": False}, "auditLog": True},
    "allowUnauthenticated": True,
    "tls": {"enabled": False, "stages": {"enabled": False}},
}
MUTUAL: dict[str, Any] = {"tls": {"clientCa": {"existingSecret": "clients"}}, "tests": {"tlsSecret": "tester"}}
CASES = {name: values_of(name) for name in VALUES} | {
    "open": OPEN,
    "operated": OPERATED,
    "scaled": SCALED,
    "clear": CLEAR,
    "mutual": MUTUAL,
}


def check(manifest: Manifest, version: str) -> None:
    if manifest["kind"] in CUSTOM:
        jsonschema.Draft202012Validator(CUSTOM[manifest["kind"]]).validate(manifest)
        for template in pod_templates(manifest):
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": template["metadata"], "spec": template["spec"]}
            kubernetes_validate.validate(pod, version, strict=True)
    else:
        kubernetes_validate.validate(manifest, version, strict=True)


def pod_templates(manifest: Manifest) -> list[Any]:
    if manifest["kind"] != "RayCluster":
        return []
    spec = manifest["spec"]
    return [spec["headGroupSpec"]["template"], *(group["template"] for group in spec["workerGroupSpecs"])]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", CASES)
def test_is_valid(name: str, version: str) -> None:
    manifests = render(CASES[name])
    assert len(manifests) > 10
    for manifest in manifests:
        check(manifest, version)


def test_the_validation_sees_a_misspelt_field() -> None:
    manifest = find(render(), "Deployment", "trireme-coordinator")
    manifest["spec"]["template"]["spec"]["containers"][0]["imagePolicy"] = "Always"
    with pytest.raises(kubernetes_validate.ValidationError):
        check(manifest, VERSIONS[0])
    monitor = find(render(OPERATED), "ServiceMonitor", "trireme")
    monitor["spec"]["endpoints"][0]["every"] = "15s"
    with pytest.raises(jsonschema.ValidationError):
        check(monitor, VERSIONS[0])
    cluster = find(render(values_of("kuberay")), "RayCluster", "trireme")
    cluster["spec"]["workerGroupSpecs"][0]["name"] = "x"
    with pytest.raises(jsonschema.ValidationError):
        check(cluster, VERSIONS[0])


def test_every_custom_resource_that_the_chart_can_make_is_checked() -> None:
    made = {m["kind"] for values in CASES.values() for m in render(values) if "." in m["apiVersion"].partition("/")[0]}
    kubernetes = {"Ingress", "NetworkPolicy", "PodDisruptionBudget"}
    assert made - kubernetes - {"PrometheusRule"} == CUSTOM.keys() - {"PrometheusRule"}


@pytest.mark.parametrize("name", CASES)
def test_no_two_manifests_share_a_name(name: str) -> None:
    found = [(m["kind"], m["metadata"]["name"]) for m in render(CASES[name])]
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("group", ["w", "g" * 19])
@pytest.mark.parametrize("release", ["a", "trireme", "x" * 53])
def test_names_stay_within_what_kubernetes_takes(release: str, group: str) -> None:
    for manifest in render({"workers": {"groups": [{"name": group}]}}, release=release):
        assert len(manifest["metadata"]["name"]) <= 63 - 11  # with a hash it becomes a label
