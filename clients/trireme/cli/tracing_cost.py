"""What tracing costs: answers of two servers in turns, one that traces as by default, one that does not at all.

Both run all the time, on the same pack; a server without work uses no CPU. The one that traces delivers to a collector
in this process, which takes everything and looks at nothing. Owns the turns and the figures.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Any

import grpc
from rich.table import Table

from trireme import Client
from trireme.cli.server_process import ServerProcess, serve_command
from trireme_proto.errors import ConfigurationError

PROMPT = "Once upon a time, there was"
_START_S = 600.0
_LEAST = 16
"""Tokens of an answer that make a figure."""
_EXPORT = "opentelemetry.proto.collector.trace.v1.TraceService"
_OFF = {"OTEL_TRACES_EXPORTER": "none"}

Say = Callable[[str], None]


@dataclass(frozen=True)
class TracingCost:
    """The field names are the JSON keys. A figure is the median over the rounds; `off` and `on` are turns of one run.

    tokens_per_s      of one stream, from its first token to its last
    itl_p99_ms        99th percentile of the time between two tokens of an answer
    rate_cost         how much fewer tokens/s with tracing: the median over the rounds of 1 - on / off
    itl_cost          how much longer the 99th percentile is: likewise of on / off - 1
    noise             the middle half of the rounds' `rate_cost`, from its lower to its upper end
    """

    pack: str
    stages: int
    tokens: int
    rounds: int
    share: float | None
    tokens_per_s_off: float
    tokens_per_s_on: float
    itl_p99_ms_off: float
    itl_p99_ms_on: float
    rate_cost: float
    itl_cost: float
    noise: float
    exported_requests: int


@dataclass(frozen=True, slots=True)
class _Turn:
    rate: float
    p99_ms: float


class Sink(grpc.GenericRpcHandler):
    """A collector that takes every batch."""

    def __init__(self) -> None:
        self.batches = 0

    def service(self, handler_call_details: Any) -> Any:
        """Answers Export of traces, and nothing else."""
        if not handler_call_details.method.startswith(f"/{_EXPORT}/"):
            return None
        return grpc.unary_unary_rpc_method_handler(self._take)

    def _take(self, _request: bytes, _context: Any) -> bytes:
        self.batches += 1
        return b""


@contextmanager
def sink() -> Iterator[tuple[Sink, str]]:
    """A collector on a free loopback port, and its address."""
    taking, server = Sink(), grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((taking,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield taking, f"http://127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def measure(
    pack: Path | None, stages: int, threads: int, tokens: int, rounds: int, share: float | None, say: Say
) -> TracingCost:
    """`share`: of requests that are delivered; None: the default. ConfigurationError where answers are too short."""
    options = ["--threads", str(threads), *([str(pack)] if pack else [])]
    traced = [] if share is None else ["--trace-share", str(share)]
    with sink() as (taking, endpoint), ExitStack() as stack:
        clients = []
        for name, more, environment in (
            ("without", ["--trace-buffer-mb", "0"], _OFF),
            ("with", traced, {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}),
        ):
            say(f"a server {name} traces")
            command = serve_command(stages, *more, *options)
            server = stack.enter_context(ServerProcess(command, environment=environment))
            clients.append(stack.enter_context(Client(server.wait_ready(_START_S, say), timeout=_START_S)))
            _turn(clients[-1], tokens)  # warms up
        turns = [_round(clients, tokens, i, rounds, say) for i in range(rounds)]
    return _result(turns, pack, stages, tokens, share, taking.batches)


def _round(clients: Sequence[Client], tokens: int, number: int, rounds: int, say: Say) -> tuple[_Turn, _Turn]:
    """(off, on), which of them first in turn."""
    say(f"round {number + 1} of {rounds}")
    order = (0, 1) if number % 2 == 0 else (1, 0)
    found = {which: _turn(clients[which], tokens) for which in order}
    return found[0], found[1]


def _turn(client: Client, tokens: int) -> _Turn:
    times: list[float] = []
    with client.generate(PROMPT, max_tokens=tokens, temperature=0.0, ignore_eos=True) as stream:
        for chunk in stream:
            times += [perf_counter()] * len(chunk.token_ids)
    if len(times) < _LEAST:
        raise ConfigurationError(f"an answer has {len(times)} tokens; {_LEAST} are needed for a figure")
    gaps = sorted(later - earlier for earlier, later in pairwise(times))
    return _Turn((len(times) - 1) / (times[-1] - times[0]), 1e3 * gaps[min(len(gaps) - 1, int(0.99 * len(gaps)))])


def _result(
    turns: Sequence[tuple[_Turn, _Turn]], pack: Path | None, stages: int, tokens: int, share: float | None, batches: int
) -> TracingCost:
    costs = [1 - on.rate / off.rate for off, on in turns]
    quarters = statistics.quantiles(costs, n=4) if len(costs) > 1 else [costs[0]] * 3
    return TracingCost(
        pack=pack.name if pack else "bundled",
        stages=stages,
        tokens=tokens,
        rounds=len(turns),
        share=share,
        tokens_per_s_off=statistics.median(off.rate for off, _ in turns),
        tokens_per_s_on=statistics.median(on.rate for _, on in turns),
        itl_p99_ms_off=statistics.median(off.p99_ms for off, _ in turns),
        itl_p99_ms_on=statistics.median(on.p99_ms for _, on in turns),
        rate_cost=statistics.median(costs),
        itl_cost=statistics.median(on.p99_ms / off.p99_ms - 1 for off, on in turns),
        noise=quarters[2] - quarters[0],
        exported_requests=batches,
    )


def table(found: TracingCost) -> Table:
    """Both ways, side by side."""
    made = Table("", "tokens/s", "ITL p99", box=None, padding=(0, 2, 0, 0))
    made.add_row("traces off", f"{found.tokens_per_s_off:.1f}", f"{found.itl_p99_ms_off:.2f} ms")
    made.add_row("traces on", f"{found.tokens_per_s_on:.1f}", f"{found.itl_p99_ms_on:.2f} ms")
    made.add_row("cost", f"{found.rate_cost:+.2%} (rounds differ by {found.noise:.2%})", f"{found.itl_cost:+.2%}")
    return made
