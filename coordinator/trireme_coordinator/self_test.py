"""One token through the whole pipeline before the server says that it is ready."""

from __future__ import annotations

import asyncio

from trireme_coordinator.engine import Engine
from trireme_coordinator.scheduler import Finish, SamplingParams, Sequence
from trireme_coordinator.telemetry import StepReport
from trireme_proto.errors import StartupError, TriremeError

_SECONDS = 60.0


class _Waiter:
    """A listener that only waits for the end."""

    def __init__(self) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def admitted(self) -> None:
        pass

    def timed(self, *, prefill: bool, tokens: int, step: StepReport) -> None:
        pass

    def token(self, token_id: int) -> Finish | None:  # noqa: ARG002
        return None

    def finished(self, reason: Finish) -> None:  # noqa: ARG002
        self.done.set_result(None)

    def failed(self, error: TriremeError) -> None:
        self.done.set_exception(StartupError(f"The stages started, but computed no token: {error.message}"))


async def one_token(engine: Engine) -> None:
    """Returns when the engine has generated a token; StartupError when it does not within a minute."""
    waiter = _Waiter()
    sequence = Sequence([0], SamplingParams(0.0, 0, 1.0, 0), max_tokens=1)
    engine.submit(sequence, waiter)
    try:
        await asyncio.wait_for(waiter.done, _SECONDS)
    except TimeoutError:
        raise StartupError("The stages started, but no token came through them.") from None
    finally:
        engine.drop(sequence)
