"""A collector of traces for benchmarks: takes every batch over gRPC and looks at none."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc

_EXPORT = "opentelemetry.proto.collector.trace.v1.TraceService"


class Sink(grpc.GenericRpcHandler):
    """Counts the batches."""

    def __init__(self) -> None:
        self.batches = 0

    def service(self, handler_call_details: Any) -> Any:
        """Answers Export of traces, and nothing else."""
        if not handler_call_details.method.startswith(f"/{_EXPORT}/"):
            return None
        return grpc.unary_unary_rpc_method_handler(self._take)

    def _take(self, _request: bytes, _context: Any) -> bytes:
        self.batches += 1
        return b""


@contextmanager
def sink() -> Iterator[tuple[Sink, str]]:
    """A collector on a free loopback port, and its address."""
    taking, server = Sink(), grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((taking,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield taking, f"http://127.0.0.1:{port}"
    finally:
        server.stop(None).wait()
