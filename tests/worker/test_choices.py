"""A row that follows what the last stage sampled waits for just that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from trireme_proto.errors import FrameRefused, PipelineUnavailable
from trireme_proto.v1 import stage_pb2 as pb
from trireme_worker.choices import Choices


def _frame(follows: int, *, step: int = 9, slot: int = 2, position: int = 20) -> pb.Frame:
    rows = [pb.Row(slot=0, position=0, count=2), pb.Row(slot=slot, position=position, count=1, follows=follows)]
    return pb.Frame(step=step, rows=rows, token_ids=[5, 6, 0])


async def _told(*steps: tuple[int, int, int]) -> Choices:
    """After hearing (step, position, token) for slot 2."""
    choices = Choices()

    async def results() -> AsyncIterator[pb.StepResult]:
        for step, position, token in steps:
            yield pb.StepResult(step=step, tokens=[pb.SampledToken(slot=2, position=position, token_id=token)])

    with pytest.raises(PipelineUnavailable):
        await choices.listen(results())
    return choices


async def test_the_token_of_that_step() -> None:
    frame = _frame(8)
    await (await _told((7, 20, 70), (8, 20, 80))).fill(frame)
    assert list(frame.token_ids) == [5, 6, 80]


async def test_an_older_token_of_the_same_position_is_not_it() -> None:
    """As when the slot was somebody else's."""
    choices, frame = await _told((7, 20, 70)), _frame(8)
    filling = asyncio.ensure_future(choices.fill(frame))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not filling.done()
    filling.cancel()


@pytest.mark.parametrize(("slot", "position"), [(1, 20), (2, 19)])
async def test_what_was_not_sampled_is_refused(slot: int, position: int) -> None:
    with pytest.raises(FrameRefused, match="step 8 sampled nothing for position"):
        await (await _told((8, 20, 80))).fill(_frame(8, slot=slot, position=position))


@pytest.mark.parametrize("follows", [9, 10, 2**64 - 1])
async def test_a_step_that_is_not_earlier_is_left_to_the_check_of_frames(follows: int) -> None:
    frame = _frame(follows)
    await Choices().fill(frame)
    assert list(frame.token_ids) == [5, 6, 0]
