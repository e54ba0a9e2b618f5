"""Plans: who is left out and why, and what one machine more or less would do."""

from __future__ import annotations

import time

import pytest
from tests.coordinator.placement.models import LAYER, machine, model, ram_for

from trireme_coordinator.placement import Machine, ModelCosts, Plan, Wishes, plan
from trireme_proto.errors import ConfigurationError

WISHES = Wishes(prompt=100, context=200)


def planned(wanted: ModelCosts, *machines: Machine, **more) -> Plan:
    return plan(wanted, machines, WISHES, **more)


def left_out(found: Plan) -> dict[str, tuple[bool, str]]:
    return {each.node: (each.spare, each.reason) for each in found.left_out}


def test_who_is_left_out_is_told_why() -> None:
    found = planned(
        model(2),
        machine("near"),
        machine("far", rtt_ms=500.0),
        machine("slow", read_gb_s=0.1, ram_gb=ram_for(1, 300)),
        machine("tiny", ram_gb=0.1),
    )
    assert left_out(found) == {
        "far": (True, "its hop takes 250.00 ms, more than it saves: the slowest stage takes 20.44 ms"),
        "slow": (False, "it takes 102.22 ms for one layer, the slowest stage takes 20.44 ms"),
        "tiny": (False, "its 0.1 GB of memory hold no layer, which takes 0.4 GB with its process"),
    }


def test_spares_are_those_that_can_take_over_a_stage() -> None:
    found = planned(model(2), *(machine(f"m{i}", ram_gb=ram_for(1, 300), rtt_ms=1.0) for i in range(3)))
    assert list(left_out(found).values()) == [(True, "the slowest stage would be no faster with it")]


def test_a_machine_that_multiplies_slowly_is_dropped_where_that_helps_everybody() -> None:
    """It reads as fast as the others, so it would get as many layers, and hold up every larger step."""
    wanted = model(6, layer_macs=(9 * 10**8,) * 6)
    good = [machine(f"good{i}", rtt_ms=30.0, int8_gmac_s=1000.0) for i in range(2)]
    found = planned(wanted, *good, machine("weak", rtt_ms=30.0, int8_gmac_s=100.0))
    spare, reason = left_out(found)["weak"]
    assert spare
    assert reason.startswith("without it one stream makes ")
    worse = planned(wanted, *good, machine("weak", rtt_ms=30.0, int8_gmac_s=100.0), stages=3).prediction
    assert found.prediction.tokens_per_s_single > worse.tokens_per_s_single
    assert found.prediction.tokens_per_s_aggregate > worse.tokens_per_s_aggregate


def test_one_more_and_one_less_of_each_kind() -> None:
    wanted = model(4, kv_bytes=1)
    found = planned(wanted, machine("a"), machine("b"), machine("small", ram_gb=0.1))
    changes = {(each.change, each.node): each.prediction for each in found.what_if}
    assert list(changes) == [("add", "a"), ("remove", "a"), ("add", "small"), ("remove", "small")]
    more, fewer = changes["add", "a"], changes["remove", "a"]
    assert more is not None
    assert fewer is not None
    assert more.tokens_per_s_single == pytest.approx(found.prediction.tokens_per_s_single, rel=0.01)
    assert fewer == planned(wanted, machine("b"), machine("small", ram_gb=0.1)).prediction
    assert [len(stage.layers) for stage in more.stages] in ([1, 1, 2], [1, 2, 1], [2, 1, 1], [2, 2])
    assert changes["add", "small"] == changes["remove", "small"] == found.prediction


def test_what_cannot_be_done_without_is_said() -> None:
    half = [machine(name, ram_gb=ram_for(2, 200)) for name in ("a", "b")]
    changes = {each.change: each.prediction for each in planned(model(4), *half).what_if}
    assert changes["remove"] is None
    assert changes["add"] is not None


def test_a_number_of_stages_can_be_asked_for() -> None:
    found = planned(model(4), machine("a"), machine("b"), machine("c", read_gb_s=2.0), stages=2)
    assert len(found.prediction.stages) == 2
    assert "c" in {stage.node for stage in found.prediction.stages}
    assert found.left_out[0].reason == "2 stages were asked for"
    assert found.what_if == ()


@pytest.mark.parametrize(
    ("machines", "wishes", "stages", "sentence"),
    [
        ([], WISHES, None, "There is no node"),
        ([machine(ram_gb=ram_for(5))], WISHES, None, "small does not fit: it takes 0.5 GB and more"),
        ([machine()], Wishes(prompt=4096), None, "A sequence of small holds 4096 tokens; a prompt of 4096"),
        ([machine()], Wishes(context=5000), None, "A sequence of small holds 4096 tokens"),
        ([machine()], Wishes(prompt=0), None, "A plan is for prompts and contexts of at least one token"),
        ([machine()], WISHES, 2, "2 stages are not possible: there are 1 nodes and 6 layers"),
        ([machine()], WISHES, 0, "0 stages are not possible"),
    ],
)
def test_what_is_not_possible_is_one_sentence(machines, wishes, stages, sentence) -> None:
    with pytest.raises(ConfigurationError, match=f"^{sentence}"):
        plan(model(6), machines, wishes, stages=stages)


def test_the_same_machines_make_the_same_plan_in_any_order() -> None:
    fleet = [machine(f"m{i}", read_gb_s=1.0 + i, ram_gb=ram_for(3, 300)) for i in range(5)]
    wanted = model(9, embedding_bytes=LAYER, head_bytes=LAYER, head_read_bytes=LAYER)
    assert planned(wanted, *fleet).prediction == planned(wanted, *fleet[::-1]).prediction


def test_512_machines_are_planned_in_seconds() -> None:
    """Of all different kinds: the worst there is. Takes about two seconds."""
    fleet = [machine(f"m{i}", read_gb_s=1 + i / 100, ram_gb=ram_for(3 + i / 100, 300)) for i in range(512)]
    began = time.process_time()
    planned(model(80), *fleet)
    assert time.process_time() - began < 30
