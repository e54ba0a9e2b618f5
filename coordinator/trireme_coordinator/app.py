"""Puts a coordinator together and takes it apart again: the one place where every part is known.

Start, in this order, so that a mistake shows before anything slow begins: pack, port, session store, Ray, stages, one
token through the whole pipeline, health SERVING. Stop is the same backwards. Nothing that was started is left behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from trireme_coordinator.announcing import announce
from trireme_coordinator.auth.settings import make_guard
from trireme_coordinator.config import ServeConfig, check_frames, split_address
from trireme_coordinator.connecting import (
    Say,
    background,
    connect_ray,
    leadership_of,
    open_pack,
    open_store,
    owner_of,
    shared,
)
from trireme_coordinator.engine import Engine
from trireme_coordinator.leadership import Leadership
from trireme_coordinator.loss import StageLoss
from trireme_coordinator.metrics.observing import Observed, observing, step_bytes
from trireme_coordinator.model_costs import model_costs
from trireme_coordinator.page_store import page_store
from trireme_coordinator.placement import ModelCosts, Node, Placed
from trireme_coordinator.placement.costs import StageCosts, decode_step
from trireme_coordinator.placing import machines, place_evenly, place_on, wanted_nodes
from trireme_coordinator.public_server import PublicServer, check_free
from trireme_coordinator.reign import Reign
from trireme_coordinator.scheduler import PageKeys
from trireme_coordinator.security import secured
from trireme_coordinator.service.door import Door
from trireme_coordinator.service.placement import Previews
from trireme_coordinator.service.sessions import SessionGate
from trireme_coordinator.sizing import kv_tokens, layout_of, scheduling, settings_of
from trireme_coordinator.stages import Stages
from trireme_coordinator.store import RedisRequestStore, SessionWriter
from trireme_coordinator.succession import Succession, Wanted
from trireme_coordinator.telemetry import setup_telemetry
from trireme_coordinator.text import TextCodec
from trireme_worker.pack import Pack
from trireme_worker.stage_links import opener


@dataclass(frozen=True, slots=True)
class Running:
    """A coordinator that serves."""

    address: str
    """HOST:PORT of the public server."""
    pack: Pack
    placed: list[Placed]
    engine: Engine
    drain: Callable[[float], Coroutine[None, None, object]]
    """Takes no more calls; leaves running answers to another coordinator, or lets them end within so many seconds."""
    metrics: str = ""
    """HOST:PORT of /metrics, /healthz and /readyz; empty where they are not served."""


async def _checked(config: ServeConfig, say: Say) -> tuple[Pack, TextCodec]:
    """The pack and its tokenizer; what is wrong with them or the configuration shows now. StartupError."""
    pack = await open_pack(config, say)
    pack.verify_files(name for name in pack.manifest.files if not name.endswith(".safetensors"))  # weights: workers
    codec = TextCodec.open(pack.tokenizer_path(), pack.config.bos_token_id, pack.config.vocabulary)
    place_evenly(config, pack, [Node("", "", "")])  # more stages than layers shows now
    check_frames(config, pack.config.hidden_size)
    for address in filter(None, (config.listen, config.metrics_listen)):
        check_free(*split_address(address))
    return pack, codec


async def _sessions(
    config: ServeConfig, pack: Pack, stack: AsyncExitStack, say: Say
) -> tuple[RedisRequestStore, SessionWriter, SessionGate]:
    """Where sessions are kept, what writes to it, and what gives them out."""
    store = await open_store(config, pack, stack, say)
    writer = SessionWriter(store)
    stack.push_async_callback(writer.close)
    required = config.durability == "required"
    gate = SessionGate(store, writer, config.session_ttl, owner_of(config, store), required=required)
    stack.push_async_callback(gate.close)
    return store, writer, gate


def _engine(
    config: ServeConfig,
    pack: Pack,
    costs: ModelCosts,
    stages: Stages,
    leadership: Leadership,
    keys: PageKeys | None,
) -> Engine:
    """The engine over these stages, which it has launched, and which it gives up only while it leads."""

    async def discard(losses: Sequence[StageLoss]) -> None:
        if await leadership.confirmed():  # else they may be a successor's, and well
            await stages.discard(losses)

    async def launch() -> list[str]:
        addresses = await stages.launch()
        engine.meter.step_bytes = step_bytes(costs, stages.placed)
        return addresses

    engine = Engine(
        scheduling(config, pack),
        launch,
        keys=keys,
        discard=discard,
        next_epoch=leadership.next_epoch,
        opened=opener(config.stage_tls_dir),
    )
    return engine


@asynccontextmanager
async def running(config: ServeConfig, say: Say) -> AsyncIterator[Running]:
    """Serves while the context is open. StartupError when it cannot start; the message says what to change."""
    async with AsyncExitStack() as stack:
        config, certificates = secured(config)
        pack, codec = await _checked(config, say)
        guard = await make_guard(config, stack, say)
        store, writer, gate = await _sessions(config, pack, stack, say)
        cluster = await connect_ray(config, stack, say)
        costs = model_costs(pack.config, layout=layout_of(config, pack), head=pack.head_kind, kv_dtype=config.kv_dtype)
        pages, keys = await page_store(config, stack, say)
        leadership, door = await leadership_of(config, stack), Door()
        sizes = StageCosts(costs, (), decode_step(1, 1), kv_tokens(config, pack))
        settings = settings_of(config, pack, pages)
        stages = Stages(cluster, settings, lambda stage: sizes.needed(stage.layers.start, stage.layers.stop))
        engine = _engine(config, pack, costs, stages, leadership, keys)

        async def fresh() -> list[Placed]:
            nodes = await wanted_nodes(config, cluster, say)
            return await asyncio.to_thread(place_on, config, pack, cluster, nodes, costs, say)

        wanted = Wanted(settings, config.stages, pack.config.layers, shared=shared(config))
        reign = Reign(leadership, Succession(cluster, stages, wanted, fresh, say), engine, door)
        stack.push_async_callback(reign.stop)
        telemetry = setup_telemetry(settings=config)  # after Ray, as all that has gRPC threads
        stack.push_async_callback(asyncio.to_thread, telemetry.close)
        what = Observed(
            *(engine, stages.placed, telemetry, writer, leadership, door, pack),
            redis=[(store.url, "sessions"), *([(pages.url, "pages")] if pages else [])],
            ray=cluster.state,
        )
        watched = await stack.enter_async_context(observing(config, what, say))
        await reign.start()  # a mistake shows here
        public = PublicServer(
            *split_address(config.listen),
            door,
            certificates,
            mutual=bool(config.tls_client_ca),
            guard=guard,
            reflection=config.reflection != "off",
            counted=telemetry.meter,
        )
        stack.push_async_callback(public.stop)
        await public.start(
            engine,
            codec,
            gate,
            telemetry,
            pack,
            stages.placed,
            Previews(costs, lambda: machines(config, cluster)),
            leadership,
            threads=config.threads,
            profiler=watched.profiler,
        )
        announcing = await background(announce(watched.readiness, engine, reign, public), stack)

        async def drain(seconds: float) -> None:
            watched.readiness.draining = True
            announcing.cancel()
            await public.set_healthy(healthy=False)
            await reign.drain(seconds, writer.emptied)

        yield Running(public.address, pack, stages.placed, engine, drain, watched.address)
