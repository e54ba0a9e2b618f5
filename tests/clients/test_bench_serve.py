"""`trireme bench serve` against the fake server, on a clock that moves only as the test says."""

import asyncio
import json
import os
import re
import signal
import sys
import threading

import pytest

from trireme import AsyncClient, Client, errors
from trireme.bench.load import Load
from trireme.cli import lazy, main
from trireme.testing import FakeServer
from trireme.testing import cluster as fake_cluster
from trireme_proto.load import Mix, figures, poisson, sequence

EIGHT = {"prompt": Mix.parse("3", "prompt"), "output": Mix.parse("8", "output"), "seed": 1}


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """No commands of other packages, so that no server part is needed."""
    monkeypatch.setattr(lazy, "entry_points", lambda group: [])


class TickingClock:
    """Each look at it takes a second; whoever waits wakes up when it is time, or so many seconds late."""

    def __init__(self, late=0.0):
        self.seconds, self.late = 0.0, late

    def now(self):
        self.seconds += 1.0
        return self.seconds

    async def until(self, moment):
        self.seconds = max(self.seconds, moment + self.late)


async def run(server, clock, act):
    async with AsyncClient(server.target, timeout=20, retries=0) as client:
        load = Load(client, 258, clock=clock, report=lambda done, total: None)
        await act(load)
        return load


async def test_latencies_count_from_the_message_before(server):
    load = await run(server, TickingClock(), lambda load: load.closed_loop(sequence(3, **EIGHT), 1))
    for record in load.records:  # scheduled, sent, eight messages, perhaps one more with held-back text, the end
        assert (record.ttft, record.itl, record.tokens, record.error) == (2.0, [1.0] * 7, 8, "")
        assert record.e2e in {10.0, 11.0}
    found = figures(load.records, started=0.0, ended=100.0)
    assert (found.ttft_s.p50, found.itl_s.p99, found.tokens_per_s) == (2.0, 1.0, 0.24)


async def test_a_sender_that_was_held_up_does_not_hide_the_wait(server):
    arrivals = poisson(0.01, requests=3, **EIGHT)
    load = await run(server, TickingClock(late=60.0), lambda load: load.open_loop(arrivals))
    started = 1.0
    assert [r.scheduled for r in load.records] == [started + a.at for a in arrivals]
    assert all(record.sent - record.scheduled >= 60.0 and record.ttft > 60.0 for record in load.records)


async def test_an_open_loop_does_not_wait_for_answers(server):
    for _ in range(3):
        server.hold_next(after=1)
    server.fail_next(errors.Overloaded("Full.", retry_after=1.0))
    arrivals = poisson(1000, requests=5, **EIGHT)

    async def act(load):
        task = asyncio.ensure_future(load.open_loop(arrivals))
        await asyncio.to_thread(server.wait_call, 4)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    load = await run(server, TickingClock(), act)
    assert len(server.calls) == 5
    assert all(call.wait_ended() for call in server.calls)
    assert sum(record.ended is None for record in load.records) >= 3


async def test_a_closed_loop_keeps_its_streams(server):
    load = await run(server, TickingClock(), lambda load: load.closed_loop(sequence(7, **EIGHT), 3))
    assert len(load.records) == len(server.calls) == 7
    assert {len(call.request.token_ids.ids) for call in server.calls} == {3}
    assert all(call.request.ignore_eos and call.request.max_tokens == 8 for call in server.calls)


def bench(server, capsys, *args):
    code = main(["bench", "serve", server.target, *args])
    return code, *capsys.readouterr()


def test_the_table(server, capsys, monkeypatch):
    server.fail_next(errors.Overloaded("Full.", retry_after=1.0))
    server.fail_next(errors.Internal("A fault."), after=2)
    code, out, _ = bench(server, capsys, "--rate", "200,300", "--requests", "9", "--objective", "ttft=20s")
    assert code == 0
    assert re.search(r"^load +200 requests/s +300 requests/s", out, re.MULTILINE)
    assert re.search(r"^completed +7 +9 ", out, re.MULTILINE)
    assert re.search(r"^refused or failed +1 INTERNAL, 1 OVERLOADED +0 ", out, re.MULTILINE)
    with Client(server.target) as client:
        assert list(client.sessions.list()) == []


def test_json_says_the_same(server, capsys, monkeypatch):
    busy = iter(range(100))
    stage = fake_cluster.FakeCluster._stage

    def busier(self, number, slots, pages):
        made = stage(self, number, slots, pages)
        made.busy_seconds = next(busy)
        return made

    monkeypatch.setattr(fake_cluster.FakeCluster, "_stage", busier)
    args = ("--concurrency", "1,2", "--requests", "3", "--prompt", "5", "--output", "4", "--json")
    code, out, _ = bench(server, capsys, *args)
    found = json.loads(out)
    assert (code, found["complete"], found["prompt"], found["output"]) == (0, True, "5", "4")
    assert [(run["rate"], run["streams"], run["completed"]) for run in found["runs"]] == [(None, 1, 3), (None, 2, 3)]
    for measured in found["runs"]:
        assert measured["tokens_per_s"] * measured["seconds"] == pytest.approx(12)
        assert measured["prompt_tokens_per_s"] * measured["seconds"] == pytest.approx(15)
        assert len(measured["stages"]) == 2
        assert measured["bubble"] == pytest.approx(1 - measured["utilisation"])
        assert measured["utilisation"] > 0


def test_a_pipeline_that_was_rebuilt_has_no_utilisation(capsys, monkeypatch):
    epochs = iter(range(1, 9))
    status = fake_cluster.FakeCluster.Status

    def rebuilt(self, request, context):
        reply = status(self, request, context)
        reply.epoch = next(epochs)
        return reply

    monkeypatch.setattr(fake_cluster.FakeCluster, "Status", rebuilt)
    with FakeServer() as server:  # which binds its methods when it starts
        _, out, _ = bench(server, capsys, "--concurrency", "1", "--requests", "1", "--json")
    assert json.loads(out)["runs"][0]["bubble"] is None


def test_ctrl_c_shows_what_was_measured_so_far(server, capsys):
    server.fail_next(errors.Internal("A fault."))
    for _ in range(4):
        server.hold_next(after=1)

    def interrupt():
        server.wait_call(4)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    code, out, err = bench(server, capsys, "--rate", "1000,5", "--requests", "5", "--json")
    thread.join()
    found = json.loads(out)
    assert (code, found["complete"], len(found["runs"])) == (130, False, 1)
    assert found["runs"][0]["unfinished"] == 4
    assert "so far" in err
    assert all(call.wait_ended() for call in server.calls)


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["--rate", "0"], "say --concurrency, too"),
        (["--rate", "1", "--concurrency", "2"], "not both"),
        (["--rate", "x"], "rate is 'x'"),
        (["--rate", "nan"], "rate is 'nan'"),
        (["--concurrency", "1.5"], "concurrency is '1.5'"),
        (["--concurrency", "5000"], "concurrency is '5000'"),
        (["--concurrency", "1", "--seconds", "3"], "--requests and not --seconds"),
        (["--prompt", "4-2"], "prompt is '4-2'"),
        (["--objective", "fast"], "objective has 'fast'"),
        (["--requests", "0"], "'--requests'"),
    ],
)
def test_mistakes_are_one_sentence(server, capsys, args, sentence):
    code, out, err = bench(server, capsys, *args)
    assert (code in {1, 2}, out, err.count("error: ")) == (True, "", 1)
    assert sentence in err
    assert not server.calls


def test_no_server_is_one_sentence(capsys):
    assert main(["bench", "serve", "127.0.0.1:1", "--requests", "1"]) == 1
    assert re.fullmatch("\\s*error: .*127.0.0.1:1.*\n", capsys.readouterr().err)


def test_a_plot_without_matplotlib_is_one_sentence(server, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, _, err = bench(server, capsys, "--plot", "a.png")
    assert (code, err) == (1, "error: --plot needs matplotlib: pip install 'trireme-inference[bench]'\n")


def test_a_plot(server, capsys, tmp_path):
    pytest.importorskip("matplotlib")
    file = tmp_path / "load.png"
    args = ("--rate", "100,200", "--requests", "4", "--objective", "ttft=1s")
    assert bench(server, capsys, *args, "--plot", str(file))[0] == 0
    assert file.read_bytes().startswith(b"\x89PNG")
    assert bench(server, capsys, *args, "--plot", str(tmp_path / "no" / "a.png"))[0] == 1
