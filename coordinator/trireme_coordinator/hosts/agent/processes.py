"""Processes that the agent started: remembered with their start time, so that what ends is exactly what was started and
nothing whose number was given away since; ended with all that came of them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from trireme_coordinator.hosts.agent.files import read
from trireme_coordinator.hosts.agent.words import PROGRESS_SECONDS, Json, Refused, say

ENVIRONMENT_MARK = "_TRIREME_STARTED_AS"
POLL_SECONDS = 0.1


def stop(root: Path, name: str, seconds: float, *, tell: bool = True) -> bool:
    """Asks a process and, after `seconds`, makes it and all that came of it end; whether anything ran."""
    path = root / "run" / f"{name}.json"
    record = read(path)
    family = _family(record)
    began = told = time.monotonic()
    if record_alive(record):
        _signal(record["pid"], signal.SIGTERM)
    while record_alive(record) and time.monotonic() - began < seconds:
        time.sleep(POLL_SECONDS)
        if tell and time.monotonic() - told > PROGRESS_SECONDS:
            told = time.monotonic()
            say({"progress": f"{name}: stopping"})
    _end_all(record, family)
    path.unlink(missing_ok=True)
    return bool(family)


def _end_all(record: Json, family: dict[int, str]) -> None:
    """SIGTERM, and SIGKILL after two seconds, for what is left of a process's descendants."""
    began = time.monotonic()
    for how in (signal.SIGTERM, signal.SIGKILL):
        family |= _family(record)
        for pid, born in family.items():
            if born_at(pid) == born:
                _signal(pid, how)
        while any(born_at(pid) == born for pid, born in family.items()) and time.monotonic() - began < 2.0:
            time.sleep(POLL_SECONDS)
    began = time.monotonic()
    while any(born_at(pid) == born for pid, born in family.items()):
        if time.monotonic() - began > 10:
            raise Refused("A process does not end, even when killed.")
        time.sleep(POLL_SECONDS)


def _family(record: Json) -> dict[int, str]:
    """Start times by process id: the process, its session, those with its mark, and all descendants of these."""
    if not record or record["boot"] != boot():
        return {}
    table = {pid: stat for pid in _pids() if (stat := _stat(pid))}
    lead = table.get(record["pid"])
    if lead is not None and lead["born"] != record["born"]:
        return {}  # the number was given to somebody else, which Linux does once the whole session has ended
    mark = f"{ENVIRONMENT_MARK}={record['identity']}".encode()
    found = {pid for pid, stat in table.items() if stat["session"] == record["pid"] or mark in _environment(pid)}
    while more := {pid for pid, stat in table.items() if stat["parent"] in found} - found:
        found |= more
    return {pid: table[pid]["born"] for pid in found - {os.getpid()}}


def record_alive(record: Json) -> bool:
    """Whether what was started still runs."""
    return bool(record) and record["boot"] == boot() and born_at(record["pid"]) == record["born"]


def described(record: Json) -> Json:
    """A record with what there is of it: whether it runs, processes left, resident bytes."""
    family = _family(record)
    return record | {"alive": record_alive(record), "left": len(family), "bytes": sum(map(_resident, family))}


def _pids() -> list[int]:
    return [int(each.name) for each in Path("/proc").iterdir() if each.name.isdigit()]


def _stat(pid: int) -> Json | None:
    """Parent, session and start time of a process that has not ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    if fields[0] in "ZX":  # ended; only its parent has not taken note
        return None
    return {"parent": int(fields[1]), "session": int(fields[3]), "born": fields[19]}


def born_at(pid: int) -> str:
    """Start time in ticks since boot; empty where the process has ended."""
    stat = _stat(pid)
    return "" if stat is None else stat["born"]


def _environment(pid: int) -> list[bytes]:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return []


def _resident(pid: int) -> int:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def boot() -> str:
    """Identity of the machine's present run: process ids mean nothing beyond it."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
