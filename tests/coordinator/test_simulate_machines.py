"""Simulated machines: times as the plan has them, machines dealt out fairly, and the command."""

from __future__ import annotations

import json
import re
from importlib.metadata import EntryPoint

import pytest

from trireme.cli import lazy, main
from trireme_coordinator.model_costs import model_costs
from trireme_coordinator.placement.costs import Machine, StageCosts, Step, decode_step
from trireme_coordinator.placement.plan import plan
from trireme_coordinator.placement.predict import Wishes
from trireme_coordinator.simulation import pipelines, simulate
from trireme_coordinator.simulation.machines import MachineStage, deal, repeated
from trireme_proto.errors import ConfigurationError
from trireme_proto.load import Arrival
from trireme_worker.synth.shapes import shape

FAST = Machine("fast", ram_gb=16, read_gb_s=40, int8_gmac_s=4000, rtt_ms=0.4)
SLOW = Machine("slow", ram_gb=16, read_gb_s=20, int8_gmac_s=1000, link_gbit_s=1)
MODEL = model_costs(shape("70b"), layout="1.6bit", head="int8")
WISHES = Wishes(prompt=1024, context=256)


@pytest.mark.parametrize("layers", [range(3), range(40, 80)])
@pytest.mark.parametrize("machine", [FAST, SLOW])
def test_a_stage_takes_as_long_as_placement_says(machine: Machine, layers: range) -> None:
    for step in (decode_step(1, 100), decode_step(60, 1000), Step(256, 300, 9000, 0)):
        costs = StageCosts(MODEL, (machine,), step, 0)
        expected = costs.compute_s(0, layers.start, layers.stop)
        assert MachineStage(MODEL, machine, layers).compute_s(step) == pytest.approx(expected)
    assert MachineStage(MODEL, machine, layers).compute_s(Step(0, 0, 0, 0)) == 0.0


def test_one_stream_is_as_fast_as_the_plan_says() -> None:
    machines = [FAST, SLOW, *repeated([FAST], 3)[1:]]
    made = pipelines(MODEL, machines, 1, WISHES, queue=8)
    predicted = plan(MODEL, machines, WISHES).prediction
    alone = simulate(made, [Arrival(0.0, 1024, 16, 0)]).records[0]
    assert alone.ttft == pytest.approx(predicted.ttft_s, rel=0.02)
    at_context = simulate(made, [Arrival(0.0, 248, 17, 0)]).records[0]
    assert 1 / at_context.mean_itl == pytest.approx(predicted.tokens_per_s_single, rel=0.01)


def test_many_streams_come_near_the_plan_and_not_above_it() -> None:
    machines = repeated([FAST], 4)
    made = pipelines(MODEL, machines, 1, WISHES, queue=64)
    outcome = simulate(made, [Arrival(0.0, 64, 200, 0)] * 64)
    predicted = plan(MODEL, machines, WISHES).prediction.batches[-1].tokens_per_s
    assert 0.6 * predicted < outcome.figures.tokens_per_s < 1.05 * predicted


def test_machines_are_dealt_out_fairly() -> None:
    machines = [Machine(str(i), 16, i, 1000) for i in range(1, 9)]
    groups = deal(machines, 2)
    assert [sum(m.read_gb_s for m in group) for group in groups] == [18, 18]
    assert sorted(m.name for group in groups for m in group) == sorted(m.name for m in machines)
    names = [m.name for m in repeated(machines[:3], 7)]
    assert len(set(names)) == 7
    assert names[:3] == ["1", "2", "3"]


def test_every_replica_must_hold_the_model() -> None:
    with pytest.raises(ConfigurationError, match="4 replicas need as many nodes"):
        pipelines(MODEL, [FAST], 4, WISHES, queue=8)
    with pytest.raises(ConfigurationError, match="70b does not fit the nodes of replica 0: fast"):
        pipelines(MODEL, [FAST, SLOW], 2, WISHES, queue=8)


def test_512_nodes_take_seconds() -> None:
    made = pipelines(MODEL, repeated([FAST, SLOW], 512), 32, WISHES, queue=256)
    outcome = simulate(made, [Arrival(i / 20, 100, 20, 0) for i in range(200)])
    assert outcome.figures.completed == 200
    assert len({stage.node for stage in outcome.figures.stages}) == len(outcome.figures.stages)


NODES = """
nodes:
  - {name: a, ram_gb: 16, read_gb_s: 20, int8_gmac_s: 2000}
  - {name: b, ram_gb: 16, read_gb_s: 20, int8_gmac_s: 2000}
"""


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    point = EntryPoint("simulate", "trireme_coordinator.commands:simulate", lazy.GROUP)
    monkeypatch.setattr(lazy, "entry_points", lambda group: [point])
    (tmp_path / "nodes.yaml").write_text(NODES)

    def call(*args):
        common = ["--nodes", str(tmp_path / "nodes.yaml"), "--shape", "2b4t"]
        code = main(["simulate", *common, *args])
        return code, *capsys.readouterr()

    return call


def test_the_command(run):
    code, out, _ = run("--arrivals", "poisson:2,4", "--seconds", "10", "--objective", "ttft=1s")
    assert code == 0
    assert re.search(r"^deployment +2b4t, 1 replica of \d stages?", out, re.MULTILINE)
    assert re.search(r"^load +2 requests/s +4 requests/s", out, re.MULTILINE)
    assert re.search(r"^TTFT p50/p90/p99 +\d", out, re.MULTILINE)
    assert re.search(r"^goodput +\d\.\d\d requests/s", out, re.MULTILINE)


def test_json_and_the_same_seed_say_the_same(run):
    args = ("--count", "8", "--replicas", "4", "--seconds", "20", "--json")
    one, two, other = (json.loads(run(*args, "--seed", seed)[1]) for seed in ("1", "1", "2"))
    assert one == two != other
    assert len(one["replicas"]) == 4
    assert one["runs"][0]["completed"] == one["runs"][0]["requests"] > 5


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["--arrivals", "uniform:1"], "arrivals is 'uniform:1'"),
        (["--arrivals", "poisson:"], "arrivals is 'poisson:'"),
        (["--arrivals", "poisson:0"], "arrivals is 'poisson:0'"),
        (["--prompt", "5000"], "a sequence of 2b4t holds 4096"),
        (["--shape", "9b"], "'9b' is neither"),
        (["--replicas", "3"], "3 replicas need as many nodes"),
        (["--nodes", "none.yaml"], "none.yaml"),
    ],
)
def test_mistakes_are_one_sentence(run, args, sentence):
    code, out, err = run(*args)
    assert (code in {1, 2}, out, err.count("error: ")) == (True, "", 1)
    assert sentence in err
