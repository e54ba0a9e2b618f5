"""Puts a coordinator together and takes it apart again: the one place where every part is known.

Start, in this order, so that a mistake shows before anything slow begins: pack, port, session store, Ray, stages, one
token through the whole pipeline, health SERVING. Stop is the same backwards. Nothing that was started is left behind.
"""

from __future__ import annotations

import asyncio
import secrets
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from trireme_coordinator.config import ServeConfig, check_frames, split_address
from trireme_coordinator.embedded_redis import EmbeddedRedis
from trireme_coordinator.embedded_watch import keep_running
from trireme_coordinator.engine import Engine
from trireme_coordinator.leadership import Leadership, LeasedLeadership, SoleLeadership
from trireme_coordinator.loss import StageLoss
from trireme_coordinator.model_costs import model_costs
from trireme_coordinator.page_store import page_store
from trireme_coordinator.placement import Machine, ModelCosts, Node, Placed, place
from trireme_coordinator.placement.costs import StageCosts, decode_step
from trireme_coordinator.probing import alike, machine_of, named, place_measured
from trireme_coordinator.public_server import PublicServer, check_free
from trireme_coordinator.ray_cluster import RayCluster, Settings
from trireme_coordinator.reign import Reign
from trireme_coordinator.scheduler import SchedulerConfig
from trireme_coordinator.scheduler.budget import pages_for
from trireme_coordinator.service.door import Door
from trireme_coordinator.service.placement import Previews
from trireme_coordinator.service.sessions import SessionGate
from trireme_coordinator.stages import Stages
from trireme_coordinator.store import ModelIdentity, Owner, RedisRequestStore, SessionWriter
from trireme_coordinator.store.lease import RedisLease
from trireme_coordinator.succession import Succession, Wanted
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
    drain: Callable[[float], Coroutine[None, None, object]]
    """Takes no more calls; leaves running answers to another coordinator, or lets them end within so many seconds."""


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
        required = config.durability == "required"
        gate = SessionGate(store, writer, config.session_ttl, _owner(config, store), required=required)
        stack.push_async_callback(gate.close)
        cluster = await _cluster(config, stack, say)
        costs = model_costs(pack.config, layout=_layout(config, pack), head=pack.head_kind, kv_dtype=config.kv_dtype)
        pages, keys = await page_store(config, stack, say)
        leadership = await _leadership(config, stack)
        sizes = StageCosts(costs, (), decode_step(1, 1), _kv_tokens(config, pack))
        settings = _settings(config, pack, pages)
        stages = Stages(cluster, settings, lambda stage: sizes.needed(stage.layers.start, stage.layers.stop))

        async def discard(losses: Sequence[StageLoss]) -> None:
            if await leadership.confirmed():  # else they may be a successor's, and well
                await stages.discard(losses)

        engine = Engine(
            _scheduling(config, pack), stages.launch, keys=keys, discard=discard, next_epoch=leadership.next_epoch
        )

        async def fresh() -> list[Placed]:
            nodes = await _nodes(config, cluster, say)
            return await asyncio.to_thread(_place_on, config, pack, cluster, nodes, costs, say)

        door = Door()
        wanted = Wanted(settings, config.stages, pack.config.layers, shared=_shared(config))
        reign = Reign(leadership, Succession(cluster, stages, wanted, fresh, say), engine, door)
        stack.push_async_callback(reign.stop)
        await reign.start()  # a mistake shows here
        telemetry = setup_telemetry(settings=config.traces)  # after Ray, as all that has gRPC threads
        stack.push_async_callback(asyncio.to_thread, telemetry.close)
        public = PublicServer(*split_address(config.listen), door)
        stack.push_async_callback(public.stop)
        previews = Previews(costs, lambda: _machines(config, cluster))
        await public.start(
            engine, codec, gate, telemetry, pack, stages.placed, previews, leadership, threads=config.threads
        )
        announcing = await _background(_announce(engine, reign, public), stack)

        async def drain(seconds: float) -> None:
            announcing.cancel()
            await public.set_healthy(healthy=False)
            await reign.drain(seconds, writer.emptied)

        yield Running(public.address, pack, stages.placed, engine, drain)


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
    _take_back_sigterm()
    return cluster


def _take_back_sigterm() -> None:
    """Ray puts a handler of its own before Python's, which dumps the stack, and aborts the process after 3 s."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))
        signal.siginterrupt(signal.SIGTERM, False)


async def _nodes(config: ServeConfig, cluster: RayCluster, say: Say) -> list[Node]:
    """The nodes, once there are as many as wanted: else the first of them to come would get all stages."""
    told = -1
    while len(nodes := await asyncio.to_thread(cluster.nodes)) < config.ray_nodes:
        if len(nodes) != told:
            told = len(nodes)
            say(f"Waiting for Ray nodes: {told} of {config.ray_nodes} are there")
        await asyncio.sleep(0.5)
    return nodes


async def _leadership(config: ServeConfig, stack: AsyncExitStack) -> Leadership:
    """Coordinators that share Redis and Ray stand in for each other."""
    if not _shared(config):
        return SoleLeadership()
    name = f"{socket.gethostname()}:{split_address(config.listen)[1]}"
    lease = RedisLease(config.redis_url, config.name, f"{name}/{secrets.token_hex(4)}")
    stack.push_async_callback(lease.close)
    return LeasedLeadership(lease)


def _owner(config: ServeConfig, store: RedisRequestStore) -> Owner:
    """Who generates on sessions: of coordinators that stand in for each other only the leader does, so that a successor
    need not wait for sessions of the one before. The fencing number keeps a deposed one from writing.
    """
    return Owner(store, config.name if _shared(config) else "")


def _shared(config: ServeConfig) -> bool:
    """Whether other coordinators can reach the same stages and sessions, and so stand in for this one."""
    return bool(config.redis_url and config.ray_address)


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


def _settings(config: ServeConfig, pack: Pack, pages: StoreSettings | None) -> Settings:
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
            node_id=stage.node.node_id,
            pages=pages,
        )

    return settings


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


async def _announce(engine: Engine, reign: Reign, public: PublicServer) -> None:
    """Keeps the health service true: SERVING while we lead and the pipeline is complete."""
    while True:
        await reign.serving.wait()
        await engine.ready.wait()
        await public.set_healthy(healthy=True)
        await engine.lost.wait()
        await public.set_healthy(healthy=False)


async def _background(work: Coroutine[None, None, None], stack: AsyncExitStack) -> asyncio.Task[None]:
    """Runs a coroutine until the stack unwinds."""
    task = asyncio.ensure_future(work)

    async def end() -> None:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    stack.push_async_callback(end)
    return task
