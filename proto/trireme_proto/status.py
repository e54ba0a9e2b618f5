"""Errors to gRPC statuses and back: ErrorInfo carries the reason, RetryInfo the time to wait."""

from __future__ import annotations

import typing

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from trireme_proto import errors

_BY_CODE: dict[grpc.StatusCode, type[errors.TriremeError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidRequest,
    grpc.StatusCode.NOT_FOUND: errors.SessionNotFound,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.Overloaded,
    grpc.StatusCode.UNAUTHENTICATED: errors.Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: errors.PermissionDenied,
    grpc.StatusCode.UNAVAILABLE: errors.Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.DeadlineExceeded,
    grpc.StatusCode.CANCELLED: errors.Cancelled,
    grpc.StatusCode.INTERNAL: errors.Internal,
}


def to_status(error: errors.TriremeError) -> Status:
    """The google.rpc.Status of an error, with ErrorInfo and, where it has a time to wait, RetryInfo."""
    details = [_packed(ErrorInfo(reason=error.reason, domain=errors.DOMAIN))]
    if error.retry_after is not None:
        wait = Duration()
        wait.FromNanoseconds(round(error.retry_after * 1e9))
        details.append(_packed(RetryInfo(retry_delay=wait)))
    return Status(code=error.code.value[0], message=error.message, details=details)


def to_grpc(error: errors.TriremeError) -> tuple[grpc.StatusCode, str, tuple[tuple[str, bytes], ...]]:
    """Code, message and trailing metadata for `context.abort`."""
    status = rpc_status.to_status(to_status(error))
    return status.code, status.details, tuple(status.trailing_metadata)


def from_grpc(error: grpc.RpcError) -> errors.TriremeError:
    """The typed error of a failed call, from its details where the server sent them, else from its code."""
    code = error.code() if hasattr(error, "code") else grpc.StatusCode.UNKNOWN
    message = (error.details() if hasattr(error, "details") else "") or code.name
    reason, retry_after = _details(error)
    cls = errors.error_classes().get(reason or "") or _BY_CODE.get(code, errors.Internal)
    return cls(message, retry_after=retry_after)


def _packed(message: ErrorInfo | RetryInfo) -> Any:
    packed = Any()
    packed.Pack(message)
    return packed


def _details(error: grpc.RpcError) -> tuple[str | None, float | None]:
    """(reason, seconds to wait) out of the trailing metadata; (None, None) where there is none of ours."""
    trailing: typing.Any = error.trailing_metadata() if hasattr(error, "trailing_metadata") else None
    raw = dict(trailing or ()).get("grpc-status-details-bin")
    if not isinstance(raw, bytes):
        return None, None
    reason, retry_after = None, None
    for detail in Status.FromString(raw).details:
        info, wait = ErrorInfo(), RetryInfo()
        if detail.Unpack(info) and info.domain == errors.DOMAIN:
            reason = info.reason
        elif detail.Unpack(wait):
            retry_after = wait.retry_delay.ToNanoseconds() / 1e9
    return reason, retry_after
