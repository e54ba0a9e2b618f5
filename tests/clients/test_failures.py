"""What gRPC reports of a failed call, and the typed error that comes of it."""

from __future__ import annotations

import grpc
import pytest

from trireme._failures import typed
from trireme_proto.errors import Cancelled, DeadlineExceeded, ServerUnreachable, TriremeError

C = grpc.StatusCode


class Failed(grpc.RpcError):
    """A call as grpc raises it, that no server has explained."""

    def __init__(self, code: grpc.StatusCode, details: str | None) -> None:
        self._code, self._details = code, details

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str | None:
        return self._details

    def trailing_metadata(self) -> None:
        return None


def error_of(code: grpc.StatusCode, details: str | None, *, begun: bool = False) -> TriremeError:
    return typed(Failed(code, details), target="host:1", timeout=2.0, begun=begun)


@pytest.mark.parametrize("details", ["CANCELLED", "RPC cancelled", "", None])
@pytest.mark.parametrize("begun", [True, False])
def test_a_call_that_the_stopping_server_cancelled_is_a_loss_and_asked_for_again(details, begun):
    error = error_of(C.CANCELLED, details, begun=begun)
    assert type(error) is ServerUnreachable
    assert error.retryable
    assert ("was lost" in error.message) == begun


@pytest.mark.parametrize("details", ["Locally cancelled by application!", "Channel closed!"])
def test_what_this_side_cancelled_is_cancelled(details):
    error = error_of(C.CANCELLED, details)
    assert type(error) is Cancelled
    assert not error.retryable


def test_what_the_transport_says_is_put_in_a_sentence():
    assert type(error_of(C.UNAVAILABLE, "connection refused")) is ServerUnreachable
    late = error_of(C.DEADLINE_EXCEEDED, "")
    assert type(late) is DeadlineExceeded
    assert late.message == "No complete answer came within the timeout of 2 s."
    assert type(error_of(C.UNIMPLEMENTED, "")) is ServerUnreachable
