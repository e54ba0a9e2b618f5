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
    "allowUnauthenticated": True,
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
    kind: json.loads((Path(__file__).parent / "schemas" / f"{kind}.json").read_text())
    for kind in ("RayCluster", "GRPCRoute")
}
CASES = {name: values_of(name) for name in VALUES} | {"open": OPEN}


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
    cluster = find(render(values_of("kuberay")), "RayCluster", "trireme")
    cluster["spec"]["workerGroupSpecs"][0]["name"] = "x"
    with pytest.raises(jsonschema.ValidationError):
        check(cluster, VERSIONS[0])


@pytest.mark.parametrize("name", CASES)
def test_no_two_manifests_share_a_name(name: str) -> None:
    found = [(m["kind"], m["metadata"]["name"]) for m in render(CASES[name])]
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("group", ["w", "g" * 19])
@pytest.mark.parametrize("release", ["a", "trireme", "x" * 53])
def test_names_stay_within_what_kubernetes_takes(release: str, group: str) -> None:
    for manifest in render({"workers": {"groups": [{"name": group}]}}, release=release):
        assert len(manifest["metadata"]["name"]) <= 63 - 11  # with a hash it becomes a label
