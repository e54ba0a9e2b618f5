"""What Ray runs in a worker process: load the layers, compile the kernels, serve the stage on an event loop of its own.

A plain class: the coordinator makes it an actor, so that the worker needs no Ray. Its methods block; Ray calls them
from another thread than the event loop's.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np

from trireme_kernels.errors import KernelCacheError
from trireme_kernels.packing import preferred_layout
from trireme_proto.errors import PackCorrupt, StartupError
from trireme_proto.v1.stage_pb2_grpc import add_StageServicer_to_server
from trireme_worker.batch import Batch, Row, SamplingParams
from trireme_worker.logs import setup_logs
from trireme_worker.pack import Pack, is_url, local_pack
from trireme_worker.page_redis import RedisPages, StoreSettings
from trireme_worker.page_store import PageStore
from trireme_worker.page_value import HEADER_BYTES, PageIdentity
from trireme_worker.server import StageService
from trireme_worker.stage import StageModel
from trireme_worker.stage_links import opener, stage_server
from trireme_worker.stepper import Stepper
from trireme_worker.warmup import compile_kernels, kernel_groups

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StageSettings:
    """What a worker is told: which layers of which pack, on how many threads, with how much KV, and where to listen."""

    pack: str
    """Folder on the node, or a URL that the node fetches its layers from."""
    pack_sha256: str
    first_layer: int
    end_layer: int
    threads: int
    kv_tokens: int
    kv_dtype: str
    """How keys and values are kept: "float32", "float16" or "int8"."""
    layout: str
    """Of the ternary weights in memory: "2bit", "1.6bit", "packed" (as in the pack) or "auto" (the faster one here)."""
    slots: int
    host: str
    """Address of the node that the other stages and the coordinator reach it at; nothing else is listened on."""
    node_id: str = ""
    """The node, as the cluster calls it; for a coordinator that takes the worker over."""
    tls_folder: str = ""
    """Of the node, with the certificates for links between stages; empty: none, which only loopback addresses allow."""
    plain_links: bool = False
    """No certificates on other addresses either: somebody said so in so many words."""
    log_format: str = "console"
    """How its log lines look, on standard error, which Ray keeps: "console" or "json"."""
    pages: StoreSettings | None = None
    """Where full KV pages are kept outside of the worker; None: nowhere."""


class StageProcess:
    """One worker process: `start` it, talk to it at the address that comes back, `stop` it."""

    def __init__(self, settings: StageSettings) -> None:
        self._settings = settings
        self._starting = threading.Lock()
        self._address = ""
        self._service: StageService | None = None
        self._thread: threading.Thread | None = None
        self._end: Callable[[], object] = lambda: None

    def start(self) -> str:
        """Loads, checks and compiles; returns HOST:PORT once the stage serves. StartupError if it cannot.
        Idempotent.
        """
        setup_logs(self._settings.log_format, "info")  # Ray keeps standard error
        with self._starting:
            if not self._address:
                model = load(self._settings)
                ready: Future[str] = Future()
                self._thread = threading.Thread(target=self._serve, args=(model, ready), name="serve", daemon=True)
                self._thread.start()
                self._address = ready.result()
        return self._address

    def settings(self) -> StageSettings:
        """What the worker was told, for a coordinator that takes it over."""
        return self._settings

    def attached(self) -> bool:
        """Whether a coordinator drives this stage right now."""
        return self._service is not None and self._service.attached

    def stop(self) -> None:
        """Stops serving; returns when everything has ended. Nothing happens where nothing was started."""
        with self._starting:
            if self._address and self._thread is not None:
                self._end()
                self._thread.join()

    def _serve(self, model: StageModel, ready: Future[str]) -> None:
        try:
            asyncio.run(self._run(model, ready))
        except Exception as error:  # whatever it is: `start` waits for it, in another thread
            if ready.done():
                raise
            ready.set_exception(error)
        finally:
            self._address = ""
            model.close()

    async def _run(self, model: StageModel, ready: Future[str]) -> None:
        loop, stopping = asyncio.get_running_loop(), asyncio.Event()
        self._end = lambda: loop.call_soon_threadsafe(stopping.set)
        pages = page_store(model, self._settings.pack_sha256, self._settings.pages)
        told = self._settings
        self._service = service = StageService(Stepper(model, pages), opener(told.tls_folder))
        server, port = stage_server(told.host, told.tls_folder, plain=told.plain_links)
        add_StageServicer_to_server(service, server)
        await server.start()
        ready.set_result(f"{self._settings.host}:{port}")
        await stopping.wait()
        await server.stop(grace=None)
        await service.close()
        if pages is not None:
            await asyncio.to_thread(pages.close)


def load(settings: StageSettings) -> StageModel:
    """Fetches the pack, where it is a URL, opens it, checks the hashes of what this stage maps, compiles what it runs
    and computes a first step.
    """
    layers = range(settings.first_layer, settings.end_layer)
    pack = _opened(settings, layers)
    if pack.sha256 != settings.pack_sha256:
        raise StartupError("The worker found another model pack than the coordinator has.")
    _compile(settings, pack.head_kind)
    model = StageModel(
        pack,
        layers,
        threads=settings.threads,
        kv_tokens=settings.kv_tokens,
        slots=settings.slots,
        kv_dtype=settings.kv_dtype,
        layout=chosen_layout(settings.layout),
        report=lambda done, total: log.info("weights laid out anew: %d of %d layers", done, total),
    )
    warm_up(model)
    return model


def page_store(model: StageModel, pack_sha256: str, settings: StoreSettings | None) -> PageStore | None:
    """Keeps the pages of a stage, where there are settings for that. Nothing is connected yet."""
    if settings is None:
        return None
    identity = PageIdentity(pack_sha256, model.layers.start, model.layers.stop, model.kv.format.dtype)
    values = RedisPages(settings, identity.stage, HEADER_BYTES + model.kv.page_bytes)
    return PageStore(values, identity, model.kv.page_bytes)


def _opened(settings: StageSettings, layers: range) -> Pack:
    """A copy of this node that was damaged since is fetched anew; a folder of the user's is not ours to change."""
    place = local_pack(settings.pack, layers, sha256=settings.pack_sha256)
    try:
        return Pack.open(place, layers=layers)
    except PackCorrupt as damage:
        if not is_url(settings.pack):
            raise
        log.warning("this node's copy is fetched anew: %s", damage.message)
    return Pack.open(local_pack(settings.pack, layers, sha256=settings.pack_sha256, recheck=True), layers=layers)


def _compile(settings: StageSettings, head: str) -> None:
    """StartupError where compiled kernels cannot be kept."""
    try:
        found = compile_kernels(kernel_groups((settings.kv_dtype,), (head,)), say=log.info)
    except KernelCacheError as error:
        raise StartupError("The folder for compiled kernels of a worker cannot be used.") from error
    log.info("%d kernels compiled, %d loaded in %.1f s", found.compiled, found.cached, found.seconds)


def chosen_layout(layout: str) -> str | None:
    """What a setting means on this CPU; None: as in the pack."""
    if layout == "auto":
        return preferred_layout()
    return None if layout == "packed" else layout


def warm_up(model: StageModel) -> None:
    """Runs each kernel once, prefill and decode, greedy and sampled from all logits (which are two ways through a
    head), and leaves no page behind.
    """
    for position, count, temperature in ((0, 2, 0.0), (2, 1, 0.7)):
        batch = Batch((Row(0, position, count, SamplingParams(temperature, 0, 0.9, 0)),))
        hidden = np.zeros((count, model.config.hidden_size), np.float32)
        if model.first:
            hidden = model.embed(np.zeros(count, np.int32))
        model.reserve(batch)
        model.forward(batch, hidden)
        if model.last:
            model.sample(batch, hidden)
    model.kv.reset()
