"""The errors that the client raises, as one tree; see `TriremeError` and its subclasses.

The tree is drawn in `trireme_proto.errors`; this module only gives it its public name.
"""

from trireme_proto.errors import (
    Cancelled,
    CheckpointUnsupported,
    ConfigurationError,
    CoordinatorLeaving,
    DeadlineExceeded,
    FrameRefused,
    Internal,
    InvalidRequest,
    NotLeading,
    Overloaded,
    PackCorrupt,
    PackNotFound,
    PipelineUnavailable,
    PromptTooLong,
    ServerUnreachable,
    SessionBusy,
    SessionNotFound,
    SessionStoreUnavailable,
    StartupError,
    TriremeError,
    Unavailable,
)

__all__ = [
    "Cancelled",
    "CheckpointUnsupported",
    "ConfigurationError",
    "CoordinatorLeaving",
    "DeadlineExceeded",
    "FrameRefused",
    "Internal",
    "InvalidRequest",
    "NotLeading",
    "Overloaded",
    "PackCorrupt",
    "PackNotFound",
    "PipelineUnavailable",
    "PromptTooLong",
    "ServerUnreachable",
    "SessionBusy",
    "SessionNotFound",
    "SessionStoreUnavailable",
    "StartupError",
    "TriremeError",
    "Unavailable",
]
