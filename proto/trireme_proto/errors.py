"""Every error that Trireme raises on purpose, as one tree.

Each class has one gRPC status, one machine-readable reason (ErrorInfo.reason) and says whether trying again can help.
Messages are one clear sentence for a person; they never hold a path, an address or a key of the server.

    TriremeError
    |-- InvalidRequest            INVALID_ARGUMENT     the request itself is wrong; sending it again will not help
    |   |-- PromptTooLong         INVALID_ARGUMENT     prompt (with its session) does not fit the context window
    |   |-- RequestConflict       INVALID_ARGUMENT     the session has a request of this id with other content
    |   |-- WrongModel            INVALID_ARGUMENT     the session belongs to another model than the one being served
    |   `-- ArchiveDamaged        INVALID_ARGUMENT     what is to be imported is no exported session, or was changed
    |-- SessionNotFound           NOT_FOUND            no such session, or it has expired
    |-- RequestNotFound           NOT_FOUND            there is no record of a request that is to be resumed
    |-- TraceNotFound             NOT_FOUND            the trace of a request is not kept, or not any more
    |-- SessionBusy               FAILED_PRECONDITION  another request is running on the session
    |-- RequestSuperseded         FAILED_PRECONDITION  the session has gone on since the request was interrupted
    |-- StreamTakenOver           ABORTED              the same request was sent again; the newer call gets the answer
    |-- SessionIncomplete         FAILED_PRECONDITION  the session's last tokens were not stored; rewinding it helps
    |-- Unauthenticated           UNAUTHENTICATED      no key or token came with the call, or none that is good
    |-- PermissionDenied          PERMISSION_DENIED    the key or token does not allow this call
    |-- Overloaded                RESOURCE_EXHAUSTED   the queue is full; retry after the time given
    |   `-- QuotaExceeded         RESOURCE_EXHAUSTED   the tenant's share is used up; retry after the time given
    |-- Unavailable               UNAVAILABLE          the server cannot do it right now
    |   |-- ServerUnreachable     UNAVAILABLE          nothing answers at the address (raised by the client)
    |   |-- PipelineUnavailable   UNAVAILABLE          the stages are starting, or one was lost
    |   |-- NotLeading            UNAVAILABLE          another coordinator drives the stages; call that one
    |   |-- CoordinatorLeaving    UNAVAILABLE          this coordinator stops; another one goes on with the answer
    |   |-- SessionStoreUnavailable UNAVAILABLE        Redis does not answer, is full or read-only
    |   `-- LeaseLost             UNAVAILABLE          another coordinator has taken over the session; resume there
    |-- DeadlineExceeded          DEADLINE_EXCEEDED    the caller's deadline passed
    |-- Cancelled                 CANCELLED            the caller went away
    |-- Internal                  INTERNAL             a fault of ours; the trace id tells the operators which
    |-- FrameRefused              FAILED_PRECONDITION  a stage got a frame that it must not compute (internal)
    `-- StartupError              (never on the wire)  a command cannot start; the message says what to change
        |-- PackNotFound                               there is no pack at that place
        |-- PackCorrupt                                a pack's files do not match its manifest or contradict each other
        |-- CheckpointUnsupported                      a checkpoint cannot be converted
        `-- ConfigurationError                         a setting is unknown or out of its range
"""

from __future__ import annotations

from typing import ClassVar

from grpc import StatusCode

DOMAIN = "trireme"


class TriremeError(Exception):
    """Base of all of them. `code`, `reason` and `retryable` belong to the class; `retry_after` to the occurrence."""

    code: ClassVar[StatusCode] = StatusCode.UNKNOWN
    reason: ClassVar[str] = "UNKNOWN"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after
        """Seconds after which to try again, where the server said so."""


class InvalidRequest(TriremeError):
    """The request itself is wrong; the message names the field."""

    code, reason = StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"


class PromptTooLong(InvalidRequest):
    """Prompt and session together do not leave room for one token in the context window."""

    reason = "PROMPT_TOO_LONG"


class RequestConflict(InvalidRequest):
    """The session has a request of this id, but with other content, or with another seed."""

    reason = "REQUEST_CONFLICT"


class WrongModel(InvalidRequest):
    """The session was made with another pack: its token ids would mean other text."""

    reason = "WRONG_MODEL"


class ArchiveDamaged(InvalidRequest):
    """What is to be imported is not what was exported."""

    reason = "ARCHIVE_DAMAGED"


class SessionNotFound(TriremeError):
    """No such session, or it has expired."""

    code, reason = StatusCode.NOT_FOUND, "SESSION_NOT_FOUND"


class RequestNotFound(TriremeError):
    """There is no record of a request that is to be resumed: it never arrived, or it is too long ago."""

    code, reason = StatusCode.NOT_FOUND, "REQUEST_NOT_FOUND"


class TraceNotFound(TriremeError):
    """The trace is not kept, or not any more, or another coordinator has it."""

    code, reason = StatusCode.NOT_FOUND, "TRACE_NOT_FOUND"


class SessionBusy(TriremeError):
    """Another request is running on the session."""

    code, reason, retryable = StatusCode.FAILED_PRECONDITION, "SESSION_BUSY", True


class RequestSuperseded(TriremeError):
    """The session has gone on since the request was interrupted, so it cannot be resumed any more."""

    code, reason = StatusCode.FAILED_PRECONDITION, "REQUEST_SUPERSEDED"


class StreamTakenOver(TriremeError):
    """The same request was sent again: the newer call gets the answer."""

    code, reason = StatusCode.ABORTED, "STREAM_TAKEN_OVER"


class SessionIncomplete(TriremeError):
    """The session's last tokens were not stored; it can be read, forked before its end, or rewound."""

    code, reason = StatusCode.FAILED_PRECONDITION, "SESSION_INCOMPLETE"


class Unauthenticated(TriremeError):
    """No API key or token came with the call, or it is unknown, expired or revoked; which of them is not said."""

    code, reason = StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED"


class PermissionDenied(TriremeError):
    """The API key or token is good, but does not allow this call; the message names the scope that does."""

    code, reason = StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED"


class Overloaded(TriremeError):
    """The queue is full; `retry_after` says when to come back."""

    code, reason, retryable = StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", True


class QuotaExceeded(Overloaded):
    """The tenant has used up its requests, tokens or streams; `retry_after` says when to come back."""

    reason = "QUOTA_EXCEEDED"


class Unavailable(TriremeError):
    """The server cannot do it right now."""

    code, reason, retryable = StatusCode.UNAVAILABLE, "UNAVAILABLE", True


class ServerUnreachable(Unavailable):
    """Nothing answers at the address."""

    reason = "SERVER_UNREACHABLE"


class PipelineUnavailable(Unavailable):
    """The stages are starting, or one of them was lost."""

    reason = "PIPELINE_UNAVAILABLE"


class NotLeading(Unavailable):
    """The coordinator does not drive the stages: another one does, or is about to."""

    reason = "NOT_LEADING"


class CoordinatorLeaving(Unavailable):
    """The coordinator is being stopped; what it was at goes on at another one, from the next token on."""

    reason = "COORDINATOR_LEAVING"


class SessionStoreUnavailable(Unavailable):
    """Redis does not answer, or takes nothing because it is full or read-only."""

    reason = "SESSION_STORE_UNAVAILABLE"


class LeaseLost(Unavailable):
    """Another coordinator has taken over the session; the request can be resumed there."""

    reason = "LEASE_LOST"


class DeadlineExceeded(TriremeError):
    """The caller's deadline passed."""

    code, reason = StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"


class Cancelled(TriremeError):
    """The caller went away."""

    code, reason = StatusCode.CANCELLED, "CANCELLED"


class Internal(TriremeError):
    """A fault of ours."""

    code, reason = StatusCode.INTERNAL, "INTERNAL"


class FrameRefused(TriremeError):
    """A stage got a frame that it must not compute: wrong epoch, step, slot, position, shape or checksum."""

    code, reason = StatusCode.FAILED_PRECONDITION, "FRAME_REFUSED"


class StartupError(TriremeError):
    """A command cannot start; the message says what to change."""

    code, reason = StatusCode.FAILED_PRECONDITION, "STARTUP"


class PackNotFound(StartupError):
    """There is no pack at that place."""

    reason = "PACK_NOT_FOUND"


class PackCorrupt(StartupError):
    """A pack's files do not match its manifest, or contradict each other."""

    reason = "PACK_CORRUPT"


class CheckpointUnsupported(StartupError):
    """A checkpoint that cannot be converted; the message says which part of it."""

    reason = "CHECKPOINT_UNSUPPORTED"


class ConfigurationError(StartupError):
    """A setting is unknown, contradictory or out of its range."""

    reason = "CONFIGURATION"


def error_classes() -> dict[str, type[TriremeError]]:
    """All classes of the tree by reason."""
    found: dict[str, type[TriremeError]] = {}
    todo: list[type[TriremeError]] = [TriremeError]
    while todo:
        cls = todo.pop()
        found[cls.reason] = cls
        todo += cls.__subclasses__()
    return found
