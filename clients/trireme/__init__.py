"""Trireme's client library: ternary language models, served by CPUs, as a stream of tokens.

    >>> from trireme import Client
    >>> with Client() as client:
    ...     with client.generate("Once upon a time", max_tokens=12, temperature=0.8, seed=7) as stream:
    ...         text = "".join(chunk.text for chunk in stream)
    ...     again = client.generate("Once upon a time", max_tokens=12, temperature=0.8, seed=7).result()
    >>> again.text == text
    True
    >>> again.finish_reason, again.usage.completion_tokens
    (<FinishReason.LENGTH: 'length'>, 12)

The same for asyncio:

    >>> import asyncio
    >>> from trireme import AsyncClient, errors
    >>> async def main() -> None:
    ...     async with AsyncClient(timeout=30) as client:
    ...         async with client.generate("Once upon a time", max_tokens=12) as stream:
    ...             async for chunk in stream:
    ...                 pass
    ...         more = await client.generate(" And then", session=stream.session_id, max_tokens=4).result()
    ...         print(more.session_id == stream.session_id)
    ...         try:
    ...             await client.sessions.get("no-such-session")
    ...         except errors.SessionNotFound:
    ...             print("forgotten")
    >>> asyncio.run(main())
    True
    forgotten

`Client()` calls localhost:50051 unless TRIREME_TARGET or the argument says otherwise. `trireme.errors` has the tree of
errors, `trireme.testing` a server to test against without a model.
"""

from trireme import _config as _config  # before all that loads gRPC: see there
from trireme import errors
from trireme._aio.client import AsyncClient, AsyncSessions
from trireme._aio.stream import AsyncGenerationStream
from trireme._blocking.client import Client, Sessions
from trireme._blocking.stream import GenerationStream
from trireme.cluster import (
    LeftOutNode,
    Load,
    Model,
    NodeSpec,
    PlacementChange,
    PlacementFigures,
    PlacementPreview,
    PlannedStage,
    Recovery,
    Stage,
    Status,
)
from trireme.errors import TriremeError
from trireme.profiles import Profile, ProfiledStage
from trireme.results import FinishReason, Generation, Session, TokenChunk, Usage
from trireme.traces import RecentTraces, RequestSpans, Span, SpanProcess, TraceSummary

__all__ = [
    "AsyncClient",
    "AsyncGenerationStream",
    "AsyncSessions",
    "Client",
    "FinishReason",
    "Generation",
    "GenerationStream",
    "LeftOutNode",
    "Load",
    "Model",
    "NodeSpec",
    "PlacementChange",
    "PlacementFigures",
    "PlacementPreview",
    "PlannedStage",
    "Profile",
    "ProfiledStage",
    "RecentTraces",
    "Recovery",
    "RequestSpans",
    "Session",
    "Sessions",
    "Span",
    "SpanProcess",
    "Stage",
    "Status",
    "TokenChunk",
    "TraceSummary",
    "TriremeError",
    "Usage",
    "errors",
]
