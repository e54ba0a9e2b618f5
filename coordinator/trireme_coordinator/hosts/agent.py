"""What runs on a host: one request in, progress and one result out. Sent over ssh's standard input, so it is one file
that needs Python's own library alone, and what it is told, secrets included, is on no command line.

It owns a folder of the deployment (files 0600, folders 0700), starts processes in sessions of their own and remembers
each with its start time, so that it ends exactly what it started and nothing whose number was given away since. It
never decides: what is to be stopped, written and started is worked out by the caller (changes.py).
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import json
import os
import platform
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

MARK = "trireme-agent "
"""Begins every line that is ours: a login shell may print others."""
_ENVIRONMENT_MARK = "_TRIREME_STARTED_AS"
_POLL_SECONDS = 0.1
_PROGRESS_SECONDS = 2.0
_TAIL_BYTES = 8192
_LONGEST_LINE = 300
_TRIES = 3
_LATE_SECONDS = 15
_BAD_WORDS = ("error", "exception", "unable", "failed", "refused", "timed out")
_VERSIONS = "import importlib.metadata as m; print(m.version('trireme-inference'), m.version('ray'))"

Json = dict[str, Any]


class Refused(Exception):
    """The host cannot do what it is asked for; the message is one clear sentence."""


def main(request: Json) -> None:
    """Does what `request` says and prints the result. The exit code is 0 whatever comes of it."""
    work: dict[str, Callable[[Path, Json], Json]] = {"look": look, "apply": apply, "purge": purge}
    root = Path(request["root"]).expanduser().absolute()
    try:
        _say({"result": work[request["do"]](root, request)})
    except Refused as error:
        _say({"refused": str(error)})
    except OSError as error:
        _say({"refused": f"{error.strerror or 'Input/output error'}: {error.filename or root}."})


def look(root: Path, request: Json) -> Json:
    """Facts about the host, and what of ours runs on it. Changes nothing."""
    python = _installed(root) or _program(request["python"])
    home = next(each for each in (root, *root.parents) if each.exists())
    return {
        "root": str(root),
        "python": python,
        "installed": _installed(root, "digest"),
        "python_version": platform.python_version(),
        "versions": _versions(python, request["env"]),
        "free_bytes": shutil.disk_usage(home).free,
        "shared_bytes": shutil.disk_usage("/dev/shm").free if Path("/dev/shm").is_dir() else 0,  # noqa: S108
        "pack": _has_pack(request["pack"]),
        "writable": os.access(home, os.W_OK),
        "systemd": Path("/run/systemd/system").is_dir(),
        "busy": [port for port in request["ports"] if _taken(request["address"], port)],
        "files": {name: _digest(root / name) for name in request["files"]},
        "wheels": _wheels(root) if request.get("wheels") else {},
        "processes": {path.stem: _described(_read(path)) for path in sorted((root / "run").glob("*.json"))},
    }


def apply(root: Path, request: Json) -> Json:
    """Takes the steps in turn. Where one fails, what the ones before it started is stopped again."""
    begun: list[str] = []
    with _locked(root):
        try:
            results = [_step(root, step, begun) for step in request["steps"]]
        except (Refused, OSError):
            for name in reversed(begun):
                stop(root, name, 10, tell=False)  # perhaps nobody listens any more
            raise
    return {"started": begun, "results": results}


def purge(root: Path, _: Json) -> Json:
    """Removes the folder, once nothing of ours runs."""
    if any(_record_alive(_read(path)) for path in (root / "run").glob("*.json")):
        raise Refused("Processes still run; take them down first.")
    if (root / "run").is_dir():
        shutil.rmtree(root)
    return {}


def _step(root: Path, step: Json, begun: list[str]) -> Any:
    match step:
        case {"write": name, "data": data}:
            return _write(root / name, base64.b64decode(data))
        case {"folder": name}:
            return (root / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        case {"secret": name}:
            return _secret(root / name)
        case {"install": requirement}:
            return _install(root, requirement, step)
        case {"stop": name, "seconds": seconds}:
            return stop(root, name, seconds)
        case {"start": name}:
            begun.append(name)
            return start(root, name, step)
    raise Refused("The step is not known: this host's agent and its caller differ.")


# Processes.


def start(root: Path, name: str, step: Json) -> str:
    """Starts a process and waits until its log has the line; the identity of this start. Refused when it ends first;
    one that ends late was only waited for too shortly by something inside, and gets another try.
    """
    for folder in (root / "logs", root / "run"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for folder in map(Path, step.get("folders", ())):
        _empty(folder)
    for left in reversed(range(_TRIES)):
        began = time.monotonic()
        try:
            return _start(root, name, step)
        except Refused as error:
            if time.monotonic() - began < _LATE_SECONDS or not left or "was not ready" in str(error):
                raise
            _say({"progress": f"{error} Trying again."})
            stop(root, name, 5)
    raise Refused(f"{name} could not be started.")


def _start(root: Path, name: str, step: Json) -> str:
    identity = secrets.token_hex(8)
    environment = {**os.environ, **step["env"], _ENVIRONMENT_MARK: identity}
    path = root / "logs" / f"{name}.log"
    if path.exists():
        path.replace(path.with_suffix(".log.1"))
    with path.open("xb") as log:
        process = subprocess.Popen(  # noqa: S603  what the caller's hosts.yaml says
            step["argv"], env=environment, cwd=root, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
    record = {"pid": process.pid, "born": _born(process.pid), "boot": _boot(), "identity": identity,
              "since": int(time.time()), "spec": step["spec"]}  # fmt: skip
    _write(root / "run" / f"{name}.json", json.dumps(record).encode())
    _wait(name, process, path, step["ready"], step["seconds"])
    return identity


def _wait(name: str, process: subprocess.Popen[bytes], log: Path, ready: str, seconds: float) -> None:
    began = told = time.monotonic()
    while ready not in log.read_text(errors="replace"):
        now = time.monotonic()
        if process.poll() is not None:
            raise Refused(f"{name} ended while it started: {_last_words(log, bad=True)}")
        if now - began > seconds:
            raise Refused(f"{name} was not ready within {seconds:.0f} s; its last words: {_last_words(log)}")
        if now - told > _PROGRESS_SECONDS:  # also finds out that nobody listens any more
            told = now
            _say({"progress": f"{name}: {_last_words(log, 'starting')}"})
        time.sleep(_POLL_SECONDS)


def stop(root: Path, name: str, seconds: float, *, tell: bool = True) -> bool:
    """Asks a process and, after `seconds`, makes it and all that came of it end; whether anything ran."""
    path = root / "run" / f"{name}.json"
    record = _read(path)
    family = _family(record)
    began = told = time.monotonic()
    if _record_alive(record):
        _signal(record["pid"], signal.SIGTERM)
    while _record_alive(record) and time.monotonic() - began < seconds:
        time.sleep(_POLL_SECONDS)
        if tell and time.monotonic() - told > _PROGRESS_SECONDS:
            told = time.monotonic()
            _say({"progress": f"{name}: stopping"})
    _end_all(record, family)
    path.unlink(missing_ok=True)
    return bool(family)


def _end_all(record: Json, family: dict[int, str]) -> None:
    """SIGTERM, and SIGKILL after two seconds, for what is left of a process's descendants."""
    began = time.monotonic()
    for how in (signal.SIGTERM, signal.SIGKILL):
        family |= _family(record)
        for pid, born in family.items():
            if _born(pid) == born:
                _signal(pid, how)
        while any(_born(pid) == born for pid, born in family.items()) and time.monotonic() - began < 2.0:
            time.sleep(_POLL_SECONDS)
    began = time.monotonic()
    while any(_born(pid) == born for pid, born in family.items()):
        if time.monotonic() - began > 10:
            raise Refused("A process does not end, even when killed.")
        time.sleep(_POLL_SECONDS)


def _family(record: Json) -> dict[int, str]:
    """Start times by process id: the process, its session, those with its mark, and all descendants of these."""
    if not record or record["boot"] != _boot():
        return {}
    table = {pid: stat for pid in _pids() if (stat := _stat(pid))}
    lead = table.get(record["pid"])
    if lead is not None and lead["born"] != record["born"]:
        return {}  # the number was given to somebody else, which Linux does once the whole session has ended
    mark = f"{_ENVIRONMENT_MARK}={record['identity']}".encode()
    found = {pid for pid, stat in table.items() if stat["session"] == record["pid"] or mark in _environment(pid)}
    while more := {pid for pid, stat in table.items() if stat["parent"] in found} - found:
        found |= more
    return {pid: table[pid]["born"] for pid in found - {os.getpid()}}


def _record_alive(record: Json) -> bool:
    return bool(record) and record["boot"] == _boot() and _born(record["pid"]) == record["born"]


def _described(record: Json) -> Json:
    family = _family(record)
    return record | {"alive": _record_alive(record), "left": len(family), "bytes": sum(map(_resident, family))}


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


def _born(pid: int) -> str:
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


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _last_words(log: Path, silent: str = "nothing.", *, bad: bool = False) -> str:
    """The last line of a log; with `bad` the last that speaks of a fault, where one does."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    faults = [line for line in lines if bad and any(word in line.lower() for word in _BAD_WORDS)]
    return ((faults or lines)[-1] if lines else silent)[:_LONGEST_LINE]


# Files and programs.


def _write(path: Path, data: bytes) -> None:
    """All of a file or nothing of it, readable by its owner alone."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        new.unlink()
    with open(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:  # noqa: PTH123
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def _empty(folder: Path) -> None:
    """A folder with nothing in it; what was there is kept beside it, once."""
    old = folder.with_name(f"{folder.name}.old")
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        folder.replace(old)
    folder.mkdir(mode=0o700, parents=True)


def _secret(path: Path) -> str:
    """The content of a file; 32 random bytes in hexadecimal where there is none yet."""
    if not path.exists():
        _write(path, secrets.token_hex(32).encode())
    return path.read_text()


def _read(path: Path) -> Json:
    try:
        found: Json = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return found


def _digest(path: Path) -> str:
    """SHA-256 of a file; empty where there is none."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
    return ""


def _wheels(root: Path) -> dict[str, str]:
    return {path.name: _digest(path) for path in sorted((root / "wheels").glob("*")) if path.is_file()}


def _keep_only(wheels: Path, names: list[str]) -> None:
    """Without the wheels of former installations: pip would take them for this one's."""
    for path in wheels.glob("*"):
        if path.name not in names:
            path.unlink()


@contextlib.contextmanager
def _locked(root: Path) -> Iterator[None]:
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (root / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused("Another 'trireme up' or 'down' is at work on this host.") from None
        yield


def _program(name: str) -> str:
    path = os.path.expanduser(name)  # noqa: PTH111  a bare name must stay one
    return shutil.which(path) or path


def _installed(root: Path, what: str = "python") -> str:
    return str(_read(root / "installed.json").get(what, ""))


def _versions(python: str, env: dict[str, str]) -> list[str]:
    """Versions of Trireme and Ray; empty where they are not installed."""
    try:
        done = subprocess.run(  # noqa: S603
            [python, "-c", _VERSIONS],
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    except FileNotFoundError:
        return []
    return done.stdout.split()


def _has_pack(path: str | None) -> bool:
    return path is None or (Path(path).expanduser() / "trireme.json").is_file()


def _taken(address: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
            probe.listen(1)
        except PermissionError:
            raise Refused(f"Port {port} is for root alone; choose one above 1023.") from None
        except OSError as error:
            if error.errno == 99:  # EADDRNOTAVAIL
                raise Refused(f"The address {address} is not one of this host's own.") from None
            return True
    return False


def _install(root: Path, requirement: str, step: Json) -> str:
    """A virtual environment with Trireme in it, beside those before; they go once the new one is complete."""
    folder = root / f"venv-{step['digest'][:12]}"
    python = folder / "bin" / "python"
    find = ["--no-index", "--find-links", str(root / "wheels")] if step["offline"] else []
    wanted = str(root / "wheels" / requirement) if step["is_file"] else requirement
    shutil.rmtree(folder, ignore_errors=True)
    _keep_only(root / "wheels", step["wheels"])
    pip = [str(python), "-m", "pip", "install", "--no-input", "--disable-pip-version-check", *find]
    try:
        _run("python -m venv", [step["python"], "-m", "venv", str(folder)], step["env"])
        _run("pip", [*pip, f"{wanted}[server]" if step["is_file"] else wanted], step["env"])
    except Refused:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    _write(root / "installed.json", json.dumps({"python": str(python), "digest": step["digest"]}).encode())
    return str(python)


def _run(name: str, command: list[str], env: dict[str, str]) -> None:
    process = subprocess.Popen(  # noqa: S603
        command, env={**os.environ, **env}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    line = "it said nothing."
    told = time.monotonic()
    for each in process.stdout or ():
        line = each.strip() or line
        if time.monotonic() - told > _PROGRESS_SECONDS:
            told = time.monotonic()
            _say({"progress": f"{name}: {line[:100]}"})
    if process.wait():
        raise Refused(f"{name} failed: {line}")


def _say(value: Json) -> None:
    sys.stdout.write(f"{MARK}{json.dumps(value)}\n")
    sys.stdout.flush()
