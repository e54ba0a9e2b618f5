"""`trireme profile` and `profile()` of both clients."""

from __future__ import annotations

import json

import pytest

from trireme import AsyncClient, Client, _replies, errors
from trireme.cli import main, output
from trireme.cli.profile import _overview, _stages
from trireme_proto.v1 import cluster_pb2 as cluster


def test_it_says_what_was_watched(server, capsys):
    assert main(["profile", "--seconds", "0.5", "--target", server.target]) == 0
    out, err = capsys.readouterr()
    assert "idle" in out
    assert "fake-node-1" in out
    assert "for 0.5 seconds" in err


def test_json(server, capsys):
    assert main(["profile", "--json", "--target", server.target]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert (found["bottleneck"], found["stage"], found["seconds"], len(found["stages"])) == ("idle", None, 5.0, 2)
    assert err == ""


def test_a_time_out_of_its_range(server, capsys):
    assert main(["profile", "--seconds", "61", "--target", server.target]) == 1
    assert capsys.readouterr().err.strip().endswith("error: seconds must be 0.1 to 60.")


async def test_both_clients(server):
    async with AsyncClient(server.target) as client:
        found = await client.profile(1)
        with pytest.raises(errors.InvalidRequest):
            await client.profile(1000)
    with Client(server.target) as client:
        assert client.profile(1) == found


def test_figures(capsys):
    stage = cluster.ProfiledStage(
        stage=1, node="n", first_layer=3, end_layer=6, busy=0.92, bubble=0.08, compute_seconds=0.0123,
        wait_seconds=0.001, wire_seconds=0.0002, read_bytes_per_s=3.6e10, bandwidth_bytes_per_s=4e10,
    )  # fmt: skip
    found = _replies.profile(
        cluster.ProfileResponse(
            seconds=2,
            bottleneck="memory",
            stage=1,
            advice="Buy memory.",
            stages=[stage],
            steps=100,
            tokens=300,
            active=0.5,
            step_seconds=0.02,
            other_seconds=0.001,
            load=cluster.Load(running=3, waiting=4),
            slots=64,
        )
    )
    output.write_table(_overview(found))
    output.write_table(_stages(found))
    out = capsys.readouterr().out
    assert "memory of stage 1" in out
    assert "150.0 tokens/s, work 50% of the time, a step 20.00 ms, of which outside of the stages 1.00 ms" in out
    assert "3 running of 64 slots, 4 waiting" in out
    assert out.splitlines()[-1].split() == ["1", "3-5", "n", "92%", "8%", "12.30", "1.00", "0.20", "36.00", "40.00"]
