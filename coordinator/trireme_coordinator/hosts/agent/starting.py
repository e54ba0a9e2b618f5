"""Starting a process, and waiting until its log says that it is ready."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import time
from pathlib import Path

from trireme_coordinator.hosts.agent.files import empty, write
from trireme_coordinator.hosts.agent.processes import ENVIRONMENT_MARK, POLL_SECONDS, boot, born_at, stop
from trireme_coordinator.hosts.agent.words import PROGRESS_SECONDS, Json, Refused, last_words, say

_TRIES = 3
_LATE_SECONDS = 15


def start(root: Path, name: str, step: Json) -> str:
    """Starts a process and waits until its log has the line; the identity of this start. Refused when it ends first;
    one that ends late was only waited for too shortly by something inside, and gets another try.
    """
    for folder in (root / "logs", root / "run"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for folder in map(Path, step.get("folders", ())):
        empty(folder)
    for left in reversed(range(_TRIES)):
        began = time.monotonic()
        try:
            return _start(root, name, step)
        except Refused as error:
            if time.monotonic() - began < _LATE_SECONDS or not left or "was not ready" in str(error):
                raise
            say({"progress": f"{error} Trying again."})
            stop(root, name, 5)
    raise Refused(f"{name} could not be started.")


def _start(root: Path, name: str, step: Json) -> str:
    identity = secrets.token_hex(8)
    environment = {**os.environ, **step["env"], ENVIRONMENT_MARK: identity}
    path = root / "logs" / f"{name}.log"
    if path.exists():
        path.replace(path.with_suffix(".log.1"))
    with path.open("xb") as log:
        process = subprocess.Popen(  # noqa: S603  what the caller's hosts.yaml says
            step["argv"], env=environment, cwd=root, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
    record = {"pid": process.pid, "born": born_at(process.pid), "boot": boot(), "identity": identity,
              "since": int(time.time()), "spec": step["spec"]}  # fmt: skip
    write(root / "run" / f"{name}.json", json.dumps(record).encode())
    _wait(name, process, path, step["ready"], step["seconds"])
    return identity


def _wait(name: str, process: subprocess.Popen[bytes], log: Path, ready: str, seconds: float) -> None:
    began = told = time.monotonic()
    while ready not in log.read_text(errors="replace"):
        now = time.monotonic()
        if process.poll() is not None:
            raise Refused(f"{name} ended while it started: {last_words(log, bad=True)}")
        if now - began > seconds:
            raise Refused(f"{name} was not ready within {seconds:.0f} s; its last words: {last_words(log)}")
        if now - told > PROGRESS_SECONDS:  # also finds out that nobody listens any more
            told = now
            say({"progress": f"{name}: {last_words(log, 'starting')}"})
        time.sleep(POLL_SECONDS)
