"""What tracing costs: answers of two servers in turns, one that traces as by default, one that does not at all.

Both run all the time, on the same pack; a server without work uses hardly any CPU. The one that traces delivers to a
collector in this process. Owns the turns; what is made of them is in tracing_figures.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from time import perf_counter, sleep
from typing import TYPE_CHECKING

from trireme import Client
from trireme.cli.server_process import ServerProcess, serve_command
from trireme.cli.trace_sink import sink
from trireme.cli.tracing_figures import TracingCost, Turn, figures
from trireme_proto.errors import ConfigurationError

if TYPE_CHECKING:
    import psutil

PROMPT = "Once upon a time, there was"
_START_S = 600.0
_LEAST = 16
"""Tokens of an answer that make a figure."""
_DELIVERY_S = 6.0
"""After which the last spans have left: OpenTelemetry's delay is 5 s."""
_OFF = {"OTEL_TRACES_EXPORTER": "none"}

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class _Server:
    client: Client
    process: psutil.Process
    """The coordinator."""

    def cpu_seconds(self) -> float:
        """That the coordinator has used so far; the stages are processes of their own."""
        times = self.process.cpu_times()
        return times.user + times.system


def measure(
    pack: Path | None, stages: int, threads: int, tokens: int, rounds: int, share: float | None, say: Say
) -> TracingCost:
    """`share`: of requests that are delivered; None: the default. ConfigurationError where answers are too short."""
    options = ["--threads", str(threads), *([str(pack)] if pack else [])]
    traced = [] if share is None else ["--trace-share", str(share)]
    with sink() as (taking, endpoint), ExitStack() as stack:
        servers = []
        for name, more, environment in (
            ("without", ["--trace-buffer-mb", "0"], _OFF),
            ("with", traced, {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}),
        ):
            say(f"a server {name} traces")
            servers.append(_server(stack, serve_command(stages, *more, *options), environment, say))
            _turn(servers[-1], tokens)  # warms up
        before = [server.cpu_seconds() for server in servers]
        turns = [_round(servers, tokens, i, rounds, say) for i in range(rounds)]
        say("waits until the last spans have left")
        sleep(_DELIVERY_S)
        off, on = (1e6 * (s.cpu_seconds() - b) / (rounds * tokens) for s, b in zip(servers, before, strict=True))
    return figures(turns, (off, on), pack.name if pack else "bundled", stages, tokens, share, taking.batches)


def _server(stack: ExitStack, command: Sequence[str], environment: dict[str, str], say: Say) -> _Server:
    import psutil  # noqa: PLC0415  (comes with the server that this command starts)

    server = stack.enter_context(ServerProcess(command, environment=environment))
    client = stack.enter_context(Client(server.wait_ready(_START_S, say), timeout=_START_S))
    return _Server(client, psutil.Process(server.pid))


def _round(servers: Sequence[_Server], tokens: int, number: int, rounds: int, say: Say) -> tuple[Turn, Turn]:
    """(off, on), which of them first in turn."""
    say(f"round {number + 1} of {rounds}")
    order = (0, 1) if number % 2 == 0 else (1, 0)
    found = {which: _turn(servers[which], tokens) for which in order}
    return found[0], found[1]


def _turn(server: _Server, tokens: int) -> Turn:
    times: list[float] = []
    with server.client.generate(PROMPT, max_tokens=tokens, temperature=0.0, ignore_eos=True) as stream:
        for chunk in stream:
            times += [perf_counter()] * len(chunk.token_ids)
    if len(times) < _LEAST:
        raise ConfigurationError(f"an answer has {len(times)} tokens; {_LEAST} are needed for a figure")
    gaps = sorted(later - earlier for earlier, later in pairwise(times))
    p99 = gaps[min(len(gaps) - 1, int(0.99 * len(gaps)))]
    return Turn((len(times) - 1) / (times[-1] - times[0]), 1e3 * p99)
