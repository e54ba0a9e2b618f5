"""The detached actors of a deployment as Ray knows them, by name: one for each stage and launch."""

from __future__ import annotations

import contextlib
import re
import time
from typing import Any

from trireme_proto.errors import PipelineUnavailable

_GONE_SECONDS = 10


def actor_name(deployment: str, stage: int, generation: int) -> str:
    """The generation is part of it: an old actor may be frozen, not gone."""
    return f"{deployment}-stage-{stage}-{generation}"


def named_stages(deployment: str) -> list[tuple[int, int, str]]:
    """(stage, generation, name) of a deployment's actors, in this order."""
    from ray.util import list_named_actors  # noqa: PLC0415

    form = re.compile(rf"{re.escape(deployment)}-stage-(\d+)-(\d+)")
    found = [(form.fullmatch(name), name) for name in list_named_actors()]
    return sorted((int(match[1]), int(match[2]), name) for match, name in found if match is not None)


def find_actor(name: str) -> Any:
    """The actor, None where it has ended."""
    import ray  # noqa: PLC0415

    with contextlib.suppress(ValueError):
        return ray.get_actor(name)
    return None


def kill_actor(name: str) -> None:
    """Asks Ray for its end; nothing where it has ended."""
    import ray  # noqa: PLC0415

    if (actor := find_actor(name)) is not None:
        ray.kill(actor, no_restart=True)


def end_actor(name: str) -> None:
    """Returns once it has ended. PipelineUnavailable where it does not."""
    kill_actor(name)
    deadline = time.monotonic() + _GONE_SECONDS
    while find_actor(name) is not None:
        if time.monotonic() > deadline:
            raise PipelineUnavailable("An old worker does not end.")
        time.sleep(0.05)
