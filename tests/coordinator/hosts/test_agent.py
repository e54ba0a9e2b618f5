"""The agent on this machine, with real processes."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from trireme_coordinator.hosts.agent.processes import born_at, stop
from trireme_coordinator.hosts.agent.program import program
from trireme_coordinator.hosts.agent.words import MARK

LOOK = {
    "do": "look",
    "python": "/nowhere/python",
    "env": {},
    "address": "127.0.0.1",
    "pack": None,
    "ports": [],
    "files": [],
}


def ask(root: Path, **request: Any) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-"], input=program({"root": str(root), **request}), stdout=-1, text=True, check=True
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    return json.loads(lines[-1].removeprefix(MARK))


def ended(pid: int) -> None:
    """Returns when it has; the test's own time limit is the longest wait."""
    while born_at(pid):
        time.sleep(0.001)


def start(code: str, name: str = "one", ready: str = "ready", seconds: float = 60) -> dict[str, Any]:
    argv = [sys.executable, "-c", code]
    return {"start": name, "argv": argv, "env": {"A": "1"}, "spec": {"a": 1}, "ready": ready, "seconds": seconds}


SERVES = "import time; print('ready', flush=True); time.sleep(600)"
FORKS = """
import subprocess, sys, time
one = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
two = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print(one.pid, two.pid, "ready", flush=True)
time.sleep(600)
"""
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)"
)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "root"
    for path in (tmp_path / "root" / "run").glob("*.json"):
        stop(tmp_path / "root", path.stem, 0)


def test_files_are_written_whole_and_for_their_owner_alone(root: Path) -> None:
    step = {"write": "secrets/token", "data": "c2VjcmV0"}
    assert "result" in ask(root, do="apply", steps=[step])
    path = root / "secrets" / "token"
    assert path.read_bytes() == b"secret"
    assert [p.stat().st_mode & 0o777 for p in (path, path.parent, root)] == [0o600, 0o700, 0o700]
    assert [each.name for each in path.parent.iterdir()] == ["token"]


def test_a_secret_is_made_once(root: Path) -> None:
    first, again = (ask(root, do="apply", steps=[{"secret": "s"}])["result"]["results"] for _ in range(2))
    assert first == again
    assert len(first[0]) == 64
    assert (root / "s").stat().st_mode & 0o777 == 0o600


def test_a_process_starts_is_seen_and_is_stopped(root: Path) -> None:
    done = ask(root, do="apply", steps=[start(SERVES)])["result"]
    seen = ask(root, **LOOK)["result"]["processes"]["one"]
    assert done["started"] == ["one"]
    assert (seen["alive"], seen["spec"], seen["identity"], seen["left"]) == (True, {"a": 1}, done["results"][0], 1)
    assert (root / "run" / "one.json").stat().st_mode & 0o777 == 0o600
    assert ask(root, do="apply", steps=[{"stop": "one", "seconds": 10}])["result"]["results"] == [True]
    assert not born_at(seen["pid"])
    assert ask(root, **LOOK)["result"]["processes"] == {}


def test_all_that_came_of_a_process_ends_with_it(root: Path) -> None:
    ask(root, do="apply", steps=[start(FORKS)])
    children = [int(word) for word in (root / "logs" / "one.log").read_text().split()[:2]]
    assert ask(root, **LOOK)["result"]["processes"]["one"]["left"] == 3
    ask(root, do="apply", steps=[{"stop": "one", "seconds": 10}])
    assert [born_at(pid) for pid in children] == ["", ""]


def test_what_a_killed_process_left_is_found_and_ended(root: Path) -> None:
    ask(root, do="apply", steps=[start(FORKS)])
    pid = json.loads((root / "run" / "one.json").read_text())["pid"]
    children = [int(word) for word in (root / "logs" / "one.log").read_text().split()[:2]]
    os.kill(pid, signal.SIGKILL)
    ended(pid)
    seen = ask(root, **LOOK)["result"]["processes"]["one"]
    assert (seen["alive"], seen["left"]) == (False, 2)
    ask(root, do="apply", steps=[{"stop": "one", "seconds": 10}])
    assert [born_at(pid) for pid in children] == ["", ""]


def test_who_does_not_listen_is_killed(root: Path) -> None:
    ask(root, do="apply", steps=[start(STUBBORN)])
    pid = json.loads((root / "run" / "one.json").read_text())["pid"]
    ask(root, do="apply", steps=[{"stop": "one", "seconds": 0}])
    assert not born_at(pid)


def test_a_number_that_was_given_away_is_not_touched(root: Path) -> None:
    ask(root, do="apply", steps=[start(SERVES)])
    path = root / "run" / "one.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"born": "1"}))
    assert not ask(root, **LOOK)["result"]["processes"]["one"]["alive"]
    ask(root, do="apply", steps=[{"stop": "one", "seconds": 0}])
    assert born_at(record["pid"]) == record["born"]
    path.write_text(json.dumps(record))


def test_before_a_restart_of_the_machine_counts_as_ended(root: Path) -> None:
    ask(root, do="apply", steps=[start(SERVES)])
    path = root / "run" / "one.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"boot": "earlier"}))
    assert not ask(root, **LOOK)["result"]["processes"]["one"]["alive"]
    ask(root, do="apply", steps=[{"stop": "one", "seconds": 0}])
    assert born_at(record["pid"]) == record["born"]
    path.write_text(json.dumps(record))


def test_a_start_that_fails_leaves_nothing(root: Path) -> None:
    fails = start("import sys; print('No pack there.'); sys.exit(1)", "two")
    answer = ask(root, do="apply", steps=[start(SERVES), fails])
    assert answer == {"refused": "two ended while it started: No pack there."}
    assert ask(root, **LOOK)["result"]["processes"] == {}


def test_a_start_that_takes_too_long_leaves_nothing(root: Path) -> None:
    slow = start("import time; print('loading', flush=True); time.sleep(600)", seconds=0)
    assert ask(root, do="apply", steps=[slow])["refused"].startswith("one was not ready within 0 s; its last words: ")
    assert ask(root, **LOOK)["result"]["processes"] == {}


def test_when_nobody_listens_any_more_the_start_is_taken_back(root: Path) -> None:
    text = program({"root": str(root), "do": "apply", "steps": [start("import time; time.sleep(600)")]})
    with subprocess.Popen([sys.executable, "-"], stdin=-1, stdout=-1, stderr=-1, text=True) as process:
        process.stdin.write(text.replace("PROGRESS_SECONDS = 2.0", "PROGRESS_SECONDS = 0.0"))
        process.stdin.close()
        assert "starting" in process.stdout.readline()
        pid = json.loads((root / "run" / "one.json").read_text())["pid"]
        process.stdout.close()
        process.wait()
    assert not born_at(pid)
    assert not list((root / "run").glob("*.json"))


def test_the_log_before_is_kept(root: Path) -> None:
    for _ in range(2):
        ask(root, do="apply", steps=[start(SERVES), {"stop": "one", "seconds": 10}])
    assert sorted(path.name for path in (root / "logs").iterdir()) == ["one.log", "one.log.1"]


def test_folders_are_empty_at_the_start_and_what_was_there_is_kept(root: Path) -> None:
    for number in (1, 2):
        step = start(SERVES) | {"folders": [str(root / "work")]}
        ask(root, do="apply", steps=[step, {"stop": "one", "seconds": 10}])
        assert list((root / "work").iterdir()) == []
        (root / "work" / str(number)).touch()
    assert [path.name for path in (root / "work.old").iterdir()] == ["1"]


def test_wheels_of_a_former_installation_are_removed_before_pip_sees_them(root: Path) -> None:
    (root / "wheels").mkdir(parents=True)
    for name in ("old.whl", "new.whl"):
        (root / "wheels" / name).touch()
    told = {"python": "/bin/false", "digest": "0" * 64, "offline": True, "is_file": True, "env": {}}
    done = ask(root, do="apply", steps=[{"install": "new.whl", "wheels": ["new.whl"], **told}])
    assert done == {"refused": "python -m venv failed: it said nothing."}
    assert [path.name for path in (root / "wheels").iterdir()] == ["new.whl"]


def test_of_environments_the_last_one_and_those_in_use_are_kept(root: Path) -> None:
    for name in ("venv-older", "venv-last", "venv-in-use"):
        (root / name / "bin").mkdir(parents=True)
    (root / "installed.json").write_text(json.dumps({"python": str(root / "venv-last" / "bin" / "python")}))
    (root / "run").mkdir()
    runs = {"spec": {"argv": [str(root / "venv-in-use" / "bin" / "python"), "-m", "ray"]}}
    (root / "run" / "ray.json").write_text(json.dumps(runs))
    told = {"python": "/bin/false", "digest": "0" * 64, "offline": False, "is_file": False, "env": {}, "wheels": []}
    ask(root, do="apply", steps=[{"install": "trireme-inference", **told}])
    assert {path.name for path in root.glob("venv-*")} == {"venv-last", "venv-in-use"}
    (root / "run" / "ray.json").unlink()


def test_two_at_once_are_refused(root: Path) -> None:
    root.mkdir()
    with (root / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert ask(root, do="apply", steps=[]) == {"refused": "Another 'trireme up' or 'down' is at work on this host."}


def test_facts(root: Path, tmp_path: Path) -> None:
    (tmp_path / "trireme.json").touch()
    listens = (
        "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); input()"
    )
    listener = subprocess.Popen([sys.executable, "-c", listens], stdin=-1, stdout=-1, text=True)
    port = int(listener.stdout.readline())
    request = LOOK | {"python": sys.executable, "pack": str(tmp_path), "ports": [port], "files": ["none"]}
    found = ask(root, **request)["result"]
    assert (found["busy"], found["pack"], found["files"]) == ([port], True, {"none": ""})
    assert len(found["versions"]) == 2
    assert not root.exists()  # to look changes nothing
    listener.communicate()
    found = ask(root, **(request | {"pack": str(root), "python": "/nowhere/python"}))["result"]
    assert (found["busy"], found["pack"], found["versions"]) == ([], False, [])


def test_an_address_of_another_machine(root: Path) -> None:
    answer = ask(root, **(LOOK | {"address": "192.0.2.1", "ports": [50051]}))
    assert answer == {"refused": "The address 192.0.2.1 is not one of this host's own."}


def test_purging_removes_the_folder_but_not_below_what_runs(root: Path) -> None:
    ask(root, do="apply", steps=[start(SERVES)])
    assert ask(root, do="purge") == {"refused": "Processes still run; take them down first."}
    ask(root, do="apply", steps=[{"stop": "one", "seconds": 10}])
    assert ask(root, do="purge") == {"result": {}}
    assert not root.exists()


def test_purging_leaves_a_folder_that_is_not_ours(tmp_path: Path) -> None:
    ask(tmp_path, do="purge")
    assert tmp_path.is_dir()
