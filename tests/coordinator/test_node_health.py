"""Whether nodes answer."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor

import grpc

from trireme_coordinator.node_health import answering


def test_a_refusal_is_an_answer_and_silence_is_none() -> None:
    with ThreadPoolExecutor(1) as pool, socket.create_server(("127.0.0.1", 0)) as frozen:
        server = grpc.server(pool)  # without a health service: it says so
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        addresses = [f"127.0.0.1:{port}", f"127.0.0.1:{frozen.getsockname()[1]}", "127.0.0.1:1"]
        assert answering(addresses) == [True, False, False]
        server.stop(None).wait()
    assert answering([]) == []
