"""Requests and limits out of the model's shape: enough for what placement gives to a worker, and not much more."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from tests.helm.rendering import CHART, pods, render, values_of

from trireme_coordinator.placement import partition
from trireme_kernels import KvFormat

SHAPES = yaml.safe_load((CHART / "files" / "shapes.yaml").read_text())
MIB = 1 << 20


def memory(values: dict[str, Any]) -> int:
    """Limit of a worker, bytes."""
    (limit,) = {
        p.container("ray-worker")["resources"]["limits"]["memory"]
        for p in pods(render(values))
        if p.component == "ray-worker"
    }
    return int(limit.removesuffix("Mi")) * MIB


def needed(shape: dict[str, int], stages: int, kv_tokens: int, kv_dtype: str) -> int:
    """The most that weights, keys and values of a stage take."""
    kv = KvFormat(shape["kvHeads"], shape["headDim"], kv_dtype).token_bytes * kv_tokens
    costs = [shape["layerBytes"]] * shape["layers"]
    costs[-1] += shape["headBytes"]
    parts = partition(costs, stages)
    return max(
        len(part) * (shape["layerBytes"] + kv)
        + shape["embeddingBytes"] * (i == 0)
        + shape["headBytes"] * (i == stages - 1)
        for i, part in enumerate(parts)
    )


@pytest.mark.parametrize("kv_dtype", ["float32", "float16", "int8"])
@pytest.mark.parametrize("stages", [1, 2, 4, 7])
@pytest.mark.parametrize("name", [name for name in SHAPES if name != "tiny"])
def test_is_enough_for_any_stage_and_little_more(name: str, stages: int, kv_dtype: str) -> None:
    values = {
        "model": {"source": "claim", "claim": "p", "shape": name},
        "workers": {"replicas": stages},
        "coordinator": {"kvDtype": kv_dtype, "kvTokens": 65536},
    }
    need = needed(SHAPES[name], stages, 65536, kv_dtype)
    spare = memory(values) - need
    processes = 1_300_000_000  # of the stage and of Ray's node
    tables = SHAPES[name]["embeddingBytes"] + SHAPES[name]["headBytes"]
    assert spare >= processes
    assert spare <= processes + tables + 0.25 * need + MIB


def test_the_size_of_a_70b_on_four_servers_leaves_room_on_64_gb() -> None:
    assert 30e9 < memory(values_of("four-servers-70b")) < 48e9


def test_two_stages_on_a_worker_share_its_memory_and_cpus() -> None:
    values = {"workers": {"replicas": 1, "cpu": 8}, "coordinator": {"stages": 2}}
    manifests = render(values)
    settings = next(m["data"] for m in manifests if m["kind"] == "ConfigMap" and "TRIREME_STAGES" in m["data"])
    assert (settings["TRIREME_STAGES"], settings["TRIREME_THREADS"]) == ("2", "4")
    assert memory(values) > memory({"workers": {"replicas": 1}}) + 300_000_000


def test_explicit_memory() -> None:
    assert memory({"workers": {"memory": "3072Mi"}}) == 3 << 30


def test_custom_sizes() -> None:
    custom = dict(SHAPES["8b"])
    model = {"source": "claim", "claim": "p"}
    assert memory({"model": model | {"shape": "custom", "custom": custom}}) == memory(
        {"model": model | {"shape": "8b"}}
    )
