"""Puts a coordinator together and takes it apart again: the one place where every part is known.

Start, in this order, so that a mistake shows before anything slow begins: pack, port, session store, Ray, stages, one
token through the whole pipeline, health SERVING. Stop is the same backwards. Nothing that was started is left behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from trireme_coordinator.config import ServeConfig, check_frames, split_address
from trireme_coordinator.embedded_redis import EmbeddedRedis
from trireme_coordinator.embedded_watch import keep_running
from trireme_coordinator.engine import Engine
from trireme_coordinator.model_costs import model_costs
from trireme_coordinator.page_store import page_store
from trireme_coordinator.placement import Machine, ModelCosts, Node, Placed, place
from trireme_coordinator.placement.costs import StageCosts, decode_step
from trireme_coordinator.probing import alike, machine_of, named, place_measured
from trireme_coordinator.public_server import PublicServer, check_free
from trireme_coordinator.ray_cluster import RayCluster
from trireme_coordinator.scheduler import PageKeys, SchedulerConfig
from trireme_coordinator.scheduler.budget import pages_for
from trireme_coordinator.self_test import one_token
from trireme_coordinator.service.placement import Previews
from trireme_coordinator.service.sessions import SessionGate
from trireme_coordinator.stages import Stages
from trireme_coordinator.store import ModelIdentity, RedisRequestStore, SessionWriter
from trireme_coordinator.telemetry import setup_telemetry
from trireme_coordinator.text import TextCodec
from trireme_proto.errors import ConfigurationError, PipelineUnavailable, StartupError
from trireme_worker.actor import StageSettings, chosen_layout
from trireme_worker.pack import Pack, default_pack, is_url, local_pack
from trireme_worker.page_redis import StoreSettings

Say = Callable[[str], None]
"""Told what is being done, one line each."""
_NO_LAYERS = range(0)


@dataclass(frozen=True, slots=True)
class Running:
    """A coordinator that serves."""

    address: str
    """HOST:PORT of the public server."""
    pack: Pack
    placed: list[Placed]
    engine: Engine


@asynccontextmanager
async def running(config: ServeConfig, say: Say) -> AsyncIterator[Running]:
    """Serves while the context is open. StartupError when it cannot start; the message says what to change."""
    async with AsyncExitStack() as stack:
        pack = await _pack(config, say)
        pack.verify_files(name for name in pack.manifest.files if not name.endswith(".safetensors"))  # weights: workers
        codec = TextCodec.open(pack.tokenizer_path(), pack.config.bos_token_id, pack.config.vocabulary)
        _place(config, pack, [Node("", "", "")])  # more stages than layers shows now
        check_frames(config, pack.config.hidden_size)
        check_free(*split_address(config.listen))
        store = await _store(config, pack, stack, say)
        writer = SessionWriter(store)
        stack.push_async_callback(writer.close)
        gate = SessionGate(store, writer, config.session_ttl, required=config.durability == "required")
        stack.push_async_callback(gate.close)
        cluster = await _cluster(config, stack, say)
        costs = model_costs(pack.config, layout=_layout(config, pack), head=pack.head_kind, kv_dtype=config.kv_dtype)
        nodes = await _nodes(config, cluster, say)
        placed = await asyncio.to_thread(_place_on, config, pack, cluster, nodes, costs, say)
        pages = await page_store(config, stack, say)
        stages = _stages(config, pack, cluster, placed, costs, pages[0])
        engine = await _engine(config, pack, stages, pages[1], stack, say)
        telemetry = setup_telemetry()  # after Ray, as all that has gRPC threads
        stack.push_async_callback(asyncio.to_thread, telemetry.close)
        public = PublicServer(*split_address(config.listen))
        stack.push_async_callback(public.stop)
        previews = Previews(costs, lambda: _machines(config, cluster))
        await public.start(engine, codec, gate, telemetry, pack, placed, previews, threads=config.threads)
        await _background(_announce(engine, public), stack)
        yield Running(public.address, pack, placed, engine)


async def _pack(config: ServeConfig, say: Say) -> Pack:
    """The pack; of one at a URL only what the coordinator itself needs: each worker fetches its own layers."""
    if not is_url(config.pack):
        return Pack.open(Path(config.pack) if config.pack else default_pack(), verify=False)
    say("Fetching the model's manifest and tokenizer")
    folder = await asyncio.to_thread(local_pack, config.pack, _NO_LAYERS)
    return Pack.open(folder, verify=False, weights=False)


async def _store(config: ServeConfig, pack: Pack, stack: AsyncExitStack, say: Say) -> RedisRequestStore:
    url = config.redis_url
    if not url:
        say("Starting the session store")
        embedded = EmbeddedRedis(Path(config.data_dir) if config.data_dir else None)
        await asyncio.to_thread(embedded.start)
        stack.push_async_callback(asyncio.to_thread, embedded.stop)
        await _background(keep_running(embedded, say), stack)
        url = embedded.url
    model = ModelIdentity(pack.config.name, pack.sha256, pack.config.vocabulary)
    store = RedisRequestStore(url, model)
    stack.push_async_callback(store.close)
    if not await store.ping():
        raise StartupError("Redis does not answer at the address given with --redis-url.")
    return store


async def _cluster(config: ServeConfig, stack: AsyncExitStack, say: Say) -> RayCluster:
    say(f"Connecting to Ray at {config.ray_address}" if config.ray_address else "Starting Ray")
    cluster = RayCluster(config.ray_address, config.name)
    stack.push_async_callback(asyncio.to_thread, cluster.stop)
    await asyncio.to_thread(cluster.start)
    return cluster


async def _nodes(config: ServeConfig, cluster: RayCluster, say: Say) -> list[Node]:
    """The nodes, once there are as many as wanted: else the first of them to come would get all stages."""
    told = -1
    while len(nodes := await asyncio.to_thread(cluster.nodes)) < config.ray_nodes:
        if len(nodes) != told:
            told = len(nodes)
            say(f"Waiting for Ray nodes: {told} of {config.ray_nodes} are there")
        await asyncio.sleep(0.5)
    return nodes


async def _engine(
    config: ServeConfig, pack: Pack, stages: Stages, keys: PageKeys | None, stack: AsyncExitStack, say: Say
) -> Engine:
    """Starts the stages and the engine; a token has come through all of them when it returns."""
    count = len(stages.placed)
    say(f"Starting {count} {'stage' if count == 1 else 'stages'}: loading, checking and compiling")
    await stages.launch()  # a mistake shows here; the engine calls it again after a fault
    for stage in stages.placed:
        say(f"Stage {stage.stage} on {stage.node.name}: layers {stage.layers.start} to {stage.layers.stop - 1}")
    engine = Engine(_scheduling(config, pack), stages.launch, discard=stages.discard, keys=keys)
    await _background(engine.run(), stack)
    await one_token(engine)
    return engine


def _place(config: ServeConfig, pack: Pack, nodes: Sequence[Node]) -> list[Placed]:
    layer_bytes = [pack.layer_bytes(i) for i in range(pack.config.layers)]
    return place(layer_bytes, pack.head_read_bytes(), nodes, config.stages)


def _place_on(
    config: ServeConfig, pack: Pack, cluster: RayCluster, nodes: Sequence[Node], costs: ModelCosts, say: Say
) -> list[Placed]:
    """By what the nodes can do, where there is a choice and they differ; else evenly."""
    if len({node.host for node in nodes}) > 1 and config.stages <= len(nodes):
        say(f"Measuring {len(nodes)} nodes")
        try:
            measured = cluster.measure(nodes, config.threads)
            if not alike([machine_of(node.node_id, measured[node.node_id]) for node in nodes]):
                return place_measured(costs, nodes, measured, config.stages)
        except (ConfigurationError, PipelineUnavailable) as error:
            say(f"{error.message} Layers are placed evenly")
    return _place(config, pack, nodes)


def _machines(config: ServeConfig, cluster: RayCluster) -> tuple[Machine, ...]:
    nodes = cluster.nodes()
    return named(nodes, cluster.measure(nodes, config.threads))


def _layout(config: ServeConfig, pack: Pack) -> str:
    """The layout that weights will have in memory, as far as the coordinator can tell: its CPU may be another."""
    return chosen_layout(config.layout) or pack.layout


def _stages(
    config: ServeConfig,
    pack: Pack,
    cluster: RayCluster,
    placed: list[Placed],
    costs: ModelCosts,
    pages: StoreSettings | None,
) -> Stages:
    def settings(stage: Placed, host: str) -> StageSettings:
        return StageSettings(
            pack=config.pack if is_url(config.pack) else str(pack.path),
            pack_sha256=pack.sha256,
            first_layer=stage.layers.start,
            end_layer=stage.layers.stop,
            threads=config.threads,
            kv_tokens=_kv_tokens(config, pack),
            kv_dtype=config.kv_dtype,
            layout=config.layout,
            slots=config.slots,
            host=host,
            pages=pages,
        )

    sizes = StageCosts(costs, (), decode_step(1, 1), _kv_tokens(config, pack))
    return Stages(cluster, placed, settings, [sizes.needed(s.layers.start, s.layers.stop) for s in placed])


def _kv_tokens(config: ServeConfig, pack: Pack) -> int:
    return config.kv_tokens or max(8 * pack.config.context, 16384)


def _scheduling(config: ServeConfig, pack: Pack) -> SchedulerConfig:
    kv_tokens = _kv_tokens(config, pack)
    return SchedulerConfig(
        stages=config.stages,
        slots=config.slots,
        pages=pages_for(kv_tokens),
        context=min(pack.config.context, kv_tokens),
        prefill_chunk=config.prefill_chunk,
        queue=config.queue,
        speculation=config.speculation != "off",
        ahead=True,
    )


async def _announce(engine: Engine, public: PublicServer) -> None:
    """Keeps the health service true: SERVING while the pipeline is complete."""
    while True:
        await engine.ready.wait()
        await public.set_healthy(healthy=True)
        await engine.lost.wait()
        await public.set_healthy(healthy=False)


async def _background(work: Coroutine[None, None, None], stack: AsyncExitStack) -> None:
    """Runs a coroutine until the stack unwinds."""
    task = asyncio.ensure_future(work)

    async def end() -> None:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    stack.push_async_callback(end)
