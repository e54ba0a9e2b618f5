"""`python -m tests.fault`: faults injected into a real cluster for a while; ends with 1 where an invariant broke.

Where it may, it first moves into namespaces of its own (network and processes): then nodes can be cut off from each
other, no port is anybody else's, and whatever happens nothing outlives it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
from pathlib import Path

from tests.fault.cluster import Shape
from tests.fault.rates import SHARE
from tests.fault.report import markdown, write
from tests.fault.run import Plan, run, say_on_stderr

_INSIDE = "TF_INSIDE"
_APART = ["unshare", "--net", "--pid", "--fork", "--mount-proc", "--kill-child=KILL"]


def main() -> int:
    """The command."""
    options = _parser().parse_args()
    if options.network == "auto":
        options.network = "private" if _may_be_apart() else "host"
    if options.network == "private" and _INSIDE not in os.environ:
        command = [*_APART, "sh", "-c", 'ip link set lo up && exec "$@"', "sh", sys.executable, "-m", "tests.fault"]
        os.execvpe(command[0], [*command, *sys.argv[1:], "--network", "private"], os.environ | {_INSIDE: "1"})  # noqa: S606
    os.environ.pop(_INSIDE, None)
    options.history.parent.mkdir(parents=True, exist_ok=True)
    figures = asyncio.run(run(_plan(options), options.history, say_on_stderr))
    if options.report:
        write(figures, options.report)
    print(markdown(figures))  # noqa: T201
    return 1 if figures["violations"] else 0


def _plan(options: argparse.Namespace) -> Plan:
    shape = Shape(options.nodes, options.stages, options.coordinators, namespaces=options.network == "private")
    seconds = options.seconds or options.minutes * 60
    kinds = tuple(options.kinds.split(",")) if options.kinds else ()
    words = [f"--seed {options.seed}", f"--seconds {seconds:g}", f"--nodes {options.nodes} --stages {options.stages}"]
    words += [f"--coordinators {options.coordinators} --clients {options.clients}"]
    words += [f"--share {options.share:g} --network {options.network}"]
    words += [f"--kinds {options.kinds}"] if options.kinds else []
    command = f"python -m tests.fault {' '.join(words)}"
    return Plan(options.seed, seconds, shape, options.clients, kinds, options.share, command)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.fault", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--seconds", type=float, help="instead of minutes")
    parser.add_argument("--nodes", type=int, default=3, help="Ray nodes that may have stages")
    parser.add_argument("--stages", type=int, default=2)
    parser.add_argument("--coordinators", type=int, default=1)
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--kinds", default="", help="kinds of faults, with commas; else all that work here")
    parser.add_argument("--share", type=float, default=SHARE, help="of the undisturbed rate that must come back")
    parser.add_argument("--network", choices=("auto", "host", "private"), default="auto")
    parser.add_argument("--history", type=Path, default=Path("build/fault/history.jsonl"))
    parser.add_argument("--report", type=Path, help="FILE.json; the same as a page goes to FILE.md")
    return parser


def _may_be_apart() -> bool:
    if os.geteuid() != 0:
        return False
    links = "ip link set lo up && ip link add veth1 type veth peer name eth0 && ip link add hub type bridge"
    test = [*_APART, "sh", "-c", links]
    try:
        return subprocess.run(test, check=False, capture_output=True).returncode == 0
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(main())
