"""What can be seen of a cluster from outside: what it holds, what stages do with work of an old epoch, how much of the
machine was left to it, and how fast the machine was.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import psutil
from redis.asyncio import Redis
from tests.fault.cluster import Cluster
from tests.fault.history import Books, History, Left, Pace, Probe

from trireme import AsyncClient
from trireme.cluster import Status
from trireme.errors import TriremeError
from trireme_proto.v1 import stage_pb2 as pb
from trireme_proto.v1.stage_pb2_grpc import StageStub
from trireme_worker.link import CHANNEL_OPTIONS, EPOCH_KEY

_SETTLE_SECONDS = 20.0
_SESSION_KEYS = "trireme:1:session"
_LISTENS = "0A"
"""The state of a TCP socket, as /proc has it."""
_HASHED = bytes(500_000)


async def books(cluster: Cluster, when: str, history: History) -> None:
    """Adds what is held, once it no longer changes for the better or a bounded time has passed."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    values = await _books(cluster)
    while any(values[name] for name in values if "pages" in name or "load" in name or "keys" in name):
        if time.monotonic() > deadline:
            break
        await asyncio.sleep(0.5)
        values = await _books(cluster)
    history.add(Books(history.now(), when, values))


async def _books(cluster: Cluster) -> dict[str, float]:
    values: dict[str, float] = {}
    stages = [process.pid for node in cluster.nodes for process in node.stages()]
    for kind, pids in (("coordinator", [each.pid for each in cluster.coordinators]), ("stage", stages)):
        for name, n in [item for pid in pids for item in _process(pid).items()]:  # who does what changes:
            values[f"{kind}.{name}"] = max(values.get(f"{kind}.{name}", 0), n)  # the fullest counts
    values |= await _load(cluster)
    async with Redis.from_url(cluster.valkey.url(cluster.valkey.address)) as redis:
        values["store.session_keys"] = sum([1 async for _ in redis.scan_iter(f"{_SESSION_KEYS}*")])
    return values


async def _load(cluster: Cluster) -> dict[str, float]:
    """What the coordinator that drives the stages says; one that does not answer counts as full."""
    statuses = [await _status(coordinator.address) for coordinator in cluster.coordinators]
    status = next((status for status in statuses if status and status.stages), None)
    if status is None:
        return {"load.unknown": 1}
    found: dict[str, float] = {
        "load.running": status.load.running,
        "load.waiting": status.load.waiting,
        "load.pages_reserved": status.load.kv_pages_reserved,
        "load.sessions_cached": status.load.sessions_cached,
    }
    for stage in status.stages:
        found[f"stage-{stage.stage}.pages_used"] = stage.kv_pages_used
        found[f"stage-{stage.stage}.slots_used"] = stage.slots_used
        found[f"stage-{stage.stage}.broken_books"] = not stage.integrity_ok
    return found


async def _status(address: str) -> Status | None:
    async with AsyncClient(address, timeout=5) as client:
        with contextlib.suppress(TriremeError):
            return await client.status()
    return None


def _process(pid: int) -> dict[str, float]:
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return {
            "fds": process.num_fds(),
            "threads": process.num_threads(),
            "rss_mb": round(process.memory_info().rss / 1e6),
        }
    return {}


async def offer_old_work(cluster: Cluster, history: History) -> None:
    """Sends each stage a frame, and a configuration, of an epoch that is over. Both must be refused."""
    for node in cluster.nodes:
        for process in node.stages():
            with contextlib.suppress(grpc.aio.AioRpcError, psutil.NoSuchProcess, TimeoutError):
                async with _stage(process, node.address) as stub:
                    await _offer(stub, node.name, history)


@contextlib.asynccontextmanager
async def _stage(process: psutil.Process, host: str) -> AsyncIterator[StageStub]:
    ports = listening(process.pid, host)
    if not ports:
        raise TimeoutError
    async with grpc.aio.insecure_channel(f"{host}:{ports[0]}", CHANNEL_OPTIONS) as channel:
        yield StageStub(channel)


def listening(pid: int, host: str) -> list[int]:
    """Ports on which a process listens at an IPv4 address. Read in the process's own network, which psutil does not."""
    address = socket.inet_aton(host)[::-1].hex().upper()
    folder = Path(f"/proc/{pid}")
    with contextlib.suppress(OSError):
        sockets = {_read_link(fd) for fd in (folder / "fd").iterdir()}
        rows = [row.split() for name in ("tcp", "tcp6") for row in (folder / "net" / name).read_text().splitlines()]
        mine = [row[1].split(":") for row in rows if row[3] == _LISTENS and f"socket:[{row[9]}]" in sockets]
        return [int(port, 16) for where, port in mine if where.endswith(address)]
    return []


def _read_link(path: Path) -> str:
    """Empty where it has gone."""
    with contextlib.suppress(OSError):
        return os.readlink(path)  # noqa: PTH115  (not a path: socket:[INODE])
    return ""


async def _offer(stub: StageStub, stage: str, history: History) -> None:
    epoch = (await stub.Report(pb.ReportRequest(), timeout=2)).epoch
    if not epoch:
        return
    for old in {epoch - 1, 1} - {epoch, 0}:
        call = stub.Forward(_frames(old), metadata=((EPOCH_KEY, str(old)),), timeout=2)
        history.add(Probe(history.now(), stage, epoch, old, accepted=not await _refused(call)))
    call = stub.Configure(pb.ConfigureRequest(epoch=epoch - 1), timeout=2)
    history.add(Probe(history.now(), stage, epoch, epoch - 1, accepted=not await _refused(call)))


async def _frames(epoch: int) -> AsyncIterator[pb.Frame]:
    yield pb.Frame(epoch=epoch, step=1, rows=[pb.Row(slot=0, position=0, count=1)], token_ids=[1])


async def _refused(call: grpc.aio.Call) -> bool:
    """Raises where the stage is not there to ask."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.FAILED_PRECONDITION:
            return True
        raise
    return False


async def watch_machine(history: History, seconds: float = 0.5) -> None:
    """Adds a sample of what was left to us, and of the machine's pace, again and again, until cancelled."""
    own, own_at = _own(), time.monotonic()
    busy, left = _busy(), 0.0
    while True:
        history.add(Left(history.now(), round(left, 3)))
        history.add(Pace(history.now(), round(_pace())))
        await asyncio.sleep(seconds)
        own_now, now, busy_now = _own(), time.monotonic(), _busy()
        others = max((busy_now - busy) - (own_now - own), 0.0)
        left += max((now - own_at) * (os.cpu_count() or 1) - others, 0.1 * (now - own_at))
        own, own_at, busy = own_now, now, busy_now


def _pace() -> float:
    """A millisecond's work, timed by the CPU seconds that it took: waiting for a core does not count."""
    began = time.thread_time()
    hashlib.blake2b(_HASHED).digest()
    return len(_HASHED) / 1e6 / max(time.thread_time() - began, 1e-9)


def _busy() -> float:
    """CPU seconds of everybody, with those that the host of a virtual machine gave to others (`steal`; Linux)."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq + getattr(times, "steal", 0.0))


def _own() -> float:
    """CPU seconds of this process and all below it, those that have ended and were waited for included."""
    total = 0.0
    me = psutil.Process()
    for process in [me, *me.children(recursive=True)]:
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total
