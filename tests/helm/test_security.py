"""What must hold for every pod and policy, whatever the values."""

from __future__ import annotations

from typing import Any

import pytest
from tests.helm.rendering import Manifest, PodTemplate, find, pods, render
from tests.helm.test_manifests import CASES

from trireme_coordinator.store.layout import COMMANDS, KEY_PATTERN
from trireme_worker import page_redis

RAY = {"coordinator", "ray-head", "ray-worker"}


@pytest.fixture(params=CASES)
def manifests(request: pytest.FixtureRequest) -> list[Manifest]:
    return render(CASES[request.param])


def test_no_pod_is_root_or_has_a_token(manifests: list[Manifest]) -> None:
    for pod in pods(manifests):
        spec = pod.spec
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()


def test_no_container_can_gain_or_write(manifests: list[Manifest]) -> None:
    for pod in pods(manifests):
        for container in pod.containers:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "runAsNonRoot": True,
                "capabilities": {"drop": ["ALL"]},
            }, container["name"]


def test_every_container_has_bounds(manifests: list[Manifest]) -> None:
    for pod in pods(manifests):
        for container in pod.containers:
            assert set(container["resources"]["requests"]) == {"cpu", "memory"}
            assert container["resources"]["limits"]["memory"] == container["resources"]["requests"]["memory"]


def test_every_mount_has_its_volume_and_every_volume_its_mount(manifests: list[Manifest]) -> None:
    for pod in pods(manifests):
        mounted = {m["name"] for c in pod.containers for m in c.get("volumeMounts", ())}
        claimed = {"data"} if pod.component == "redis" else set()  # by a claim template where there is persistence
        assert mounted - claimed == {v["name"] for v in pod.spec.get("volumes", ())} - claimed, pod.owner


def test_nothing_persistent_is_written_but_by_fetching_and_the_store(manifests: list[Manifest]) -> None:
    for pod in pods(manifests):
        temporary = {v["name"] for v in pod.spec.get("volumes", ()) if "emptyDir" in v}
        for container in pod.containers:
            for mount in container.get("volumeMounts", ()):
                if mount["name"] not in temporary and container["name"] not in {"fetch", "redis"}:
                    assert mount.get("readOnly") is True, (pod.owner, container["name"], mount)


def test_kernels_are_cached_below_the_volume_where_the_folder_can_be_our_own(manifests: list[Manifest]) -> None:
    for pod in pods(manifests):
        for container in pod.containers:
            chosen = [e["value"] for e in container.get("env", ()) if e["name"] == "TRIREME_CACHE_DIR"]
            roots = [m["mountPath"] for m in container.get("volumeMounts", ()) if m["name"] == "cache"]
            assert [value.rpartition("/")[0] for value in chosen] == roots


def test_whoever_talks_to_ray_has_the_token(manifests: list[Manifest]) -> None:
    found = find(manifests, "ConfigMap", "trireme-ray")["data"]
    assert found["RAY_AUTH_MODE"] == "token"
    folder = found["RAY_AUTH_TOKEN_PATH"].rpartition("/")[0]
    for pod in pods(manifests):
        for container in pod.containers:
            if pod.component in RAY and container["name"] not in {"fetch", "large-pages"}:
                assert {"configMapRef": {"name": "trireme-ray"}} in container["envFrom"], container["name"]
                assert {"name": "ray-auth", "mountPath": folder, "readOnly": True} in container["volumeMounts"]


def test_no_ray_has_a_dashboard(manifests: list[Manifest]) -> None:
    heads = [p for p in pods(manifests) if p.component == "ray-head"]
    assert len(heads) == 1
    if "args" in heads[0].containers[0]:
        assert "--include-dashboard=false" in heads[0].containers[0]["args"]
    else:
        head = find(manifests, "RayCluster", "trireme")["spec"]["headGroupSpec"]
        assert head["rayStartParams"]["include-dashboard"] == "false"


def test_no_secret_is_in_a_config_map_or_an_argument(manifests: list[Manifest]) -> None:
    for manifest in manifests:
        if manifest["kind"] == "ConfigMap":
            assert not {"TRIREME_REDIS_URL", "REDIS_PASSWORD", "RAY_AUTH_TOKEN"} & manifest["data"].keys()
    for pod in pods(manifests):
        for container in pod.containers:
            assert "PASSWORD" not in " ".join(container.get("args", ()))


def policies(manifests: list[Manifest], pod: PodTemplate) -> list[dict[str, Any]]:
    """Specs of the policies that select a pod."""
    return [m["spec"] for m in manifests if m["kind"] == "NetworkPolicy" and selects(m["spec"]["podSelector"], pod)]


def selects(selector: dict[str, Any], pod: PodTemplate) -> bool:
    equal = selector.get("matchLabels", {}).items() <= pod.labels.items()
    return equal and all(pod.labels.get(e["key"]) in e["values"] for e in selector.get("matchExpressions", ()))


def test_nothing_goes_in_or_out_by_default(manifests: list[Manifest]) -> None:
    deny = find(manifests, "NetworkPolicy", "trireme-deny")["spec"]
    assert set(deny) == {"podSelector", "policyTypes"}
    assert deny["policyTypes"] == ["Ingress", "Egress"]
    assert all(deny in policies(manifests, pod) for pod in pods(manifests))


def test_ray_and_stages_are_reached_by_pods_of_the_release_alone(manifests: list[Manifest]) -> None:
    everybody = pods(manifests)
    for pod in everybody:
        if pod.component not in {"ray-head", "ray-worker"}:
            continue
        callers = [
            peer for spec in policies(manifests, pod) for rule in spec.get("ingress", ()) for peer in rule["from"]
        ]
        assert all(set(peer) == {"podSelector"} for peer in callers)  # no other namespace, no address
        for peer in callers:
            assert peer["podSelector"]["matchLabels"]["app.kubernetes.io/instance"] == "trireme"
            assert {p.component for p in everybody if selects(peer["podSelector"], p)} == RAY


def test_the_session_store_is_reached_by_the_coordinator_alone() -> None:
    manifests = render()
    (store,) = (p for p in pods(manifests) if p.component == "redis")
    rules = [rule for spec in policies(manifests, store) for rule in spec.get("ingress", ())]
    assert [[p["port"] for p in rule["ports"]] for rule in rules] == [["redis"]]
    peers = [peer["podSelector"] for rule in rules for peer in rule["from"]]
    assert [p.component for p in pods(manifests) for peer in peers if selects(peer, p)] == ["coordinator"]
    assert {p.component for p in pods(manifests) for peer in peers if selects(peer, p)} == {"coordinator"}


@pytest.mark.parametrize("enabled", [True, False])
def test_stages_reach_redis_where_they_keep_pages_there(enabled: bool) -> None:
    external = {"existingSecret": "redis", "port": 7777}
    redis = {"embedded": {"enabled": enabled}, "external": {} if enabled else external}
    manifests = render({"coordinator": {"kvStoreGb": 4}, "redis": redis})
    for pod in pods(manifests):
        if pod.component in {"coordinator", "ray-worker"}:
            rules = [rule for spec in policies(manifests, pod) for rule in spec.get("egress", ())]
            ports = [port["port"] for rule in rules for port in rule.get("ports", ())]
            assert ("redis" if enabled else 7777) in ports
    if enabled:
        (store,) = (p for p in pods(manifests) if p.component == "redis")
        rules = [rule for spec in policies(manifests, store) for rule in spec.get("ingress", ())]
        peers = [peer["podSelector"] for rule in rules for peer in rule["from"]]
        assert {p.component for p in pods(manifests) for peer in peers if selects(peer, p)} == RAY


def test_the_session_store_lets_its_user_do_what_the_coordinator_needs_and_no_more() -> None:
    script = find(render(), "ConfigMap", "trireme-scripts")["data"]["redis.sh"]
    (line,) = (line for line in script.splitlines() if line.startswith("commands="))
    assert line.removeprefix("commands=").strip('"').split() == [
        f"+{command}" for command in dict.fromkeys((*COMMANDS, *page_redis.COMMANDS))
    ]
    assert f"~{KEY_PATTERN} -@all %s" in script
    assert "user default off" in script


def test_only_marked_pods_may_call_the_model() -> None:
    (rule,) = find(render(), "NetworkPolicy", "trireme-coordinator")["spec"]["ingress"]
    assert rule["from"] == [{"podSelector": {"matchLabels": {"trireme/client": "true"}}}]
    assert [port["port"] for port in rule["ports"]] == ["grpc"]
