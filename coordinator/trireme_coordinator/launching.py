"""What the engine asks for when it builds a pipeline: stages, that lost ones are put away, and an epoch.

The types, and the simplest of each. Knows nothing of Ray, Redis or leaders.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from trireme_coordinator.loss import StageLoss

Launch = Callable[[], Awaitable[list[str]]]
"""Makes sure that all stages run; returns their addresses in pipeline order. PipelineUnavailable if it cannot."""

Discard = Callable[[Sequence[StageLoss]], Awaitable[None]]
"""Told which stages are lost before the next launch: a process that is frozen, hung or gone must not be used again."""


async def keep(_: Sequence[StageLoss]) -> None:
    """For a launcher that finds out by itself."""


NextEpoch = Callable[[int], Awaitable[int]]
"""The epoch to begin, above the highest one that was seen. A TriremeError where there must be none."""


async def one_more(seen: int) -> int:
    """The next epoch of a coordinator that no other can follow."""
    return seen + 1
