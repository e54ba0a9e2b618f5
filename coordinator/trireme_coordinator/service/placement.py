"""PreviewPlacement: a plan for the model that is served, on the caller's machines or those that are there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from trireme_coordinator.nodes_file import check_machines
from trireme_coordinator.placement import Machine, ModelCosts, Plan, plan, wishes_for
from trireme_coordinator.placement.costs import DEFAULT_LINK_GBIT_S, DEFAULT_RTT_MS
from trireme_coordinator.placement.predict import Prediction
from trireme_proto.errors import ConfigurationError, InvalidRequest
from trireme_proto.v1 import cluster_pb2 as pb


class Previews:
    """Plans, one at a time and off the event loop: a large one takes seconds.

    machines  measures the nodes of this cluster; called from a thread, once
    """

    def __init__(self, model: ModelCosts, machines: Callable[[], tuple[Machine, ...]]) -> None:
        self._model, self._measure = model, machines
        self._machines: tuple[Machine, ...] = ()
        self._one = asyncio.Lock()

    async def answer(self, request: pb.PreviewPlacementRequest) -> pb.PreviewPlacementResponse:
        """The plan that a request asks for. InvalidRequest for nodes or lengths that cannot be planned for."""
        given = tuple(map(_machine, request.nodes))
        async with self._one:
            try:
                return _response(await asyncio.to_thread(self._plan, given, request))
            except ConfigurationError as error:
                raise InvalidRequest(error.message) from error

    def _plan(self, given: tuple[Machine, ...], request: pb.PreviewPlacementRequest) -> Plan:
        if not given and not self._machines:
            self._machines = self._measure()
        wishes = wishes_for(self._model, request.prompt_tokens or None, request.context_tokens or None)
        return plan(self._model, check_machines(given or self._machines), wishes)


def _machine(node: pb.NodeSpec) -> Machine:
    return Machine(
        name=node.name,
        ram_gb=node.ram_gb,
        read_gb_s=node.read_gb_s,
        int8_gmac_s=node.int8_gmac_s,
        cores=node.cores if node.HasField("cores") else None,
        rtt_ms=node.rtt_ms if node.HasField("rtt_ms") else DEFAULT_RTT_MS,
        link_gbit_s=node.link_gbit_s if node.HasField("link_gbit_s") else DEFAULT_LINK_GBIT_S,
    )


def _response(found: Plan) -> pb.PreviewPlacementResponse:
    return pb.PreviewPlacementResponse(
        stages=[
            pb.PlannedStage(
                node=stage.node,
                first_layer=stage.layers.start,
                end_layer=stage.layers.stop,
                step_seconds=stage.seconds,
                ram_bytes=stage.ram_bytes,
                kv_tokens=stage.kv_tokens,
            )
            for stage in found.prediction.stages
        ],
        left_out=[pb.LeftOutNode(node=each.node, reason=each.reason, spare=each.spare) for each in found.left_out],
        figures=_figures(found.prediction),
        what_if=[
            pb.PlacementChange(
                add=each.change == "add",
                node=each.node,
                figures=None if each.prediction is None else _figures(each.prediction),
            )
            for each in found.what_if
        ],
    )


def _figures(prediction: Prediction) -> pb.PlacementFigures:
    return pb.PlacementFigures(
        tokens_per_s_single=prediction.tokens_per_s_single,
        tokens_per_s_aggregate=prediction.tokens_per_s_aggregate,
        ttft_seconds=prediction.ttft_s,
        kv_tokens=prediction.kv_tokens,
    )
