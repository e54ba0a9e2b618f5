"""What `trireme bench resume` measures: the next request of a session whose keys and values no stage holds any more.

Real stages in this process, real gRPC between them, and a real Valkey server as the page store. A first request makes
the session; then, in turns, its next one computes all of it again, and restores it. The answers must be the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from collections.abc import Sequence as Items
from contextlib import AsyncExitStack
from dataclasses import dataclass
from random import Random
from statistics import median
from typing import cast

from trireme_coordinator.bench.harness import Recorder, runs, served
from trireme_coordinator.engine import Engine
from trireme_coordinator.page_store import embedded_page_store
from trireme_coordinator.placement import partition
from trireme_coordinator.scheduler import Finish, PageKeys, SamplingParams, SchedulerConfig, Sequence
from trireme_coordinator.scheduler.budget import PAGE_TOKENS, pages_for
from trireme_kernels import KvFormat
from trireme_proto.errors import ConfigurationError, Internal
from trireme_proto.limits import LIMITS
from trireme_proto.load import Record
from trireme_proto.v1 import stage_pb2 as pb
from trireme_worker.actor import page_store, warm_up
from trireme_worker.bench import memory
from trireme_worker.bench.engine import Weights
from trireme_worker.pack import Pack
from trireme_worker.page_redis import StoreSettings, shared_secret
from trireme_worker.page_store import PageStore
from trireme_worker.stage import StageModel
from trireme_worker.stepper import Stepper

_TURN = 8
"""Tokens of the session's next prompt, and of its answer."""
_SLOTS = 2
_TTL_SECONDS = 3600
_FLUSH_SECONDS = 60.0
_UNNAMED = "0" * 64
"""In place of the hash of a pack, for weights that are none."""
Report = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured, and on what."""

    stages: int
    threads: int
    """Of each stage."""
    tokens: int
    """Of the session."""
    kv_dtype: str
    rounds: int


@dataclass(frozen=True, slots=True)
class Result:
    """Medians; times in seconds."""

    model: str
    stages: int
    threads: int
    kv_dtype: str
    tokens: int
    restored_tokens: int
    bytes: int
    """Of the restored pages, on all stages."""
    ttft_prefill_s: float
    ttft_restore_s: float
    speedup: float
    fetch_s: float
    """From the question to the page store to the pages in the stages' memory; a part of the time to first token."""
    bytes_per_s: float
    """While they were read."""
    quicker: str
    """What a server would do: "restore" or "prefill"."""


class _Listener(Recorder):
    """Remembers the tokens, too."""

    def __init__(self, prompt: int) -> None:
        super().__init__(Record(0.0, prompt))
        self.record.scheduled = self.record.sent
        self.tokens: list[int] = []

    def token(self, token_id: int) -> Finish | None:
        """Notes it."""
        self.tokens.append(token_id)
        return super().token(token_id)


class _Bench:
    """A running engine, and the choice that it makes."""

    def __init__(self, config: SchedulerConfig, addresses: list[str], keys: PageKeys, stores: list[PageStore]) -> None:
        self.restore, self._stores = False, stores

        async def launch() -> list[str]:
            return addresses

        self.engine = Engine(config, launch, keys=keys, choose=self._seconds)

    def _seconds(self, _found: Items[pb.FindPagesResponse], _pages: int, _token_ns: float) -> float:
        return float(LIMITS.fetch_seconds) if self.restore else 0.0

    async def ask(self, tokens: list[int], *, restore: bool) -> tuple[_Listener, Sequence]:
        """One request on its own, which nothing is kept of."""
        self.restore = restore
        sequence = Sequence(list(tokens), SamplingParams(0.0, 0, 1.0, 0), _TURN)
        listener = _Listener(len(tokens))
        self.engine.submit(sequence, listener)
        await listener.done.wait()
        if listener.record.error:
            raise Internal(f"A request failed: {listener.record.error}.")
        for store in self._stores:
            await asyncio.to_thread(store.writer.flush, _FLUSH_SECONDS)
        return listener, sequence


async def measure(weights: Weights, layers: int, pack_sha256: str, plan: Plan, report: Report) -> Result:
    """Of a model, of which `layers` layers are there. ConfigurationError where that is not all of them, or the session
    does not fit its context or the memory.
    """
    page_bytes = KvFormat(weights.config.kv_heads, weights.config.head_dim, plan.kv_dtype).page_bytes
    all_bytes = layers * page_bytes * pages_for(plan.tokens + 2 * _TURN)
    _check(weights, layers, plan, all_bytes)
    async with AsyncExitStack() as stack:
        report(0, plan.rounds, "starting")
        server = embedded_page_store(2 * all_bytes)
        await asyncio.to_thread(server.start)
        stack.push_async_callback(asyncio.to_thread, server.stop)
        settings = StoreSettings(server.url, 2 * all_bytes, _TTL_SECONDS)
        steppers = [await _stage(weights, r, pack_sha256, settings, plan, stack) for r in _ranges(layers, plan)]
        stores = [stepper.pages for stepper in steppers if stepper.pages is not None]
        addresses = [await served(stepper, stack) for stepper in steppers]
        keys = PageKeys(await asyncio.to_thread(shared_secret, server.url))
        bench = _Bench(_scheduling(weights, plan), addresses, keys, stores)
        await runs(bench.engine, stack)
        return await _rounds(bench, weights.config.name, weights.config.vocabulary, plan, report)


async def _rounds(bench: _Bench, model: str, vocabulary: int, plan: Plan, report: Report) -> Result:
    random = Random(0)
    session = [random.randrange(vocabulary) for _ in range(plan.tokens)]
    following = [*session, *(random.randrange(vocabulary) for _ in range(_TURN))]
    report(0, plan.rounds, f"a session of {plan.tokens} tokens")
    await bench.ask(session, restore=False)
    prefill: list[float] = []
    restore: list[float] = []
    found: list[Sequence] = []
    for n in range(plan.rounds):
        report(n, plan.rounds, "its next request, computed again")
        computed, _ = await bench.ask(following, restore=False)
        report(n, plan.rounds, "its next request, restored")
        restored, sequence = await bench.ask(following, restore=True)
        if restored.tokens != computed.tokens:
            raise Internal("The restored session went on with other tokens than the computed one.")
        prefill.append(computed.record.ttft)
        restore.append(restored.record.ttft)
        found.append(sequence)
    return _result(bench, model, plan, found, (median(prefill), median(restore)))


def _result(bench: _Bench, model: str, plan: Plan, found: list[Sequence], ttft: tuple[float, float]) -> Result:
    outcomes = [sequence.restored for sequence in found if sequence.restored is not None]
    size, seconds = max(o.bytes for o in outcomes), median(o.seconds for o in outcomes)
    restored = min(o.pages for o in outcomes) * PAGE_TOKENS
    return Result(
        model=model,
        stages=plan.stages,
        threads=plan.threads,
        kv_dtype=plan.kv_dtype,
        tokens=plan.tokens,
        restored_tokens=restored,
        bytes=size,
        ttft_prefill_s=ttft[0],
        ttft_restore_s=ttft[1],
        speedup=ttft[0] / ttft[1],
        fetch_s=seconds,
        bytes_per_s=size / seconds,
        quicker="restore" if seconds < restored * bench.engine.scheduler.cost.slowest_prefill_ns / 1e9 else "prefill",
    )


async def _stage(
    weights: Weights, layers: range, pack_sha256: str, settings: StoreSettings, plan: Plan, stack: AsyncExitStack
) -> Stepper:
    pack = cast("Pack", weights)  # a stage takes out of a pack what `Weights` has
    tokens = _kv_tokens(plan)
    model = StageModel(pack, layers, threads=plan.threads, kv_tokens=tokens, slots=_SLOTS, kv_dtype=plan.kv_dtype)
    stack.callback(model.close)
    await asyncio.to_thread(warm_up, model)
    pages = page_store(model, pack_sha256 or _UNNAMED, settings)
    if pages is not None:
        stack.push_async_callback(asyncio.to_thread, pages.close)
    return Stepper(model, pages)


def _check(weights: Weights, layers: int, plan: Plan, all_bytes: int) -> None:
    if layers < weights.config.layers:
        raise ConfigurationError(f"{weights.config.name} is too large to be measured as a whole; choose a smaller one.")
    most = weights.config.context - 2 * _TURN
    if plan.tokens > most:
        raise ConfigurationError(f"tokens is {plan.tokens}; with the context of this model it can be at most {most}.")
    if plan.stages > layers:
        raise ConfigurationError(f"stages is {plan.stages}; this model has {layers} layers.")
    memory.require(f"a session of {plan.tokens} tokens, in the stages, in the page store and on the way", 4 * all_bytes)


def _ranges(layers: int, plan: Plan) -> list[range]:
    return partition([1] * layers, plan.stages)


def _kv_tokens(plan: Plan) -> int:
    return PAGE_TOKENS * (2 * pages_for(plan.tokens + 2 * _TURN) + 2)


def _scheduling(weights: Weights, plan: Plan) -> SchedulerConfig:
    return SchedulerConfig(
        stages=plan.stages,
        slots=_SLOTS,
        pages=_kv_tokens(plan) // PAGE_TOKENS,
        context=weights.config.context,
        prefill_chunk=256,
        queue=_SLOTS,
    )
