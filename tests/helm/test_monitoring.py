"""Metrics, alerts, dashboards and scaling: made out of whatever files there are, reached by whom they are for."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml
from tests.helm.rendering import CHART, Manifest, find, names, pods, render
from tests.helm.test_conditions import pod
from tests.helm.test_schema import scaled

ON: dict[str, Any] = {
    "metrics": {
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "rules": {"enabled": True, "labels": {"release": "prometheus"}},
        "dashboards": {"enabled": True},
        "scrapers": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}],
    }
}
RULE = {
    "groups": [{"name": "a", "rules": [{"alert": "A", "expr": "up == 0", "annotations": {"b": "{{ $labels.x }}"}}]}]
}


def with_files(folder: Path) -> list[Manifest]:
    """The chart with one file of alerts and one dashboard more."""
    shutil.copytree(CHART, folder / "trireme")
    for name, text in {"rules/zz.yaml": yaml.safe_dump(RULE), "dashboards/zz.json": '{"title": "{{x}}"}'}.items():
        file = folder / "trireme" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    rendered = helm_python.Chart.load(folder / "trireme").render(ON, name="trireme", namespace="llm")
    return [m for m in yaml.safe_load_all(rendered["trireme/templates/monitoring.yaml"]) if m]


def test_whatever_files_there_are_become_alerts_and_dashboards(tmp_path: Path) -> None:
    manifests = with_files(tmp_path)
    rule = find(manifests, "PrometheusRule", "trireme-zz")
    assert rule["spec"] == RULE  # with its own braces
    assert rule["metadata"]["labels"]["release"] == "prometheus"
    dashboard = find(manifests, "ConfigMap", "trireme-dashboard-zz")
    assert json.loads(dashboard["data"]["zz.json"]) == {"title": "{{x}}"}
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"


def test_every_file_is_rendered() -> None:
    manifests = render(ON)
    assert len(names(manifests, "PrometheusRule")) == len(list(CHART.glob("rules/*.yaml")))
    dashboards = {name for name in names(manifests, "ConfigMap") if "-dashboard-" in name}
    assert len(dashboards) == len(list(CHART.glob("dashboards/*.json")))


def test_nothing_of_an_operator_is_needed_by_default() -> None:
    assert not {m["kind"] for m in render()} & {"ServiceMonitor", "PrometheusRule", "ScaledObject", "Certificate"}


def test_prometheus_finds_every_coordinator() -> None:
    manifests = render(ON)
    monitor = find(manifests, "ServiceMonitor", "trireme")["spec"]
    service = find(manifests, "Service", "trireme-metrics")
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["endpoints"][0]["port"] in {port["name"] for port in service["spec"]["ports"]}
    others = [m for m in manifests if m["kind"] == "Service" and m is not service]
    assert not any(monitor["selector"]["matchLabels"].items() <= m["metadata"]["labels"].items() for m in others)
    coordinator = pod(manifests, "trireme-coordinator")
    assert service["spec"]["selector"].items() <= coordinator.labels.items()
    assert service["spec"]["publishNotReadyAddresses"]
    assert {"name": "metrics", "containerPort": 9464} in coordinator.container("coordinator")["ports"]


def test_the_port_of_the_metrics_is_open_to_scrapers_alone() -> None:
    def rules(values: dict[str, Any] | None) -> list[Any]:
        ingress = find(render(values), "NetworkPolicy", "trireme-coordinator")["spec"]["ingress"]
        return [rule["from"] for rule in ingress if {"port": "metrics", "protocol": "TCP"} in rule["ports"]]

    assert rules(None) == []
    assert rules(ON) == [ON["metrics"]["scrapers"]]


def test_probes_ask_the_port_of_the_metrics_where_there_is_one() -> None:
    off: dict[str, Any] = {"metrics": {"enabled": False}, "tls": {"enabled": False}}
    with_port, without = (pod(render(v), "trireme-coordinator").container("coordinator") for v in (None, off))
    assert with_port["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "metrics"}
    assert with_port["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "metrics"}
    assert without["livenessProbe"]["grpc"] == {"port": 50051, "service": "liveness"}
    assert without["readinessProbe"]["grpc"] == {"port": 50051}
    assert "TRIREME_METRICS_LISTEN" in find(render(), "ConfigMap", "trireme")["data"]
    assert "TRIREME_METRICS_LISTEN" not in find(render(off), "ConfigMap", "trireme")["data"]


@pytest.mark.parametrize("by", ["keda", "hpa"])
def test_workers_by_the_length_of_the_queue(by: str) -> None:
    values = scaled(most=5, replicas=2)
    values["workers"]["autoscaling"]["by"] = by
    manifests = render(values)
    kind = {"keda": "ScaledObject", "hpa": "HorizontalPodAutoscaler"}[by]
    spec = find(manifests, kind, "trireme-worker")["spec"]
    assert "replicas" not in find(manifests, "StatefulSet", "trireme-worker")["spec"]  # the autoscaler's alone
    assert spec["scaleTargetRef"]["name"] in names(manifests, "StatefulSet")
    bounds = {"keda": ("minReplicaCount", "maxReplicaCount"), "hpa": ("minReplicas", "maxReplicas")}[by]
    assert [spec[name] for name in bounds] == [2, 5]
    assert "trireme_requests_waiting" in json.dumps(spec)
    assert find(manifests, "ConfigMap", "trireme")["data"]["TRIREME_STAGES"] == "2"


@pytest.mark.parametrize("choice", ["ignore", "check", "set"])
def test_large_pages(choice: str) -> None:
    found = pod(render({"workers": {"largePages": choice}}), "trireme-worker").containers
    container = next((c for c in found if c["name"] == "large-pages"), None)
    assert (container is None) == (choice == "ignore")
    if container:
        assert container["securityContext"].get("privileged", False) == (choice == "set")
        assert {"name": "LARGE_PAGES", "value": choice} in container["env"]


def test_one_container_alone_may_be_privileged_and_only_when_asked_to() -> None:
    for each in pods(render({"workers": {"largePages": "set"}})):
        privileged = [c["name"] for c in each.containers if c["securityContext"].get("privileged")]
        assert privileged == (["large-pages"] if each.component == "ray-worker" else [])


@pytest.mark.parametrize(
    ("choice", "before", "after", "code"),
    [
        ("check", "always [madvise] never", "always [madvise] never", 0),
        ("check", "always madvise [never]", "always madvise [never]", 1),
        ("set", "always madvise [never]", "madvise", 0),
        ("set", "[always] madvise never", "[always] madvise never", 0),
    ],
)
def test_what_large_pages_does_to_the_machine(choice: str, before: str, after: str, code: int, tmp_path: Path) -> None:
    (tmp_path / "enabled").write_text(f"{before}\n")
    container = pod(render({"workers": {"largePages": choice}}), "trireme-worker").container("large-pages")
    environment = {"PATH": os.defpath, "LARGE_PAGES": choice, "LARGE_PAGES_FILE": str(tmp_path / "enabled")}
    done = subprocess.run(
        [*container["command"], *container["args"]], env=environment, capture_output=True, check=False
    )
    assert (done.returncode, (tmp_path / "enabled").read_text()) == (code, f"{after}\n")
    assert (b"half the speed" in done.stderr) == (code == 1)
