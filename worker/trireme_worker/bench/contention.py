"""Whether more threads still pay when other processes want the same CPUs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from trireme_worker.bench.decode import trials
from trireme_worker.bench.engine import Engine, Weights
from trireme_worker.bench.interleave import Report, interleaved


def speedup(weights: Weights, layers: int, threads: int, rounds: int, report: Report) -> float:
    """Speed of decoding on `threads` threads over that on one, while as many foreign processes compute."""
    one, many = (Engine(weights, layers=layers, threads=n, context=1) for n in (1, threads))
    try:
        with busy(threads):
            timings = interleaved(trials(one, "1 thread: ") | trials(many, "all: "), rounds=rounds, report=report)
    finally:
        one.close()
        many.close()
    seconds = {name: sum(t.median for key, t in timings.items() if key.startswith(name)) for name in ("1 ", "all")}
    return seconds["1 "] / seconds["all"]


@contextmanager
def busy(count: int) -> Iterator[None]:
    """`count` processes that compute and nothing else; they end with the block."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
        for process in running:
            process.wait()
