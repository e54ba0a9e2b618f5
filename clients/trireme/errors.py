"""The errors that the client raises, as one tree; see `TriremeError` and its subclasses.

The tree is drawn in `trireme_proto.errors`; this module only gives it its public name.
"""

from trireme_proto.errors import (
    ArchiveDamaged,
    Cancelled,
    CheckpointUnsupported,
    ConfigurationError,
    DeadlineExceeded,
    FrameRefused,
    Internal,
    InvalidRequest,
    Overloaded,
    PackCorrupt,
    PackNotFound,
    PipelineUnavailable,
    PromptTooLong,
    ServerUnreachable,
    SessionBusy,
    SessionIncomplete,
    SessionNotFound,
    SessionStoreUnavailable,
    StartupError,
    TriremeError,
    Unavailable,
    WrongModel,
)

__all__ = [
    "ArchiveDamaged",
    "Cancelled",
    "CheckpointUnsupported",
    "ConfigurationError",
    "DeadlineExceeded",
    "FrameRefused",
    "Internal",
    "InvalidRequest",
    "Overloaded",
    "PackCorrupt",
    "PackNotFound",
    "PipelineUnavailable",
    "PromptTooLong",
    "ServerUnreachable",
    "SessionBusy",
    "SessionIncomplete",
    "SessionNotFound",
    "SessionStoreUnavailable",
    "StartupError",
    "TriremeError",
    "Unavailable",
    "WrongModel",
]
