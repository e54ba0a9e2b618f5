"""PreviewPlacement: the same plan as the command's, on the caller's machines or the cluster's own."""

from __future__ import annotations

import pytest
from tests.coordinator.placement.models import LAYER, machine, model, ram_for

from trireme_coordinator.placement import plan, wishes_for
from trireme_coordinator.placement.costs import DEFAULT_LINK_GBIT_S, DEFAULT_RTT_MS
from trireme_coordinator.service.placement import Previews
from trireme_proto.errors import InvalidRequest
from trireme_proto.v1 import cluster_pb2 as pb

MODEL = model(6, head_bytes=LAYER, head_read_bytes=LAYER)
OWN = (machine("a", ram_gb=ram_for(4, 1200)), machine("b", ram_gb=ram_for(4, 1200)), machine("far", rtt_ms=900.0))


def spec(name: str, **changes: float) -> pb.NodeSpec:
    return pb.NodeSpec(**{"name": name, "ram_gb": 64.0, "read_gb_s": 1.0, "int8_gmac_s": 1e4} | changes)


async def test_the_clusters_own_nodes_are_measured_once() -> None:
    calls = []

    def measured():
        calls.append(1)
        return OWN

    previews = Previews(MODEL, measured)
    assert calls == []
    found = await previews.answer(pb.PreviewPlacementRequest())
    assert await previews.answer(pb.PreviewPlacementRequest()) == found
    assert calls == [1]
    named = await previews.answer(pb.PreviewPlacementRequest(nodes=[spec("other")]))
    assert [stage.node for stage in named.stages] == ["other"]
    expected = plan(MODEL, OWN, wishes_for(MODEL))
    stages = [(stage.node, stage.first_layer, stage.end_layer, stage.kv_tokens) for stage in found.stages]
    assert stages == [(s.node, s.layers.start, s.layers.stop, s.kv_tokens) for s in expected.prediction.stages]
    assert [(each.node, each.spare) for each in found.left_out] == [("far", True)]
    assert found.left_out[0].reason == expected.left_out[0].reason
    assert found.figures.tokens_per_s_aggregate == expected.prediction.tokens_per_s_aggregate
    assert found.figures.ttft_seconds == expected.prediction.ttft_s


async def test_named_machines_are_planned_for_as_they_are() -> None:
    previews = Previews(MODEL, lambda: pytest.fail("nothing is to be measured"))
    nodes = [spec("slow"), spec("fast", read_gb_s=3.0, rtt_ms=0.0, cores=4)]
    found = await previews.answer(pb.PreviewPlacementRequest(nodes=nodes, prompt_tokens=100, context_tokens=200))
    here = (
        machine("slow", rtt_ms=DEFAULT_RTT_MS, link_gbit_s=DEFAULT_LINK_GBIT_S),
        machine("fast", read_gb_s=3.0, cores=4, link_gbit_s=DEFAULT_LINK_GBIT_S),
    )
    expected = plan(MODEL, here, wishes_for(MODEL, 100, 200))
    assert found.figures.tokens_per_s_single == expected.prediction.tokens_per_s_single
    assert [change.node for change in found.what_if] == ["slow", "slow", "fast", "fast"]
    assert [change.add for change in found.what_if] == [True, False] * 2


async def test_a_change_after_which_the_model_does_not_fit_has_no_figures() -> None:
    half = [spec(name, ram_gb=ram_for(4, 1200)) for name in ("a", "b")]
    found = await Previews(MODEL, tuple).answer(pb.PreviewPlacementRequest(nodes=half))
    assert [change.HasField("figures") for change in found.what_if] == [True, False]


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        (pb.PreviewPlacementRequest(nodes=[spec("a"), spec("a")]), "another node has that name"),
        (pb.PreviewPlacementRequest(nodes=[spec("")]), "name must be 1 to 128"),
        (pb.PreviewPlacementRequest(nodes=[spec("a", ram_gb=-1.0)]), "ram_gb is -1"),
        (pb.PreviewPlacementRequest(nodes=[spec("a", read_gb_s=float("nan"))]), "read_gb_s is nan"),
        (pb.PreviewPlacementRequest(nodes=[spec("a", rtt_ms=float("inf"))]), "rtt_ms is inf"),
        (pb.PreviewPlacementRequest(nodes=[spec(f"m{i}") for i in range(513)]), "There are 513 nodes"),
        (pb.PreviewPlacementRequest(nodes=[spec("a", ram_gb=0.1)]), "small does not fit"),
        (pb.PreviewPlacementRequest(nodes=[spec("a")], prompt_tokens=4096), "holds 4096 tokens"),
        (pb.PreviewPlacementRequest(), "There are 0 nodes"),
    ],
)
async def test_what_cannot_be_planned_for_is_the_callers_mistake(request_, sentence: str) -> None:
    with pytest.raises(InvalidRequest, match=sentence):
        await Previews(MODEL, tuple).answer(request_)
