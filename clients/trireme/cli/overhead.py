"""What serving adds to the kernels: tokens/s of one stream over gRPC, beside the bare kernel loop on the same pack.

The bare loop (`trireme bench decode`) is a process of its own that takes turns with the answers: the machine's speed
changes meanwhile, and a server without work uses no CPU. Owns the turns; what a step costs, the processes measure.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
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
    of_bare           the median, over the turns, of an answer's speed by the mean of the bare loop's before and after
    bare_drift        the highest of the bare loop's speeds by the lowest
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
    return [_one(pack, count, threads, tokens, rounds, say) for count in stages]


def _one(pack: Path, stages: int, threads: int, tokens: int, rounds: int, say: Say) -> Overhead:
    bare: list[float] = []
    served = _served(pack, stages, threads, tokens, rounds, say, lambda: bare.append(_bare(pack, threads, tokens, say)))
    shares = [each / statistics.mean(around) for each, around in zip(served, pairwise(bare), strict=True)]
    return Overhead(
        pack=pack.name,
        stages=stages,
        threads=threads,
        tokens=tokens,
        rounds=rounds,
        tokens_per_s=statistics.median(served),
        bare_tokens_per_s=statistics.median(bare),
        of_bare=statistics.median(shares),
        bare_drift=max(bare) / min(bare),
    )


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


def _served(
    pack: Path, stages: int, threads: int, tokens: int, rounds: int, say: Say, between: Callable[[], None]
) -> list[float]:
    """Tokens/s of `rounds` answers; calls `between` before the first, between them and after the last."""
    options = ("--threads", str(threads), "--speculation", "off", str(pack))  # the bare loop guesses nothing either
    with ServerProcess(serve_command(stages, *options)) as server:
        target = server.wait_ready(_START_S, say)
        with Client(target, timeout=_START_S, api_key="", ca="", cert="", key="") as client:
            _answer(client, tokens)  # warms up
            speeds = []
            for i in range(rounds):
                between()
                say(f"{stages} stages over gRPC, answer {i + 1} of {rounds}")
                speeds.append(_answer(client, tokens))
            between()
    return speeds


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
