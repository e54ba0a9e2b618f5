"""The fake server: its port, its threads, and the handles by which a test steers it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

import grpc

from trireme._transport import KEEPALIVE_MS
from trireme.testing.cluster import FakeCluster
from trireme.testing.inference import FakeInference
from trireme.testing.model import FakeModel
from trireme.testing.script import FakeCall, Script, Step
from trireme.testing.sessions import FakeSessions
from trireme.testing.store import Store
from trireme.testing.traces import FakeTraces
from trireme_proto.errors import TriremeError
from trireme_proto.limits import LIMITS
from trireme_proto.v1 import inference_pb2 as inference
from trireme_proto.v1.cluster_pb2_grpc import add_ClusterServicer_to_server
from trireme_proto.v1.inference_pb2_grpc import add_InferenceServicer_to_server
from trireme_proto.v1.sessions_pb2_grpc import add_SessionsServicer_to_server
from trireme_proto.v1.traces_pb2_grpc import add_TracesServicer_to_server

_OPTIONS = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", LIMITS.message_bytes),
    ("grpc.http2.min_ping_interval_without_data_ms", KEEPALIVE_MS // 2),
)


def _now() -> datetime:
    return datetime.now(UTC)


class FakeServer:
    """Serves the public API on a free loopback port while its `with` (or `async with`) block lasts.

    Tokens are bytes; an answer follows from the context and the seed, so it is the same each time. The ranges of the
    API are checked as the real server checks them. `fail_next`, `hold_next` and `answer_next` script the calls to come.
    """

    def __init__(
        self,
        *,
        model: FakeModel | None = None,
        clock: Callable[[], datetime] = _now,
        threads: int = 32,
        beside: FakeServer | None = None,
    ) -> None:
        """model: what answers. clock: time in UTC, by which sessions expire. threads: calls served at once.
        beside: another server, whose model and sessions this one shares, as coordinators of one cluster do.
        """
        self._script = Script()
        self._model = model or (beside.model if beside else FakeModel())
        self._store = store = Store(clock) if beside is None else beside.store
        self._traces = FakeTraces(self._script)
        self._inference = FakeInference(store, self._model, self._script, self._traces)
        self._services = (FakeSessions(store, self._model, self._script), FakeCluster(store, self._model, self._script))
        self._threads = threads
        self._running: tuple[grpc.Server, ThreadPoolExecutor] | None = None
        self.target = ""
        """HOST:PORT, once it runs."""

    @property
    def model(self) -> FakeModel:
        """What answers."""
        return self._model

    @property
    def store(self) -> Store:
        """What it keeps, for a server beside it."""
        return self._store

    @property
    def calls(self) -> Sequence[FakeCall]:
        """The `generate` calls so far, in the order of their arrival."""
        return self._inference.calls

    def wait_call(self, number: int = 0, timeout: float = 10.0) -> FakeCall:
        """The call with this place in `calls`, once it has arrived. Raises TimeoutError."""
        with self._inference.arrival:
            if not self._inference.arrival.wait_for(lambda: len(self.calls) > number, timeout):
                raise TimeoutError(f"Call {number} did not arrive within {timeout:g} s.")
            return self.calls[number]

    def fail_next(self, error: TriremeError, *, after: int = 0, method: str = "Generate") -> None:
        """The next call of `method` (its name in the .proto files) fails; a generation after so many tokens."""
        self._script.add(method, Step(after, error))

    def hold_next(self, *, after: int = 0, method: str = "Generate") -> None:
        """The next call of `method` waits until the caller goes away; a generation after so many tokens."""
        self._script.add(method, Step(after, hold=True))

    def lose_next(self, *, after: int = 0, method: str = "Generate") -> None:
        """The next call of `method` loses its connection; a generation after so many tokens."""
        self._script.add(method, Step(after, lose=True))

    def refuse_all(self, error: TriremeError | None) -> None:
        """Every call fails, until None is given: as NotLeading where another server of a cluster leads."""
        self._script.refusal = error

    def answer_next(self, *messages: inference.GenerateResponse, hold: bool = False) -> None:
        """The next generation sends just these messages, right or wrong; then it ends, or waits for the caller to."""
        self._script.add("Generate", Step(messages=messages, hold=hold))

    def lose_tokens(self, session_id: str, count: int) -> None:
        """The last tokens of a session count as not stored, as after an outage of a real server's session store."""
        self._store.lose(session_id, count)

    def start(self) -> None:
        """Opens the port. Not needed in a `with` block."""
        executor = ThreadPoolExecutor(self._threads, thread_name_prefix="trireme-fake")
        server = grpc.server(executor, options=_OPTIONS)
        add_InferenceServicer_to_server(self._inference, server)
        add_SessionsServicer_to_server(self._services[0], server)
        add_ClusterServicer_to_server(self._services[1], server)
        add_TracesServicer_to_server(self._traces, server)
        self.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        self._running = (server, executor)

    def stop(self) -> None:
        """Cuts all connections and closes the port. May be called again."""
        if self._running is not None:
            server, executor = self._running
            self._running = None
            server.stop(None).wait()
            executor.shutdown()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.stop)  # what it waits for may need the running loop
