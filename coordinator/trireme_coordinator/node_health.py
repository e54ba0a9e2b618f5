"""Whether Ray's nodes answer, asked of themselves by the health service that every gRPC server may have.

Ray's own list of nodes is seconds old when one falls silent. Knows addresses only.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub

_SECONDS = 0.5
_NO_ANSWER = (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)
_OPTIONS = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]
_MOST_AT_ONCE = 32


def answering(addresses: Sequence[str]) -> list[bool]:
    """Whether something answers at each HOST:PORT within half a second; a refusal is an answer. Blocks."""
    if not addresses:
        return []
    with ThreadPoolExecutor(min(len(addresses), _MOST_AT_ONCE)) as pool:
        return list(pool.map(_answers, addresses))


def _answers(address: str) -> bool:
    with grpc.insecure_channel(address, _OPTIONS) as channel:
        try:
            HealthStub(channel).Check(HealthCheckRequest(), timeout=_SECONDS)
        except grpc.RpcError as error:
            return error.code() not in _NO_ANSWER
        return True
