"""What each value turns on and off."""

from __future__ import annotations

from typing import Any

import pytest
from tests.helm.rendering import Manifest, PodTemplate, find, names, pods, render, texts, values_of
from tests.helm.test_manifests import OPEN

from trireme_coordinator.ray_connection import ENVIRONMENT


def pod(manifests: list[Manifest], owner: str) -> PodTemplate:
    (found,) = (p for p in pods(manifests) if p.owner == owner)
    return found


def settings(values: dict[str, Any] | None = None) -> dict[str, str]:
    return find(render(values), "ConfigMap", "trireme")["data"]


def test_the_ray_cluster_is_stateful_sets_or_a_raycluster() -> None:
    plain, kuberay = render(), render(values_of("kuberay"))
    assert names(plain, "StatefulSet") == {"trireme-ray-head", "trireme-worker", "trireme-redis"}
    assert names(kuberay, "StatefulSet") == {"trireme-redis"}
    assert names(kuberay, "RayCluster") == {"trireme"}
    assert names(plain, "Service") - names(kuberay, "Service") == {"trireme-ray-head", "trireme-ray-worker"}
    head = settings(values_of("kuberay"))["TRIREME_RAY_ADDRESS"]
    assert head == "trireme-head-svc:6379"  # the operator's name for it


def test_kuberay_starts_its_own_command_and_waits_by_itself() -> None:
    for each in pods(render(values_of("kuberay"))):
        if each.component in {"ray-head", "ray-worker"}:
            assert "initContainers" not in each.spec
            assert "command" not in each.containers[0]


def test_the_embedded_session_store_and_an_external_one() -> None:
    external = {"redis": {"embedded": {"enabled": False}, "external": {"existingSecret": "mine", "port": 6390}}}
    plain, other = render(), render(external)
    assert "trireme-redis" in names(plain, "StatefulSet") - names(other, "StatefulSet")
    assert names(plain, "ConfigMap") - names(other, "ConfigMap") == {"trireme-scripts"}
    environment = {e["name"]: e for e in pod(other, "trireme-coordinator").container("coordinator")["env"]}
    assert "REDIS_PASSWORD" not in environment
    assert environment["TRIREME_REDIS_URL"]["valueFrom"]["secretKeyRef"] == {"name": "mine", "key": "redis-url"}
    egress = find(other, "NetworkPolicy", "trireme-coordinator")["spec"]["egress"]
    assert egress == [{"ports": [{"port": 6390, "protocol": "TCP"}]}]


def test_a_volume_for_sessions() -> None:
    kept = find(render({"redis": {"embedded": {"persistence": {"enabled": True}}}}), "StatefulSet", "trireme-redis")
    assert [c["metadata"]["name"] for c in kept["spec"]["volumeClaimTemplates"]] == ["data"]
    assert "data" not in {v["name"] for v in kept["spec"]["template"]["spec"]["volumes"]}


def test_generated_secrets_are_made_only_where_none_is_given() -> None:
    both = find(render(), "Secret", "trireme-auth")["data"]
    assert set(both) == {"ray-token", "redis-password"}
    assert len(set(both.values()) | set(find(render(), "Secret", "trireme-auth")["data"].values())) == 4
    token = {"ray": {"auth": {"existingSecret": "mine", "key": "token"}}}
    assert set(find(render(token), "Secret", "trireme-auth")["data"]) == {"redis-password"}
    for each in pods(render(token)):
        for volume in each.spec.get("volumes", ()):
            if volume["name"] == "ray-auth":
                assert volume["secret"]["secretName"] == "mine"
                assert volume["secret"]["items"] == [{"key": "token", "path": "token"}]
    password = {"redis": {"embedded": {"existingSecret": "mine"}}}
    assert "trireme-auth" not in names(render(token | password), "Secret")


@pytest.mark.parametrize(
    ("model", "volume"),
    [
        ({"source": "claim", "claim": "p"}, {"persistentVolumeClaim": {"claimName": "p", "readOnly": True}}),
        ({"source": "hostPath", "hostPath": "/srv"}, {"hostPath": {"path": "/srv", "type": "Directory"}}),
        ({"source": "fetch", "fetch": {"url": "https://h/p"}}, {"emptyDir": {}}),
        (
            {"source": "fetch", "fetch": {"url": "https://h/p", "claim": "p"}},
            {"persistentVolumeClaim": {"claimName": "p"}},
        ),
    ],
)
def test_the_model_is_mounted_read_only_where_it_is_read(model: dict[str, Any], volume: dict[str, Any]) -> None:
    manifests = render({"model": model | {"shape": "8b", "path": "a/b"}})
    assert find(manifests, "ConfigMap", "trireme")["data"]["TRIREME_PACK"] == "/models/a/b"
    for owner, name in (("trireme-coordinator", "coordinator"), ("trireme-worker", "ray-worker")):
        each = pod(manifests, owner)
        assert {"name": "models"} | volume in each.spec["volumes"]
        mount = {"name": "models", "mountPath": "/models", "readOnly": True}
        assert mount in each.container(name)["volumeMounts"]
        fetches = [c for c in each.containers if c["name"] == "fetch"]
        assert len(fetches) == (model["source"] == "fetch")
        for fetch in fetches:
            assert [*fetch["command"], *fetch["args"]] == ["trireme", "fetch", "https://h/p", "/models/a/b"]
    assert ("trireme-fetch" in names(manifests, "NetworkPolicy")) == (model["source"] == "fetch")


def test_the_bundled_model_needs_no_volume() -> None:
    assert "TRIREME_PACK" not in settings()
    assert all(v["name"] != "models" for p in pods(render()) for v in p.spec.get("volumes", ()))


def test_groups_of_workers() -> None:
    manifests = render(values_of("heterogeneous"))
    large, small = pod(manifests, "trireme-large"), pod(manifests, "trireme-small")
    assert large.spec["nodeSelector"] == {"kubernetes.io/os": "linux", "trireme/kind": "large"}
    assert "tolerations" not in large.spec
    assert small.spec["tolerations"] == [{"key": "trireme/spare", "operator": "Exists", "effect": "NoSchedule"}]
    limits = [p.container("ray-worker")["resources"]["limits"] for p in (large, small)]
    assert [limit.get("cpu") for limit in limits] == ["16", None]
    found = find(manifests, "ConfigMap", "trireme")["data"]
    assert [found[f"TRIREME_{name}"] for name in ("STAGES", "RAY_NODES", "THREADS")] == ["4", "4", "8"]


def test_a_group_can_turn_off_what_is_on_for_all() -> None:
    values = {"workers": {"guaranteed": True, "groups": [{"name": "a"}, {"name": "b", "guaranteed": False}]}}
    limits = [
        "cpu" in pod(render(values), f"trireme-{name}").container("ray-worker")["resources"]["limits"] for name in "ab"
    ]
    assert limits == [True, False]


def test_guaranteed_means_that_limits_are_requests_in_every_container() -> None:
    worker = pod(render(values_of("four-servers-70b")), "trireme-worker")
    for container in worker.containers:
        assert container["resources"]["limits"] == container["resources"]["requests"], container["name"]
    assert worker.container("ray-worker")["resources"]["limits"]["cpu"] == "14"


@pytest.mark.parametrize(("spread", "when"), [("required", "DoNotSchedule"), ("preferred", "ScheduleAnyway")])
def test_spread_over_machines(spread: str, when: str) -> None:
    (constraint,) = pod(render({"workers": {"spread": spread}}), "trireme-worker").spec["topologySpreadConstraints"]
    assert (constraint["whenUnsatisfiable"], constraint["topologyKey"]) == (when, "kubernetes.io/hostname")
    assert constraint["labelSelector"]["matchLabels"].items() <= pod(render(), "trireme-worker").labels.items()


def test_spread_over_something_else() -> None:
    workers = {"spreadOver": "topology.kubernetes.io/zone"}
    (constraint,) = pod(render({"workers": workers}), "trireme-worker").spec["topologySpreadConstraints"]
    assert constraint["topologyKey"] == "topology.kubernetes.io/zone"


def test_no_spread() -> None:
    worker = pod(render({"workers": {"spread": "none"}}), "trireme-worker")
    assert "topologySpreadConstraints" not in worker.spec


def test_ways_in_are_off_by_default_and_on_when_asked_for() -> None:
    kinds = {m["kind"] for m in render()}
    assert not kinds & {"Ingress", "GRPCRoute"}
    manifests = render(OPEN)
    rule = find(manifests, "Ingress", "trireme")["spec"]["rules"][0]
    assert rule["http"]["paths"][0]["backend"]["service"] == {"name": "trireme", "port": {"name": "grpc"}}
    assert find(manifests, "GRPCRoute", "trireme")["spec"]["rules"][0]["backendRefs"][0]["port"] == 50051
    callers = find(manifests, "NetworkPolicy", "trireme-coordinator")["spec"]["ingress"][0]["from"]
    assert callers[1] == {"namespaceSelector": {"matchLabels": {"name": "edge"}}}


def test_traces_go_where_they_are_wanted_and_the_way_is_open() -> None:
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" not in settings()
    for endpoint, port in (("http://c:4319", 4319), ("https://c:4319/", 4319), ("http://c", 4317)):
        manifests = render({"telemetry": {"endpoint": endpoint}})
        assert find(manifests, "ConfigMap", "trireme")["data"]["OTEL_EXPORTER_OTLP_ENDPOINT"] == endpoint
        egress = find(manifests, "NetworkPolicy", "trireme-coordinator")["spec"]["egress"]
        assert {"ports": [{"port": port, "protocol": "TCP"}]} in egress


def test_off_switches() -> None:
    values = {
        "networkPolicy": {"enabled": False},
        "tests": {"enabled": False},
        "serviceAccount": {"create": False},
        "workers": {"podDisruptionBudget": {"enabled": False}},
    }
    assert not {m["kind"] for m in render(values)} & {"NetworkPolicy", "Pod", "ServiceAccount", "PodDisruptionBudget"}
    assert all(p.spec["serviceAccountName"] == "default" for p in pods(render(values)))


def test_ray_is_told_what_the_coordinator_tells_a_cluster_of_its_own() -> None:
    found = find(render(), "ConfigMap", "trireme-ray")["data"]
    assert ENVIRONMENT.items() <= found.items()


def test_a_digest_comes_before_the_tag() -> None:
    image = {"repository": "registry.example:5000/a", "tag": "1", "digest": "sha256:" + "0" * 64}
    assert pods(render({"image": image}))[0].containers[0]["image"] == f"registry.example:5000/a@{image['digest']}"
    assert pods(render({"image": image | {"digest": ""}}))[0].containers[0]["image"] == "registry.example:5000/a:1"


def test_a_changed_setting_starts_those_anew_who_read_it() -> None:
    def sums(values: dict[str, Any]) -> dict[str, str]:
        made = [m for m in render(values) if m["kind"] in {"Deployment", "StatefulSet"}]
        return {
            m["metadata"]["name"]: m["spec"]["template"]["metadata"]["annotations"]["checksum/config"] for m in made
        }

    before, after = sums({}), sums({"coordinator": {"slots": 8}})
    assert before == sums({})
    assert {name for name in before if before[name] != after[name]} == {"trireme-coordinator"}  # sessions stay


def test_draining_fits_into_the_grace_period() -> None:
    spec = pod(render({"coordinator": {"drainSeconds": 300}}), "trireme-coordinator").spec
    before = int(spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][-1])
    assert settings({"coordinator": {"drainSeconds": 300}})["TRIREME_DRAIN_SECONDS"] == "300"
    assert spec["terminationGracePeriodSeconds"] > 300 + before


def test_coordinators_that_stand_in_for_each_other_are_on_different_machines() -> None:
    rendered = render({"coordinator": {"replicas": 2, "drainSeconds": 300}})
    (deployment,) = [m for m in rendered if (m["kind"], m["metadata"]["name"]) == ("Deployment", "trireme-coordinator")]
    assert deployment["spec"]["replicas"] == 2
    assert deployment["spec"]["strategy"] == {"rollingUpdate": {"maxSurge": "100%", "maxUnavailable": "100%"}}
    spread = deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]
    assert [each["topologyKey"] for each in spread] == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
    labels = pod(rendered, "trireme-coordinator").labels
    assert all(each["labelSelector"]["matchLabels"].items() <= labels.items() for each in spread)
    assert "topologySpreadConstraints" not in pod(render(), "trireme-coordinator").spec


def test_the_notes_say_what_to_do_next() -> None:
    notes = texts()["trireme/templates/NOTES.txt"]
    assert "rollout status deployment/trireme-coordinator" in notes
    assert "helm test trireme --namespace llm" in notes
    assert "port-forward service/trireme 50051:50051" in notes
    assert "huge" not in notes  # the small model does not need them
    assert "transparent_hugepage" in texts(values_of("four-servers-70b"))["trireme/templates/NOTES.txt"]
    assert (
        "every pod of the cluster can reach"
        in texts({"networkPolicy": {"enabled": False}})["trireme/templates/NOTES.txt"]
    )
