"""The fake server's `Cluster` service: two stages whose pages are those of the running requests."""
# ruff: noqa: N802, ARG002 - gRPC gives the methods their names and parameters

from __future__ import annotations

import grpc

from trireme.testing.handlers import scripted
from trireme.testing.model import FakeModel
from trireme.testing.script import Script
from trireme.testing.store import Store
from trireme_proto.errors import InvalidRequest
from trireme_proto.limits import LIMITS
from trireme_proto.v1 import cluster_pb2 as cluster
from trireme_proto.v1.cluster_pb2_grpc import ClusterServicer

_LAYERS = (0, 2, 4)
_PAGES = 1024
_PAGES_A_REQUEST = 4
_FIGURES = cluster.PlacementFigures(
    tokens_per_s_single=100.0, tokens_per_s_aggregate=200.0, ttft_seconds=0.1, kv_tokens=1 << 14
)


class FakeCluster(ClusterServicer):
    """A pipeline that is always ready."""

    def __init__(self, store: Store, model: FakeModel, script: Script) -> None:
        self.script = script
        self._store = store
        self._model = model

    @scripted
    def Status(self, request: cluster.StatusRequest, context: grpc.ServicerContext) -> cluster.StatusResponse:
        running = self._store.busy()
        pages = running * _PAGES_A_REQUEST
        return cluster.StatusResponse(
            model=self._described(),
            stages=[self._stage(number, running, pages) for number in range(len(_LAYERS) - 1)],
            load=cluster.Load(
                running=running, queue_limit=LIMITS.queue, kv_pages_reserved=pages, kv_pages_total=_PAGES
            ),
            epoch=1,
            ready=True,
            version="fake",
            session_store_ok=True,
            leading=True,
        )

    @scripted
    def Profile(self, request: cluster.ProfileRequest, context: grpc.ServicerContext) -> cluster.ProfileResponse:
        """At once, and always idle."""
        seconds = request.seconds or 5.0
        if not 0.1 <= seconds <= LIMITS.profile_seconds:
            raise InvalidRequest(f"seconds must be 0.1 to {LIMITS.profile_seconds}.")
        stages = [
            cluster.ProfiledStage(
                stage=number,
                node=f"fake-node-{number}",
                first_layer=_LAYERS[number],
                end_layer=_LAYERS[number + 1],
                bubble=1.0,
            )
            for number in range(len(_LAYERS) - 1)
        ]
        advice = "There was hardly any work: nothing holds the pipeline back."
        return cluster.ProfileResponse(seconds=seconds, bottleneck="idle", advice=advice, stages=stages, slots=64)

    @scripted
    def PreviewPlacement(
        self, request: cluster.PreviewPlacementRequest, context: grpc.ServicerContext
    ) -> cluster.PreviewPlacementResponse:
        """Layers are spread evenly, in the order of the nodes; figures are made up."""
        names = [node.name for node in request.nodes] or ["fake-node-0", "fake-node-1"]
        if len(names) > LIMITS.plan_nodes or len(set(names)) < len(names) or not all(names):
            raise InvalidRequest(f"A plan is for 1 to {LIMITS.plan_nodes} nodes with names of their own.")
        used, layers = names[: _LAYERS[-1]], _LAYERS[-1]
        return cluster.PreviewPlacementResponse(
            stages=[
                cluster.PlannedStage(
                    node=name,
                    first_layer=layers * i // len(used),
                    end_layer=layers * (i + 1) // len(used),
                    step_seconds=0.001,
                    ram_bytes=1 << 30,
                    kv_tokens=1 << 14,
                )
                for i, name in enumerate(used)
            ],
            left_out=[
                cluster.LeftOutNode(node=name, reason="there are more nodes than layers", spare=True)
                for name in names[layers:]
            ],
            figures=_FIGURES,
            what_if=[cluster.PlacementChange(add=add, node=names[0], figures=_FIGURES) for add in (True, False)],
        )

    def _described(self) -> cluster.Model:
        return cluster.Model(
            name=self._model.name,
            pack_sha256=self._model.pack_sha256,
            layers=_LAYERS[-1],
            hidden_size=64,
            vocabulary=self._model.vocabulary,
            context=self._model.context,
            layout="2bit",
            parameters=1_000_000,
        )

    def _stage(self, number: int, slots: int, pages: int) -> cluster.StageStatus:
        return cluster.StageStatus(
            stage=number,
            first_layer=_LAYERS[number],
            end_layer=_LAYERS[number + 1],
            node=f"fake-node-{number}",
            threads=1,
            kv_pages_total=_PAGES,
            kv_pages_used=pages,
            slots_used=slots,
            integrity_ok=True,
            rss_bytes=100 << 20,
        )
