"""Kills workers under running streams, and says whether anybody got another answer and how long it took to go on.

Starts a deployment of its own (see `app.py`) and talks to its engine. In each round some streams run, and the worker of
a random stage gets a signal when one of them has a random number of tokens, none included: then it is in its prompt.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from typing import Any

import psutil

from trireme_coordinator.app import Running, running
from trireme_coordinator.config import ServeConfig, split_address
from trireme_coordinator.engine import Engine
from trireme_coordinator.scheduler import Finish, SamplingParams
from trireme_coordinator.scheduler import Sequence as Request
from trireme_coordinator.telemetry import StepReport
from trireme_proto.errors import PipelineUnavailable, TriremeError
from trireme_proto.load import nearest_rank

SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}
_ROUND_SECONDS = 120.0
_PROMPT = (8, 96)
Report = Callable[[str], None]
"""Told what is being done."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do to whom."""

    kills: int
    stages: int
    streams: int
    tokens: int
    """Of each answer."""
    how: str
    """"kill" (SIGKILL) or "stop" (SIGSTOP: frozen, never to wake up)."""
    seed: int


@dataclass(frozen=True, slots=True)
class Spread:
    """Of seconds."""

    p50: float
    p95: float
    most: float


@dataclass(frozen=True, slots=True)
class Result:
    """The figures. Tokens are compared with those of undisturbed runs, position by position."""

    kills: int
    answers: int
    exact: int
    """Answers that are token for token the undisturbed ones."""
    failed: int
    """That ended with an error."""
    lost_tokens: int
    duplicated_tokens: int
    """Beyond the length of the undisturbed answer."""
    other_tokens: int
    """At a position where the undisturbed answer has another one."""
    recovery_s: Spread
    """From the signal to the next token of the stream that waited longest."""
    detection_s: Spread
    """From the signal to the verdict; part of the above."""
    rebuild_s: Spread
    """From the verdict until the pipeline was complete again; part of it, too."""
    causes: dict[str, int]
    """Verdicts."""

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return asdict(self)


class _Stream:
    """A listener that notes tokens and when they came; `at_tokens` are those after which it calls `strike`."""

    def __init__(self, at_tokens: int = -1, strike: Callable[[], None] = lambda: None) -> None:
        self.tokens: list[int] = []
        self.times: list[float] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.error: TriremeError | None = None
        self._at, self._strike = at_tokens, strike

    def admitted(self) -> None:
        """Its prompt comes next."""
        self._look()

    def timed(self, *, prefill: bool, tokens: int, step: StepReport) -> None:
        """Nothing to note."""

    def token(self, token_id: int) -> Finish | None:
        """Notes it."""
        self.tokens.append(token_id)
        self.times.append(time.monotonic())
        self._look()
        return None

    def finished(self, reason: Finish) -> None:  # noqa: ARG002
        """The answer is complete."""
        self.done.set_result(None)

    def failed(self, error: TriremeError) -> None:
        """The answer ends with an error."""
        self.error = error
        self.done.set_result(None)

    def _look(self) -> None:
        if len(self.tokens) == self._at:
            self._at = -1
            self._strike()


@dataclass(frozen=True, slots=True)
class _Struck:
    """One round's figures."""

    recovery_s: float
    detection_s: float
    rebuild_s: float
    cause: str


async def measure(plan: Plan, report: Report) -> Result:
    """Runs the plan. StartupError where the deployment does not start; PipelineUnavailable where it does not come
    back within two minutes.
    """
    chance = random.Random(plan.seed)
    config = ServeConfig(stages=plan.stages, listen="127.0.0.1:0", speculation="off")
    async with running(config, report) as server:
        requests = _requests(plan, server, chance)
        report("Undisturbed answers")
        calm = [_Stream() for _ in requests]
        await _run(plan, server.engine, requests, calm)
        struck: list[_Struck] = []
        answers: list[_Stream] = []
        for round_number in range(1, plan.kills + 1):
            report(f"Round {round_number} of {plan.kills}")
            done, figures = await _round(plan, server.engine, requests, chance)
            struck.append(figures)
            answers += done
    return _result(plan, struck, answers, [stream.tokens for stream in calm])


def _requests(plan: Plan, server: Running, chance: random.Random) -> list[tuple[list[int], SamplingParams]]:
    vocabulary = server.pack.config.vocabulary
    prompts = [[chance.randrange(vocabulary) for _ in range(chance.randint(*_PROMPT))] for _ in range(plan.streams)]
    how = [SamplingParams(0.9 if i % 2 else 0.0, 50, 0.95, plan.seed + i) for i in range(plan.streams)]
    return [(prompt, each) for prompt, each in zip(prompts, how, strict=True)]


async def _round(
    plan: Plan, engine: Engine, requests: Sequence[tuple[list[int], SamplingParams]], chance: random.Random
) -> tuple[list[_Stream], _Struck]:
    """One signal under running streams."""
    begun: list[float] = []
    if engine.pipeline is None:
        raise PipelineUnavailable("The pipeline was lost before anybody was killed.")
    victim, number = listener_of(chance.choice(engine.pipeline.addresses)), SIGNALS[plan.how]

    def strike() -> None:
        begun.append(time.monotonic())
        os.kill(victim, number)

    noticed = asyncio.ensure_future(_noticed(engine))
    streams = [_Stream() for _ in requests]
    streams[chance.randrange(len(streams))] = _Stream(chance.randrange(plan.tokens - 1), strike)
    await _run(plan, engine, requests, streams)
    verdict = await asyncio.wait_for(noticed, _ROUND_SECONDS)
    await asyncio.wait_for(engine.ready.wait(), _ROUND_SECONDS)
    again = verdict + engine.recoveries.events[-1].rebuild_s
    nexts = [next((t for t in s.times if t >= again), again) for s in streams]
    last = engine.recoveries.events[-1]
    return streams, _Struck(max(nexts) - begun[0], verdict - begun[0], last.rebuild_s, last.cause)


async def _noticed(engine: Engine) -> float:
    await engine.ready.wait()
    await engine.lost.wait()
    return time.monotonic()


async def _run(
    plan: Plan, engine: Engine, requests: Sequence[tuple[list[int], SamplingParams]], streams: Sequence[_Stream]
) -> None:
    """Returns when all streams have ended. PipelineUnavailable after two minutes."""
    for (prompt, how), stream in zip(requests, streams, strict=True):
        engine.submit(Request(list(prompt), how, plan.tokens), stream)
    _, late = await asyncio.wait([stream.done for stream in streams], timeout=_ROUND_SECONDS)
    if late:
        raise PipelineUnavailable("A stream did not go on within two minutes.")


def listener_of(address: str) -> int:
    """Id of the process of this machine that listens on HOST:PORT. PipelineUnavailable where there is none."""
    host, port = split_address(address)
    for each in psutil.net_connections("tcp"):  # gRPC's sockets are IPv6 ones, with IPv4 addresses in them
        if each.status != psutil.CONN_LISTEN or not each.pid:
            continue
        ip, its_port = tuple(each.laddr)
        if (str(ip).removeprefix("::ffff:"), its_port) == (host, port):
            return int(each.pid)
    raise PipelineUnavailable("A worker is not on this machine.")


def _result(
    plan: Plan, struck: Sequence[_Struck], answers: Sequence[_Stream], expected: Sequence[Sequence[int]]
) -> Result:
    wanted = [list(expected[i % len(expected)]) for i in range(len(answers))]
    pairs = [(answer.tokens, want) for answer, want in zip(answers, wanted, strict=True)]
    causes = [each.cause for each in struck]
    return Result(
        kills=plan.kills,
        answers=len(answers),
        exact=sum(got == want for got, want in pairs),
        failed=sum(answer.error is not None for answer in answers),
        lost_tokens=sum(max(0, len(want) - len(got)) for got, want in pairs),
        duplicated_tokens=sum(max(0, len(got) - len(want)) for got, want in pairs),
        other_tokens=sum(a != b for got, want in pairs for a, b in zip_longest(got, want) if None not in (a, b)),
        recovery_s=_spread([each.recovery_s for each in struck]),
        detection_s=_spread([each.detection_s for each in struck]),
        rebuild_s=_spread([each.rebuild_s for each in struck]),
        causes={cause: causes.count(cause) for cause in sorted(set(causes))},
    )


def _spread(seconds: Sequence[float]) -> Spread:
    ordered = sorted(seconds)
    return Spread(nearest_rank(ordered, 50), nearest_rank(ordered, 95), ordered[-1])
