"""One run: a cluster, clients, the nemesis, and the verdict."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.fault import clients, looks
from tests.fault.checker import Violation, check
from tests.fault.cluster import Cluster, Shape, running
from tests.fault.history import History, around, line_of
from tests.fault.judge import Judge
from tests.fault.kinds import choose, rules
from tests.fault.nemesis import Nemesis
from tests.fault.rates import SHARE, check_rates
from tests.fault.report import report
from tests.fault.requests import Chain, make_chains, right_answers
from tests.fault.schedule import schedule

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be run."""

    seed: int
    seconds: float
    """That clients are about, faults included."""
    shape: Shape
    callers: int = 6
    kinds: tuple[str, ...] = ()
    """Empty: all that work here."""
    share: float = SHARE
    """Of the undisturbed rate that must come back after a fault."""
    command: str = ""
    """That runs it again."""


async def run(plan: Plan, path: Path, say: Say) -> dict[str, Any]:
    """Figures of a run, whose history is at `path`."""
    chosen = choose(plan.shape, plan.kinds)
    say(f"Faults: {', '.join(chosen.enabled)}")
    for kind, reason in chosen.left_out.items():
        say(f"  without {kind}: {reason}")
    chains = make_chains(plan.seed)
    answers = await asyncio.to_thread(right_answers, chains)
    say(f"Starting a cluster: {plan.shape}")
    async with running(plan.shape) as cluster:
        with History(path) as history:
            judge = Judge(history, answers, rules(plan.shape))
            span = await _disturb(plan, chosen.enabled, cluster, chains, judge, say)
        violations = [
            *check(history.events, answers, rules(plan.shape)),
            *check_rates(history.events, *span, share=plan.share),
        ]
        if violations:
            _keep_logs(cluster, path)
    show(violations, history, plan, say)
    what = {"command": plan.command, "seed": plan.seed, "seconds": plan.seconds, "clients": plan.callers}
    what |= {"shape": asdict(plan.shape), "left_out": dict(chosen.left_out)}
    return report(history.events, violations, span, what)


async def _disturb(
    plan: Plan, kinds: tuple[str, ...], cluster: Cluster, chains: tuple[Chain, ...], judge: Judge, say: Say
) -> tuple[float, float]:
    """Clients and nemesis; returns when the clients began and ended."""
    history, numbers = judge.history, clients.numbers()
    await _warm_up(plan, cluster, chains, history, numbers)
    await looks.books(cluster, "before", history)
    nemesis = Nemesis(cluster, history)
    targets = [cluster.target, cluster.relayed_target]
    callers = [clients.Caller(n, targets[n % 2], chains, plan.seed, history, numbers) for n in range(plan.callers)]
    async with _meanwhile(looks.watch_machine(history), _probing(cluster, history), _told(plan, judge, nemesis, say)):
        begun = history.now()
        async with asyncio.TaskGroup() as group:
            for caller in callers:
                group.create_task(caller.run())
            await nemesis.run(schedule(plan.seed, plan.seconds, kinds))
            await asyncio.sleep(max(begun + plan.seconds - history.now(), 0))
            ended = history.now()
            for caller in callers:
                caller.leave()
    await looks.offer_old_work(cluster, history)
    await clients.sweep(cluster.target)
    await looks.books(cluster, "after", history)
    return begun, ended


async def _warm_up(
    plan: Plan, cluster: Cluster, chains: tuple[Chain, ...], history: History, numbers: Iterator[int]
) -> None:
    """Every request a few times: what is made when it is first needed is there before the books are read."""
    callers = [clients.Caller(-n, cluster.target, chains, plan.seed, history, numbers) for n in range(1, 4)]
    await asyncio.gather(*(caller.once(chains) for caller in callers))
    await clients.sweep(cluster.target)


async def _probing(cluster: Cluster, history: History) -> None:
    while True:
        await asyncio.sleep(3)
        await looks.offer_old_work(cluster, history)


async def _told(plan: Plan, judge: Judge, nemesis: Nemesis, say: Say) -> None:
    """A line of progress, again and again."""
    start = time.monotonic()
    while True:
        await asyncio.sleep(5)
        judge.catch_up()
        at = time.monotonic() - start
        faults = " ".join(f"{kind}:{n}" for kind, n in sorted(nemesis.done.items()))
        say(
            f"{at:4.0f} of {plan.seconds:.0f} s  faults {nemesis.done.total()} ({faults})  tokens {judge.tokens}"
            f"  calls {judge.calls} ({judge.failed} failed)  violations {judge.violations}"
        )


@contextlib.asynccontextmanager
async def _meanwhile(*work: Any) -> AsyncIterator[None]:
    """Runs these until the block is left. What one of them raises is raised when it is."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome


def show(violations: list[Violation], history: History, plan: Plan, say: Say) -> None:
    """Each violation with the part of the history that shows it, and how to see it again."""
    for violation in violations[:20]:
        say(f"VIOLATION {violation.invariant} at {violation.t:.2f} s: {violation.sentence}")
        for event in around(history.events, violation.t, 3.0, violation.call)[-40:]:
            say(f"    {line_of(event)[:300]}")
    if violations:
        say(f"{len(violations)} violations. Again: {plan.command}")


def _keep_logs(cluster: Cluster, path: Path) -> None:
    """Beside the history, before the cluster's folder goes."""
    folder = path.with_suffix(".logs")
    folder.mkdir(exist_ok=True)
    for log in [*cluster.folder.glob("*.log"), *cluster.folder.glob("*/session_latest/logs/worker-*")]:
        (folder / log.name).write_bytes(log.read_bytes()[-200_000:])


def say_on_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201  progress
