"""One run of a load for each rate, or each number of streams, with the stages' busy times before and after."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from trireme import AsyncClient, Status
from trireme.bench.load import Clock, Load
from trireme_proto.errors import TriremeError
from trireme_proto.load import Arrival, Figures, Mix, Objective, Record, StageUse, figures, poisson, sequence

Report = Callable[[int, int, str], None]
"""Called with (requests ended, requests in all, what is being done)."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure. Rates and streams: one run each, the former of an open loop, the latter of a closed one."""

    rates: tuple[float, ...]
    streams: tuple[int, ...]
    prompt: Mix
    output: Mix
    requests: int | None
    seconds: float | None
    objective: Objective | None
    seed: int


@dataclass(frozen=True, slots=True)
class Run:
    """What came of one run. `rate`: requests a second, or `streams`: requests at once."""

    rate: float | None
    streams: int | None
    figures: Figures
    records: tuple[Record, ...]


async def measure(client: AsyncClient, plan: Plan, *, clock: Clock, report: Report) -> tuple[list[Run], bool]:
    """The runs of a plan, and whether they are complete: Ctrl-C ends the run that is under way, and with it the rest.

    Raises the client's errors where the server does not answer at all.
    """
    runs: list[Run] = []
    vocabulary = (await client.status()).model.vocabulary
    steps: list[tuple[float | None, int | None]] = [(rate, None) for rate in plan.rates]
    steps += [(None, streams) for streams in plan.streams]
    for rate, streams in steps:
        what = f"{rate:g} requests/s" if rate is not None else f"{streams} streams"
        load = Load(client, vocabulary, clock=clock, report=_said(report, what))
        before, started = await client.status(), clock.now()
        complete = await _until_interrupted(_loop(load, plan, rate, streams))
        ended = clock.now()
        use = await _stage_use(client, before, clock, started)
        found = figures(load.records, started=started, ended=ended, objective=plan.objective, stages=use)
        runs.append(Run(rate, streams, found, tuple(load.records)))
        report(0, 0, "deleting the sessions that were made")
        if not (await _until_interrupted(load.forget_sessions()) and complete):
            return runs, False
    return runs, True


def _said(report: Report, what: str) -> Callable[[int, int], None]:
    return lambda done, total: report(done, total, what)


def _loop(load: Load, plan: Plan, rate: float | None, streams: int | None) -> Coroutine[Any, Any, None]:
    if streams is not None:
        return load.closed_loop(_requests(plan), streams)
    arrivals = poisson(
        rate or 0.0,
        prompt=plan.prompt,
        output=plan.output,
        seed=plan.seed,
        requests=plan.requests,
        seconds=plan.seconds,
    )
    return load.open_loop(arrivals)


def _requests(plan: Plan) -> list[Arrival]:
    return sequence(plan.requests or 1, prompt=plan.prompt, output=plan.output, seed=plan.seed)


async def _until_interrupted(work: Coroutine[Any, Any, None]) -> bool:
    """Whether it came to its end; Ctrl-C cancels it."""
    task = asyncio.ensure_future(work)
    with _on_interrupt(task.cancel):
        await asyncio.wait({task})
    if task.cancelled():
        return False
    await task
    return True


@contextmanager
def _on_interrupt(act: Callable[[], object]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, act)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)


async def _stage_use(client: AsyncClient, before: Status, clock: Clock, started: float) -> Sequence[StageUse]:
    """Nothing where the pipeline was rebuilt meanwhile: its stages count anew then; nor where the server is gone."""
    try:
        after = await client.status()
    except TriremeError:
        return ()
    seconds = clock.now() - started
    if before.epoch != after.epoch or len(before.stages) != len(after.stages) or seconds <= 0:
        return ()
    pairs = zip(before.stages, after.stages, strict=True)
    return [
        StageUse(stage.stage, stage.node, (after_stage.busy_seconds - stage.busy_seconds) / seconds)
        for stage, after_stage in pairs
    ]
