"""The public gRPC server: all services, health and reflection on one port."""

from __future__ import annotations

import importlib.metadata
import socket

import grpc
from grpc_health.v1 import health_pb2
from grpc_health.v1._async import HealthServicer
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server
from grpc_reflection.v1alpha import reflection

from trireme_coordinator.auth.guard import Guard
from trireme_coordinator.engine import Engine
from trireme_coordinator.leadership import Leadership, SoleLeadership
from trireme_coordinator.metrics.requests import RequestMeter
from trireme_coordinator.placement import LayersOf, Placed
from trireme_coordinator.service.cluster import ClusterService
from trireme_coordinator.service.counting import Counting
from trireme_coordinator.service.door import Door
from trireme_coordinator.service.inference import InferenceService
from trireme_coordinator.service.placement import Previews
from trireme_coordinator.service.profiling import Profiler
from trireme_coordinator.service.requests import Bounds
from trireme_coordinator.service.session_service import SessionsService
from trireme_coordinator.service.sessions import SessionGate
from trireme_coordinator.service.traces import TracesService
from trireme_coordinator.telemetry import Telemetry
from trireme_coordinator.text import TextCodec
from trireme_proto.certificates import CertificateFiles, server_credentials
from trireme_proto.errors import ConfigurationError
from trireme_proto.limits import LIMITS
from trireme_proto.v1 import cluster_pb2
from trireme_proto.v1.cluster_pb2_grpc import add_ClusterServicer_to_server
from trireme_proto.v1.inference_pb2_grpc import add_InferenceServicer_to_server
from trireme_proto.v1.sessions_pb2_grpc import add_SessionsServicer_to_server
from trireme_proto.v1.traces_pb2_grpc import add_TracesServicer_to_server
from trireme_worker.pack import Pack

LIVENESS = "liveness"
"""Name that the health service answers SERVING for whenever it answers at all, a complete pipeline or not: what a
supervisor asks before it restarts this process."""
_SERVICES = ("trireme.v1.Inference", "trireme.v1.Sessions", "trireme.v1.Cluster", "trireme.v1.Traces")
_OPTIONS = [
    ("grpc.max_receive_message_length", LIMITS.message_bytes),
    ("grpc.so_reuseport", 0),  # a busy port is an error, not a second server that takes half of the calls
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5000),
]
_GRACE_SECONDS = 5.0


def check_free(host: str, port: int) -> None:
    """ConfigurationError where the address cannot be listened on. For before the slow part of a start."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.create_server((host.strip("[]"), port), family=family):
            pass
    except OSError as error:
        raise _not_free(host, port) from error


def _not_free(host: str, port: int) -> ConfigurationError:
    return ConfigurationError(f"{host}:{port} cannot be listened on: it is in use, or not an address of this machine.")


class PublicServer:
    """All services on one port. To be made after Ray was started: Ray forks, which gRPC's threads do not survive."""

    def __init__(
        self,
        host: str,
        port: int,
        door: Door | None = None,
        tls: CertificateFiles | None = None,
        *,
        mutual: bool = False,
        guard: Guard | None = None,
        reflection: bool = True,
        counted: RequestMeter | None = None,
    ) -> None:
        """`door`: whether anybody may come in; None: yes. `guard`: who; None: everybody. `tls`: the certificates;
        `mutual`: clients must show one. `reflection`: whether callers can have the methods listed. `counted`: where
        calls are counted.
        """
        first = [Counting(counted)] if counted is not None else []
        self._server = grpc.aio.server(
            options=_OPTIONS,
            maximum_concurrent_rpcs=LIMITS.concurrent_calls,
            interceptors=[*first, *(each for each in (guard, door) if each)],
        )
        self._health = HealthServicer()
        self._reflection = reflection
        try:
            bound = self._bind(f"{host}:{port}", tls, mutual=mutual)
        except RuntimeError as error:
            raise _not_free(host, port) from error
        self.address = f"{host}:{bound}"

    def _bind(self, address: str, tls: CertificateFiles | None, *, mutual: bool) -> int:
        if tls is None:
            return self._server.add_insecure_port(address)
        return self._server.add_secure_port(address, server_credentials(tls, clients=mutual))

    async def start(
        self,
        engine: Engine,
        codec: TextCodec,
        gate: SessionGate,
        telemetry: Telemetry,
        pack: Pack,
        placed: list[Placed],
        previews: Previews,
        leadership: Leadership | None = None,
        *,
        threads: int,
        profiler: Profiler | None = None,
    ) -> None:
        """Adds the services and serves."""
        config, defaults = pack.config, pack.generation
        bounds = Bounds(
            vocabulary=config.vocabulary,
            context=engine.scheduler.config.context,
            temperature=defaults.temperature,
            top_k=defaults.top_k,
            top_p=defaults.top_p,
        )
        inference = InferenceService(
            engine,
            codec,
            gate,
            telemetry,
            bounds,
            model=config.name,
            eos_token_ids=frozenset(config.eos_token_ids),
            layers=LayersOf(placed),
        )
        version = importlib.metadata.version("trireme-inference")
        model, leadership = model_of(pack), leadership or SoleLeadership()
        cluster = ClusterService(
            engine,
            gate.store,
            placed,
            model,
            previews,
            leadership,
            threads=threads,
            version=version,
            profiler=profiler,
        )
        add_InferenceServicer_to_server(inference, self._server)
        add_SessionsServicer_to_server(SessionsService(gate, engine), self._server)
        add_ClusterServicer_to_server(cluster, self._server)
        add_TracesServicer_to_server(TracesService(telemetry), self._server)
        add_HealthServicer_to_server(self._health, self._server)
        if self._reflection:
            names = (*_SERVICES, "grpc.health.v1.Health", reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, self._server)
        await self._health.set(LIVENESS, health_pb2.HealthCheckResponse.SERVING)
        await self.set_healthy(healthy=False)  # until somebody says otherwise
        await self._server.start()

    async def set_healthy(self, *, healthy: bool) -> None:
        """What the health service answers for the server and each of its services."""
        status = health_pb2.HealthCheckResponse.SERVING if healthy else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", *_SERVICES):
            await self._health.set(name, status)

    async def stop(self) -> None:
        """Stops taking calls, gives running ones a moment, ends the rest."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(_GRACE_SECONDS)


def model_of(pack: Pack) -> cluster_pb2.Model:
    """The model's part of a status."""
    config = pack.config
    return cluster_pb2.Model(
        name=config.name,
        pack_sha256=pack.sha256,
        layers=config.layers,
        hidden_size=config.hidden_size,
        vocabulary=config.vocabulary,
        context=config.context,
        layout=pack.layout,
        parameters=config.parameters,
    )
