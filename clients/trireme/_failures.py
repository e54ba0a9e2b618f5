"""Failed calls to typed errors, in words for the caller: whose address, which deadline.

What the server said itself is passed on as it is; what the transport says is put in a sentence.
"""

from __future__ import annotations

from typing import Any

import grpc

from trireme_proto import status
from trireme_proto.errors import Cancelled, DeadlineExceeded, ServerUnreachable, TriremeError

_DETAILS_KEY = "grpc-status-details-bin"
_OWN_CANCELS = ("Locally cancelled", "Channel closed")
"""In what gRPC says of a call that this side cancelled."""


def typed(error: grpc.RpcError, *, target: str, timeout: float | None, begun: bool = False) -> TriremeError:
    """The error to raise for a failed call. `begun`: a part of its answer had come already."""
    failure: Any = error  # what grpc raises is both an RpcError and a Call
    by_server = _DETAILS_KEY in dict(failure.trailing_metadata() or ())
    code = failure.code()
    if code is grpc.StatusCode.CANCELLED and not any(own in (failure.details() or "") for own in _OWN_CANCELS):
        code = grpc.StatusCode.UNAVAILABLE  # not our doing: the server stops, and gRPC ends its calls so
    own = None if by_server else _transport_failure(code, target, timeout, begun)
    return own or status.from_grpc(error)


def last(error: TriremeError, timeout: float | None, *, late: bool) -> TriremeError:
    """What to raise of a call that is not made again. `late`: only because its deadline comes first."""
    if not late or timeout is None:
        return error
    return DeadlineExceeded(f"No complete answer came within the timeout of {timeout:g} s. {error.message}")


def _transport_failure(code: grpc.StatusCode, target: str, timeout: float | None, begun: bool) -> TriremeError | None:
    match code:
        case grpc.StatusCode.UNAVAILABLE if begun:
            return ServerUnreachable(f"The connection to the Trireme server at {target} was lost.")
        case grpc.StatusCode.UNAVAILABLE:
            return ServerUnreachable(f"No Trireme server answers at {target}; `trireme serve` starts one.")
        case grpc.StatusCode.UNIMPLEMENTED:
            return ServerUnreachable(f"No Trireme server answers at {target}: what listens there lacks this call.")
        case grpc.StatusCode.DEADLINE_EXCEEDED if timeout is not None:
            return DeadlineExceeded(f"No complete answer came within the timeout of {timeout:g} s.")
        case grpc.StatusCode.CANCELLED:
            return Cancelled("The call was cancelled before its answer was complete.")
    return None
