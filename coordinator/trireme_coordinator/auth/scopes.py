"""Which scope each method of the public server wants. A method that is not in the table is refused to everybody.

generate   texts and tokens                 sessions   everything that can be done with conversations
cluster    what runs where, read only       admin      all of that, and what concerns other tenants
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class Scope(StrEnum):
    """What a key or token may be allowed."""

    GENERATE = "generate"
    SESSIONS = "sessions"
    CLUSTER = "cluster"
    ADMIN = "admin"


_GENERATE = ("Generate", "Tokenize", "Detokenize")
_SESSIONS = ("Create", "Get", "List", "Delete", "Fork", "Rewind", "Export", "Import")
_CLUSTER = ("Status", "PreviewPlacement")

HEALTH = frozenset(f"/grpc.health.v1.Health/{name}" for name in ("Check", "List", "Watch"))
"""Open to everybody: probes have no keys, and learn no more than whether the server is there."""
REFLECTION = frozenset({"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"})
"""Any good key or token will do, unless the operator opened it."""
SCOPES: Mapping[str, Scope] = MappingProxyType(
    {f"/trireme.v1.Inference/{name}": Scope.GENERATE for name in _GENERATE}
    | {f"/trireme.v1.Sessions/{name}": Scope.SESSIONS for name in _SESSIONS}
    | {f"/trireme.v1.Cluster/{name}": Scope.CLUSTER for name in _CLUSTER}
)
"""By full method name."""
STREAMS = frozenset({"/trireme.v1.Inference/Generate"})
"""Methods that hold a place in the quota of concurrent streams."""
COUNTED = frozenset({Scope.GENERATE, Scope.SESSIONS})
"""Scopes whose calls count as requests of a quota: looking at the cluster costs nobody a request."""
