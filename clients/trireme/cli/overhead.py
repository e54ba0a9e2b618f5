"""What serving adds to the kernels: tokens/s of one stream over gRPC, beside the bare kernel loop on the same pack.

The bare loop (`trireme bench decode`) is a process of its own that runs before and after the server: a machine that
changed its speed meanwhile shows. Owns the turns; what a step costs is measured by the processes.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from trireme import Client
from trireme.cli.server_process import ServerProcess, serve_command
from trireme_proto.errors import ConfigurationError

PROMPT = "Once upon a time, there was"
_START_S = 600.0
"""A large pack is hashed at the start."""
_LEAST = 16
"""Tokens of an answer that make a figure."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Overhead:
    """The field names are the JSON keys.

    stages            over which the layers were split, on this machine, each with `threads` kernel threads
    tokens_per_s      of one stream, from its first token to its last: the median of `rounds` answers of `tokens`
    bare_tokens_per_s of the loop over all layers and the head, at the middle of the answer's positions
    of_bare           the one by the other
    bare_drift        the bare loop's speed after the server by that before it
    """

    pack: str
    stages: int
    threads: int
    tokens: int
    rounds: int
    tokens_per_s: float
    bare_tokens_per_s: float
    of_bare: float
    bare_drift: float


def measure(pack: Path, stages: Sequence[int], threads: int, tokens: int, rounds: int, say: Say) -> list[Overhead]:
    """One result for each number of stages.  ConfigurationError: the bare loop does not run, or an answer is short."""
    found = []
    bare = _bare(pack, threads, tokens, say)
    for count in stages:
        served = _served(pack, count, threads, tokens, rounds, say)
        after = _bare(pack, threads, tokens, say)
        both = statistics.mean((bare, after))
        found.append(
            Overhead(pack.name, count, threads, tokens, rounds, served, both, served / both, bare_drift=after / bare)
        )
        bare = after
    return found


def _bare(pack: Path, threads: int, tokens: int, say: Say) -> float:
    say("the bare kernel loop")
    options = ["--threads", str(threads), "--context", str(max(1, tokens // 2)), "--json"]
    command = [sys.executable, "-m", "trireme", "bench", "decode", str(pack), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  # this program's own
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise ConfigurationError(f"the bare loop does not run: {last[0]}")
    result: dict[str, Any] = json.loads(done.stdout)
    return float(result["tokens_per_s"])


def _served(pack: Path, stages: int, threads: int, tokens: int, rounds: int, say: Say) -> float:
    options = ("--threads", str(threads), "--speculation", "off", str(pack))  # the bare loop guesses nothing either
    with ServerProcess(serve_command(stages, *options)) as server:
        target = server.wait_ready(_START_S, say)
        with Client(target, timeout=_START_S) as client:
            speeds = []
            for i in range(rounds + 1):  # the first one warms up
                say(f"{stages} stages over gRPC, answer {i} of {rounds}")
                speeds.append(_answer(client, tokens))
    return statistics.median(speeds[1:])


def _answer(client: Client, tokens: int) -> float:
    """Tokens/s from the first token to the last."""
    answer = client.generate(PROMPT, max_tokens=tokens, temperature=0.0).result()
    if answer.tokens_per_s is None or answer.usage.completion_tokens < _LEAST:
        raise ConfigurationError(
            f"an answer has {answer.usage.completion_tokens} tokens; {_LEAST} are needed for a figure"
        )
    return answer.tokens_per_s


def table(found: Sequence[Overhead]) -> Table:
    """Tokens/s of one stream through the service, and of the bare kernels."""
    made = Table("stages", "threads", "tokens/s", "bare loop", "of bare", box=None, padding=(0, 2, 0, 0))
    for each in found:
        speeds = f"{each.tokens_per_s:.1f}", f"{each.bare_tokens_per_s:.1f}", f"{each.of_bare:.2f}"
        made.add_row(str(each.stages), str(each.threads), *speeds)
    return made
