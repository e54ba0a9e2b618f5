"""The order of things over several hosts, on hosts that exist in memory only."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from trireme_coordinator.hosts.desired import RAY_ENVIRONMENT, Files
from trireme_coordinator.hosts.hosts_file import Host, read_hosts
from trireme_coordinator.hosts.outcome import Report
from trireme_coordinator.hosts.rollout import Rollout
from trireme_proto.errors import StartupError

NO_FILES = Files()
A, B, C = "10.0.0.1", "10.0.0.2", "10.0.0.3"
FILE: dict[str, Any] = {
    "hosts": [{"host": A, "roles": ["coordinator"]}, {"host": B}, {"host": C}],
    "serve": {"stages": 2},
    "folder": "/srv/t",
}


class Machines:
    """Agents in memory: `log` has what changed, `broken` what fails, by (host, what)."""

    def __init__(self) -> None:
        self.log: list[tuple[str, str, str]] = []
        self.facts: dict[str, dict[str, Any]] = {}
        self.broken: dict[tuple[str, str], str] = {}
        self.processes: dict[str, dict[str, Any]] = {}
        self.files: dict[str, dict[str, str]] = {}
        self._starts = 0

    async def call(self, host: Host, request: dict[str, Any], tell: Callable[[str], None]) -> dict[str, Any]:
        if sentence := self.broken.get((host.name, request["do"])):
            raise StartupError(sentence)
        if request["do"] == "look":
            return self._look(host.name)
        if request["do"] == "purge":
            self.log.append((host.name, "purge", ""))
            return {}
        started: list[str] = []
        return {"results": [self._step(host.name, step, started) for step in request["steps"]], "started": started}

    def _look(self, name: str) -> dict[str, Any]:
        found = {
            "root": "/srv/t", "python": "python3", "python_version": "3.12.1", "versions": ["0.1.0", "2.60.0"],
            "installed": "",
            "free_bytes": 10**11, "shared_bytes": 10**9, "pack": True, "writable": True, "busy": [],
            "files": self.files.get(name, {}), "wheels": {},
            "processes": copy.deepcopy(self.processes.setdefault(name, {})),
        }  # fmt: skip
        return found | self.facts.get(name, {})

    def _step(self, name: str, step: dict[str, Any], started: list[str]) -> Any:
        match step:
            case {"start": what}:
                self._starts += 1
                self.log.append((name, "start", what))
                if sentence := self.broken.get((name, what)):
                    raise StartupError(sentence)
                started.append(what)
                self.processes[name][what] = {
                    "alive": True, "left": 3, "pid": 7, "since": 1, "bytes": 1, "spec": step["spec"],
                    "env": step["env"], "identity": f"start-{self._starts}",
                }  # fmt: skip
                return f"start-{self._starts}"
            case {"stop": what}:
                self.log.append((name, "stop", what))
                self.processes[name].pop(what, None)
                return True
            case {"secret": _}:
                return "token"
            case {"write": what}:
                self.files.setdefault(name, {})[what] = hashlib.sha256(base64.b64decode(step["data"])).hexdigest()
                self.log.append((name, "write", what))
        return None


class Case:
    def __init__(self, folder: Path, machines: Machines) -> None:
        self.folder, self.machines = folder, machines

    async def up(self, file: dict[str, Any] = FILE, local: Files = NO_FILES, **options: Any) -> Report:
        return await self._run(file, local, "up", options)

    async def down(self, file: dict[str, Any] = FILE, **options: Any) -> Report:
        return await self._run(file, Files(), "down", options)

    async def _run(self, file: dict[str, Any], local: Files, what: str, options: dict[str, Any]) -> Report:
        path = self.folder / "hosts.yaml"
        path.write_text(json.dumps(file))
        hosts = read_hosts(path)
        report = Report([host.name for host in hosts.hosts])
        self.machines.log.clear()
        purge = {"purge": True} if options.pop("purge", False) else {}
        rollout = Rollout(hosts, local, report, self.machines.call, **options)
        await getattr(rollout, what)(**purge)
        return report

    @property
    def log(self) -> list[tuple[str, str, str]]:
        return [each for each in self.machines.log if each[1] != "write"]


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path, Machines())


async def test_head_then_nodes_then_coordinator(case: Case) -> None:
    report = await case.up()
    assert case.log[0] == (A, "start", "ray")
    assert sorted(case.log[1:3]) == [(B, "start", "ray"), (C, "start", "ray")]
    assert case.log[3:] == [(A, "start", "coordinator")]
    assert not report.failures
    assert case.machines.processes[A]["coordinator"]["env"]["TRIREME_RAY_NODES"] == "2"


async def test_a_second_time_changes_nothing(case: Case) -> None:
    await case.up()
    report = await case.up()
    assert case.machines.log == []
    assert report.summary() == [f"3 unchanged: {A}, {B}, {C}"]


async def test_only_what_differs_is_changed_one_node_after_the_other(case: Case) -> None:
    await case.up()
    hosts = [FILE["hosts"][0], {"host": B, "ram_gb": 2}, {"host": C, "ram_gb": 2}]
    report = await case.up(FILE | {"hosts": hosts})
    assert case.log == [(B, "stop", "ray"), (B, "start", "ray"), (C, "stop", "ray"), (C, "start", "ray")]
    assert report.outcomes[B].changes == ["starts ray anew: nothing becomes --memory=2000000000"]
    report = await case.up(FILE | {"hosts": hosts, "serve": {"stages": 3}})
    assert case.log == [(A, "stop", "coordinator"), (A, "start", "coordinator")]
    assert report.outcomes[A].changes == ["starts coordinator anew: 2 becomes 3"]


async def test_a_node_that_has_ended_is_started_again_and_nothing_else(case: Case) -> None:
    await case.up()
    case.machines.processes[B]["ray"]["alive"] = False
    await case.up()
    assert case.log == [(B, "stop", "ray"), (B, "start", "ray")]


async def test_with_a_new_head_everything_is_started_anew(case: Case) -> None:
    await case.up()
    case.machines.processes[A]["ray"]["alive"] = False
    report = await case.up()
    assert [each for each in case.log if each[1] == "start"] == [
        (A, "start", "ray"), (B, "start", "ray"), (C, "start", "ray"), (A, "start", "coordinator"),
    ]  # fmt: skip
    assert report.outcomes[B].changes == [f"starts ray anew: ray on {A} was started anew"]


async def test_a_host_that_cannot_be_reached_is_left_out_and_joins_later(case: Case) -> None:
    case.machines.broken[B, "look"] = "ssh cannot connect."
    report = await case.up()
    assert report.failures == {B: "ssh cannot connect."}
    assert report.summary() == [f"2 changed: {A}, {C}; 1 failed: {B}", f"{B}: ssh cannot connect."]
    assert case.machines.processes[A]["coordinator"]["env"]["TRIREME_RAY_NODES"] == "1"
    case.machines.broken.clear()
    await case.up()
    assert case.log == [(B, "start", "ray")]


async def test_a_node_that_does_not_start_leaves_the_others_alone(case: Case) -> None:
    case.machines.broken[C, "ray"] = "ray ended."
    report = await case.up()
    assert report.failures == {C: "ray ended."}
    assert "coordinator" in case.machines.processes[A]


async def test_without_the_head_nothing_is_touched(case: Case) -> None:
    case.machines.broken[A, "look"] = "ssh cannot connect."
    report = await case.up()
    assert case.machines.log == []
    assert report.failures[A] == "ssh cannot connect."
    assert report.failures[B] == f"Ray's head cannot run on {A}, so that there is nothing to join."


async def test_where_the_head_refuses_its_token_nothing_is_started(case: Case) -> None:
    case.machines.broken[A, "apply"] = "No space left on device."
    report = await case.up()
    assert case.machines.log == []
    assert report.failures == {
        A: "No space left on device.",
        B: f"Ray's head did not start on {A}.",
        C: f"Ray's head did not start on {A}.",
    }


async def test_without_any_worker_the_head_is_taken_back(case: Case) -> None:
    for name in (B, C):
        case.machines.broken[name, "ray"] = "ray ended."
    report = await case.up()
    assert case.machines.processes == {A: {}, B: {}, C: {}}
    assert report.failures[A] == "No host takes stages, so that no coordinator can serve."


async def test_without_a_coordinator_what_this_run_started_is_taken_back(case: Case) -> None:
    case.machines.broken[A, "coordinator"] = "coordinator ended: There is no pack."
    report = await case.up()
    assert case.machines.processes == {A: {}, B: {}, C: {}}
    assert case.log[-1] == (A, "stop", "ray")
    assert report.failures == {A: "coordinator ended: There is no pack."}


TWO = FILE | {"hosts": [{"host": A, "roles": ["coordinator"]}, {"host": B, "roles": ["coordinator"]}, {"host": C}]}
URL = Files(redis_url="redis://:p@10.0.0.9:6379/0")


async def test_of_two_coordinators_one_may_fail(case: Case, tmp_path: Path) -> None:
    (tmp_path / "url").write_text("x")
    case.machines.broken[B, "coordinator"] = "coordinator ended."
    report = await case.up(TWO | {"redis": {"url-file": "url"}}, URL)
    assert report.failures == {B: "coordinator ended."}
    assert case.machines.processes[B] == {}
    assert case.machines.processes[A].keys() == {"ray", "coordinator"}
    assert case.machines.processes[A]["coordinator"]["env"]["TRIREME_REDIS_URL"] == URL.redis_url
    assert ":p@" not in json.dumps(case.machines.processes[A]["coordinator"]["spec"])


async def test_new_certificates_are_written_and_nothing_is_started_anew(case: Case, tmp_path: Path) -> None:
    for name in ("c", "k"):
        (tmp_path / name).write_text("x")
    file = FILE | {"tls": {"cert": "c", "key": "k"}}
    await case.up(file, Files(tls={"cert": b"1", "key": b"1"}))
    report = await case.up(file, Files(tls={"cert": b"2", "key": b"1"}))
    assert case.machines.log == [(A, "write", "tls/tls.crt")]
    assert report.outcomes[A].changes == ["updates tls/tls.crt"]


@pytest.mark.parametrize(
    ("fact", "sentence"),
    [
        ({"writable": False}, "Its folder cannot be written to."),
        ({"versions": []}, "Trireme is not installed for 'python3'; name another 'python', or use --install."),
        ({"versions": ["0.2.0", "2.60.0"]}, "It has Trireme 0.2.0, and the first coordinator 0.1.0."),
        ({"versions": ["0.1.0", "2.61.0"]}, "It has Ray 2.61.0, and the first coordinator 2.60.0."),
        ({"python_version": "3.11.9"}, "It has Python 3.11, and the first coordinator 3.12; Ray needs the same."),
        ({"pack": False}, "There is no pack at the place that 'model' names (no trireme.json)."),
        ({"free_bytes": 10**8}, "It has 0.1 GB free; it needs 0.5 GB."),
        ({"shared_bytes": 64 << 20}, "Its /dev/shm has 64 MiB free; Ray needs 80 MiB."),
        (
            {"root": "/srv/" + 40 * "x"},
            f"The folder '/srv/{40 * 'x'}' has too long a name for Ray's sockets; choose a sh",
        ),
        ({"busy": [6380]}, "Another program listens on port 6380, which ray needs; choose another in 'ports'."),
    ],
)
async def test_what_is_wrong_with_a_host_is_said_before_it_is_touched(
    case: Case, fact: dict[str, Any], sentence: str
) -> None:
    case.machines.facts[B] = fact
    report = await case.up()
    assert report.failures.keys() == {B}
    assert report.failures[B].startswith(sentence)
    assert not [each for each in case.machines.log if each[0] == B]


async def test_a_port_that_our_own_process_has_is_not_busy(case: Case) -> None:
    await case.up()
    case.machines.facts[A] = {"busy": [50051, 6379, 6380]}
    assert not (await case.up()).failures


async def test_a_dry_run_says_and_changes_nothing(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    report = await case.up(dry=True)
    assert case.machines.log == []
    assert report.outcomes[B].changes == ["starts ray"]
    said = capsys.readouterr().err
    assert f"-m ray.scripts.scripts start --block --address={A}:6379 --node-ip-address={B}" in said
    assert f"-m trireme serve --data-dir /srv/t/sessions --listen {A}:50051" in said


async def test_down_stops_coordinators_first_and_the_head_last(case: Case) -> None:
    await case.up()
    await case.down()
    assert case.log[0] == (A, "stop", "coordinator")
    assert sorted(case.log[1:3]) == [(B, "stop", "ray"), (C, "stop", "ray")]
    assert case.log[3:] == [(A, "stop", "ray")]
    report = await case.down(purge=True)
    assert sorted(case.log) == [(A, "purge", ""), (B, "purge", ""), (C, "purge", "")]
    assert not report.failures


async def test_down_of_one_host(case: Case) -> None:
    await case.up()
    report = await case.down(chosen=[B])
    assert case.log == [(B, "stop", "ray")]
    assert report.outcomes[A].changes == []


async def test_down_says_which_host_could_not_be_reached(case: Case) -> None:
    await case.up()
    case.machines.broken[B, "look"] = "ssh cannot connect."
    report = await case.down()
    assert report.failures == {B: "ssh cannot connect."}
    assert case.machines.processes[A] == case.machines.processes[C] == {}


async def test_up_of_one_host_needs_the_head(case: Case) -> None:
    report = await case.up(chosen=[B])
    assert case.machines.log == []
    assert report.failures[A] == "ray does not run here as it should; bring this host up, too."
    await case.up()
    case.machines.processes[B].clear()
    await case.up(chosen=[B])
    assert case.log == [(B, "start", "ray")]


def test_rays_settings_are_those_of_the_chart() -> None:
    text = (Path(__file__).parents[3] / "helm/trireme/templates/configmap-ray.yaml").read_text()
    data = yaml.safe_load(text[text.index("\ndata:") :])["data"]
    assert data.pop("RAY_AUTH_TOKEN_PATH")
    assert {name: value for name, value in data.items() if "{{" not in value} == RAY_ENVIRONMENT
