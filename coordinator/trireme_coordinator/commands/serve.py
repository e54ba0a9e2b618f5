"""`trireme serve`: a coordinator in this process, its stages in others."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from contextlib import suppress
from typing import Annotated, Any

import typer

from trireme_coordinator.auth.settings import KeysOptions
from trireme_coordinator.commands import metrics_options
from trireme_coordinator.config import ServeConfig, from_environment
from trireme_coordinator.options import with_options
from trireme_coordinator.tls_options import TlsOptions
from trireme_coordinator.trace_settings import TraceSettings
from trireme_worker.logs import setup_logs

log = logging.getLogger("trireme")


@with_options("TLS", TlsOptions)
@with_options("API keys and tokens", KeysOptions)
@with_options("Traces", TraceSettings)
def serve(
    pack: Annotated[
        str | None, typer.Argument(help="Folder or URL of the model pack. Default: the bundled model.")
    ] = None,
    stages: Annotated[int | None, typer.Option(help="Stages to cut the layers into. Default: 1.")] = None,
    threads: Annotated[int | None, typer.Option(help="Kernel threads of each stage. Default: 1.")] = None,
    listen: Annotated[str | None, typer.Option(help="HOST:PORT to listen on. Default: 127.0.0.1:50051.")] = None,
    redis_url: Annotated[str | None, typer.Option(help="Session store. Default: an embedded one.")] = None,
    ray_address: Annotated[str | None, typer.Option(help="Ray cluster. Default: a local one.")] = None,
    ray_nodes: Annotated[int | None, typer.Option(help="Ray nodes to wait for before placing. Default: 1.")] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the deployment on the Ray cluster. Default: trireme.")
    ] = None,
    prefill_chunk: Annotated[
        int | None, typer.Option(help="Most prompt tokens in a micro-batch. Default: 256.")
    ] = None,
    kv_tokens: Annotated[
        int | None, typer.Option(help="Tokens each stage has KV memory for. Default: 8 contexts.")
    ] = None,
    kv_dtype: Annotated[str | None, typer.Option(help="KV cache: float32, float16 or int8. Default: float32.")] = None,
    kv_store_gb: Annotated[
        int | None, typer.Option(help="Gigabytes of Redis for KV pages of idle and lost sessions. Default: 0, none.")
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(help="Weights in memory: 2bit, 1.6bit, packed (as in the pack) or auto (by CPU). Default: auto."),
    ] = None,
    slots: Annotated[int | None, typer.Option(help="Sequences computed at once. Default: 64.")] = None,
    queue: Annotated[int | None, typer.Option(help="Requests that may wait. Default: 256.")] = None,
    speculation: Annotated[
        str | None, typer.Option(help="Guess and verify tokens where it pays: auto or off. Default: auto.")
    ] = None,
    session_ttl: Annotated[int | None, typer.Option(help="Seconds an unused session lives. Default: 86400.")] = None,
    drain_seconds: Annotated[
        int | None, typer.Option(help="Seconds for running answers to end when stopped. Default: 30.")
    ] = None,
    durability: Annotated[
        str | None,
        typer.Option(help="New conversations without a session store: best-effort or required. Default: best-effort."),
    ] = None,
    metrics_listen: metrics_options.Listen = None,
    metrics_hosts: metrics_options.Hosts = None,
    log_format: metrics_options.LogFormat = None,
    log_level: metrics_options.LogLevel = None,
    data_dir: Annotated[
        str | None, typer.Option(help="Where the embedded session store keeps its data. Default: nowhere.")
    ] = None,
    **groups: Any,
) -> None:
    """Serve a model over gRPC.

    Starts what is not given: a local Ray cluster and an embedded session store. Says on stdout when it is ready and
    where. Stops cleanly on Ctrl-C and SIGTERM. Every option can also come from the environment, as TRIREME_LISTEN and
    so on.
    """
    given = {name: value for name, value in locals().items() if name != "groups"} | groups
    config = from_environment(given)
    setup_logs(config.log_format, config.log_level)
    asyncio.run(_serve(config))


class _Signals:
    """What the outside wants: `stop` at the first signal; `hurry` where a person sent it, or at the second one."""

    def __init__(self) -> None:
        self.stop, self.hurry = asyncio.Event(), asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self._received, number)

    def _received(self, number: int) -> None:
        if number == signal.SIGINT or self.stop.is_set():
            self.hurry.set()
        self.stop.set()


async def _serve(config: ServeConfig) -> None:
    """Starts, waits for a signal, stops. A signal during the start breaks it off."""
    signals, ready = _Signals(), asyncio.Event()
    work = asyncio.ensure_future(_work(config, ready, signals))
    stopped = asyncio.ensure_future(signals.stop.wait())
    await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
    if not ready.is_set():
        work.cancel()  # what has been started so far is stopped on the way out
    stopped.cancel()
    with suppress(asyncio.CancelledError):
        await work


async def _work(config: ServeConfig, ready: asyncio.Event, signals: _Signals) -> None:
    from trireme_coordinator.app import running
    from trireme_worker.concurrency import first_to_end

    say = _log if config.log_format == "json" else _say
    async with running(config, say) as server:
        ready.set()
        model, stages = server.pack.config.name, len(server.placed)
        what = (
            f"{stages} {'stage' if stages == 1 else 'stages'}" if stages else "standing by: another coordinator leads"
        )
        print(f"Trireme is ready on {server.address} (model {model}, {what})", flush=True)
        await signals.stop.wait()
        say("Stopping")
        await first_to_end(server.drain(config.drain_seconds), signals.hurry.wait())


def _log(line: str) -> None:
    """Where each line has to be JSON."""
    log.info("%s", line)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
