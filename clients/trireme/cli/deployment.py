"""A plan held against the deployment: what `trireme plan` predicts for this machine, and what serving on it then does.

Every figure comes from another command of this installation, as a user would run them: `serve` serves and answers come
over gRPC, `probe` measures the machine in turns with them, while the stages have nothing to do, and `plan` predicts.
Owns the turns and the comparison.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from rich.table import Table

from trireme import Client
from trireme.cli.server_process import ServerProcess, serve_command
from trireme_proto.errors import ConfigurationError

_START_S = 1200.0
"""A large pack is hashed at the start."""
_LEAST = 8
"""Tokens of an answer that make a figure."""
_LOOPBACK_MS = 0.2
GB = 1e9

Say = Callable[[str], None]
Node = dict[str, Any]


@dataclass(frozen=True)
class Deployment:
    """The field names are the JSON keys. Seconds, bytes and tokens/s of one stream.

    read_gb_s            plain read bandwidth, the median of all turns; read_drift: the highest by the lowest
    bytes_per_token      of weights; of_fp16: by what the model would read with 16 bits a weight
    limit_tokens_per_s   read_gb_s by bytes_per_token; of_limit: tokens_per_s by it
    planned_*            what `trireme plan` says; *_error: planned by measured, less 1
    rss_bytes            of each stage, the most that was seen: weights are mapped and count once they are read
    """

    model: str
    parameters: int
    layout: str
    stages: int
    threads: int
    prompt: int
    tokens: int
    rounds: int
    start_s: float
    read_gb_s: float
    read_drift: float
    bytes_per_token: int
    of_fp16: float
    limit_tokens_per_s: float
    tokens_per_s: float
    of_limit: float
    planned_tokens_per_s: float
    tokens_per_s_error: float
    ttft_s: float
    planned_ttft_s: float
    ttft_error: float
    rss_bytes: list[int]


@dataclass(frozen=True)
class Asked:
    """What is deployed, and what is asked of it."""

    pack: Path
    stages: int
    threads: int
    prompt: int
    """Tokens of each prompt."""
    tokens: int
    """Of each answer."""
    rounds: int
    """Answers that count; medians are taken."""


@dataclass(frozen=True)
class _Served:
    start_s: float
    tokens_per_s: float
    ttft_s: float
    rss_bytes: list[int]
    parameters: int
    layout: str
    machines: list[Node]
    """As measured, in turns with the answers."""


def measure(asked: Asked, say: Say) -> Deployment:
    """Plans, deploys and compares.  ConfigurationError: one of the commands does not run, or an answer is short."""
    before = _probe(asked.threads, say)  # of memory, the server leaves little
    served = _serve(asked, say)
    reads = [machine["read_gb_s"] for machine in served.machines]
    read = statistics.median(reads)
    macs = statistics.median(machine["int8_gmac_s"] for machine in served.machines)
    plan = _plan(asked, before | {"read_gb_s": read, "int8_gmac_s": macs})
    limit = read * GB / plan["bytes_per_token"]
    return Deployment(
        model=plan["model"],
        parameters=served.parameters,
        layout=served.layout,
        stages=asked.stages,
        threads=asked.threads,
        prompt=asked.prompt,
        tokens=asked.tokens,
        rounds=asked.rounds,
        start_s=served.start_s,
        read_gb_s=read,
        read_drift=max(reads) / min(reads),
        bytes_per_token=plan["bytes_per_token"],
        of_fp16=plan["bytes_per_token"] / plan["fp16_bytes_per_token"],
        limit_tokens_per_s=limit,
        tokens_per_s=served.tokens_per_s,
        of_limit=served.tokens_per_s / limit,
        planned_tokens_per_s=plan["tokens_per_s_single"],
        tokens_per_s_error=plan["tokens_per_s_single"] / served.tokens_per_s - 1,
        ttft_s=served.ttft_s,
        planned_ttft_s=plan["ttft_s"],
        ttft_error=plan["ttft_s"] / served.ttft_s - 1,
        rss_bytes=served.rss_bytes,
    )


def _probe(threads: int, say: Say) -> Node:
    say("measuring the machine")
    found: Node = _json("probe", "--threads", str(threads), "--json")["nodes"][0]
    return found


def _plan(asked: Asked, machine: Node) -> dict[str, Any]:
    """Of as many nodes as stages: they share this machine, but one stream keeps only one of them busy at a time."""
    nodes = [machine | {"name": f"stage-{i}", "rtt_ms": _LOOPBACK_MS} for i in range(asked.stages)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "nodes.yaml")
        path.write_text(json.dumps({"nodes": nodes}))  # JSON is YAML
        options = ["--stages", str(asked.stages), "--prompt", str(asked.prompt)]
        options += ["--context", str(asked.prompt + asked.tokens // 2)]
        found: dict[str, Any] = _json("plan", str(asked.pack), "--nodes", str(path), *options, "--json")
        return found


def _serve(asked: Asked, say: Say) -> _Served:
    kv_tokens = 16 * -(-(asked.prompt + asked.tokens) // 16)
    options = ["--threads", str(asked.threads), "--kv-tokens", str(kv_tokens), "--speculation", "off"]
    began = monotonic()
    with ServerProcess(serve_command(asked.stages, *options, str(asked.pack))) as server:
        target = server.wait_ready(_START_S, say)
        start_s = monotonic() - began
        with Client(target, timeout=_START_S) as client:
            return _answers(client, asked, start_s, say)


def _answers(client: Client, asked: Asked, start_s: float, say: Say) -> _Served:
    speeds, waits, rss = [], [], [0] * asked.stages
    model, machines = client.status().model, [_probe(asked.threads, say)]
    for i in range(asked.rounds + 1):  # the first one warms up
        say(f"answer {i} of {asked.rounds}")
        prompt = [(7919 * (i + 1) * (n + 1)) % model.vocabulary for n in range(asked.prompt)]  # no two begin alike
        answer = client.generate(prompt, max_tokens=asked.tokens, temperature=0.0, ignore_eos=True).result()
        if answer.tokens_per_s is None or answer.ttft_s is None or len(answer.token_ids) < _LEAST:
            raise ConfigurationError(f"an answer has {len(answer.token_ids)} tokens; {_LEAST} are needed for a figure")
        speeds.append(answer.tokens_per_s)
        waits.append(answer.ttft_s)
        machines.append(_probe(asked.threads, say))
        rss = [max(old, stage.rss_bytes) for old, stage in zip(rss, client.status().stages, strict=True)]
    medians = statistics.median(speeds[1:]), statistics.median(waits[1:])
    return _Served(start_s, *medians, rss, model.parameters, model.layout, machines[1:])


def _json(*arguments: str) -> Any:
    command = [sys.executable, "-m", "trireme", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  # this program's own
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise ConfigurationError(f"`trireme {arguments[0]}` does not run: {last[0]}")
    return json.loads(done.stdout)


def table(found: Sequence[Deployment]) -> Table:
    """Measured beside planned."""
    made = Table("", "measured", "planned", "error", "limit", "of limit", box=None, padding=(0, 2, 0, 0))
    for each in found:
        made.add_row(
            f"{each.model}, {each.stages} stages: tokens/s",
            f"{each.tokens_per_s:.2f}",
            f"{each.planned_tokens_per_s:.2f}",
            f"{each.tokens_per_s_error:+.1%}",
            f"{each.limit_tokens_per_s:.2f}",
            f"{each.of_limit:.2f}",
        )
        made.add_row(
            f"first token of {each.prompt}, s",
            f"{each.ttft_s:.2f}",
            f"{each.planned_ttft_s:.2f}",
            f"{each.ttft_error:+.1%}",
        )
        made.add_row("memory of the stages, GB", " + ".join(f"{rss / GB:.2f}" for rss in each.rss_bytes))
        made.add_row("weights read a token, GB", f"{each.bytes_per_token / GB:.2f}", f"{each.of_fp16:.3f} of fp16")
        made.add_row("start, s", f"{each.start_s:.1f}")
    return made
