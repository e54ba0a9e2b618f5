"""CVE-2025-62164, CVE-2025-32434, CVE-2024-42477 and their kin: a stage trusts nothing of a frame.

Thousands of damaged frames, at the level of bytes and of fields: each is refused with FrameRefused (or does not parse),
or is a valid frame and computed. No kernel runs for a refused one, and the books add up after each.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from tests.support.frames import SLOTS, activation_frame, row, stepper, token_frame

import trireme_kernels
from trireme_proto.errors import FrameRefused
from trireme_proto.v1 import stage_pb2 as pb
from trireme_worker.stepper import Stepper

FRAMES = 4000
"""For each of the three kinds of stage."""
NUMBERS = [0, 1, 2, 15, 16, 17, 63, 255, 256, 257, 4095, 4096, 8192, 2**31 - 1, 2**31, 2**32 - 1]
REALS = [0.0, -0.0, 1.0, -1.0, 1e-45, 100.0, 100.1, 3e38, math.inf, -math.inf, math.nan]


@pytest.fixture
def kernel_calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the kernels that were called."""
    calls: list[str] = []

    def counted(name: str, kernel: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            calls.append(name)
            return kernel(*args, **kwargs)

        return call

    program = trireme_kernels.LayerProgram
    monkeypatch.setattr(program, "run", counted("LayerProgram.run", program.run))
    for name in trireme_kernels.__all__:
        kernel = getattr(trireme_kernels, name)
        if callable(kernel) and not isinstance(kernel, type):
            monkeypatch.setattr(trireme_kernels, name, counted(name, kernel))
    return calls


def next_frame(stage: Stepper, rng: random.Random) -> pb.Frame:
    """A frame that the stage would accept."""
    lengths, rows = stage.model.kv.lengths, []
    release = [slot for slot in range(SLOTS) if lengths[slot] > 60]
    for slot in rng.sample(range(SLOTS), rng.randint(0, 3)):
        sampling = pb.RowSampling(temperature=0.5, top_k=3, top_p=0.9, seed=rng.getrandbits(64))
        held = 0 if slot in release else int(lengths[slot])
        rows.append(row(slot, held, rng.randint(1, 4), sampling if rng.random() < 0.5 else None))
    step = stage.progress.steps + 1
    if stage.model.first:
        return token_frame(step, rows, [rng.randrange(4096) for _ in range(sum(r.count for r in rows))], release)
    frame = activation_frame(step, rows, timings=stage.progress.stage)
    frame.release.extend(release)
    return frame


def damaged_bytes(data: bytearray, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    match rng.randrange(5):
        case 0:
            return bytes(data[:at])
        case 1:
            return bytes(data[:at] + rng.randbytes(rng.randint(1, 9)) + data[at:])
        case 2:
            return bytes(data[:at] + data[at + rng.randint(1, 40) :])
        case 3:
            return bytes(data + data[at:])
        case _:
            for _ in range(rng.randint(1, 6)):
                data[rng.randrange(min(len(data), 200))] ^= 1 << rng.randrange(8)
            return bytes(data)


def damaged_field(frame: pb.Frame, rng: random.Random) -> bytes:
    """One field, anywhere in the message, with another value or another number of elements."""
    messages: list[Any] = [frame, *frame.rows, *(r.sampling for r in frame.rows if r.HasField("sampling"))]
    message = rng.choice(messages)
    field = rng.choice(message.DESCRIPTOR.fields)
    value = getattr(message, field.name)
    if field.is_repeated and field.message_type:
        if value and rng.random() < 0.5:
            del value[rng.randrange(len(value)) :]
        else:
            value.add()
    elif field.is_repeated:
        value.extend(rng.choices(NUMBERS, k=rng.randint(1, 3)))
    elif field.message_type:
        value.SetInParent()
    elif field.type == field.TYPE_BYTES:
        setattr(message, field.name, rng.randbytes(rng.choice([0, 1, 3, 4, 1024, 4096])))
    elif field.type == field.TYPE_FLOAT:
        setattr(message, field.name, rng.choice(REALS))
    else:
        setattr(message, field.name, rng.choice(NUMBERS))
    return frame.SerializeToString()


def damaged(stage: Stepper, rng: random.Random) -> Iterator[bytes]:
    while True:
        frame = next_frame(stage, rng)
        if rng.random() < 0.5:
            yield damaged_field(frame, rng)
        else:
            yield damaged_bytes(bytearray(frame.SerializeToString()), rng)


@pytest.mark.parametrize(("layers", "stage"), [(range(1), 0), (range(2, 3), 1), (range(5, 6), 2)], ids=str)
def test_damaged_frames(layers: range, stage: int, kernel_calls: list[str]) -> None:
    rng, fed = random.Random(20 + stage), stepper(layers, stage=stage)
    outcomes = {"unreadable": 0, "refused": 0, "computed": 0}
    for data, _ in zip(damaged(fed, rng), range(FRAMES), strict=False):
        outcome = outcome_of(fed, data, kernel_calls)
        outcomes[outcome] += 1
        kv = fed.model.kv
        assert kv.check_integrity() == ""
        if outcome != "computed" and rng.random() < 0.2:
            fed.step(next_frame(fed, rng), 0)  # a good one is still taken
    fed.model.close()
    assert min(outcomes.values()) > FRAMES // 50, outcomes


def outcome_of(stage: Stepper, data: bytes, kernel_calls: list[str]) -> str:
    try:
        frame = pb.Frame.FromString(data)
    except DecodeError:
        return "unreadable"
    steps = stage.progress.steps
    kernel_calls.clear()
    refused = _refusal(stage, frame)
    assert len(refused) < 200
    assert bool(kernel_calls) == bool(frame.rows and not refused)
    assert stage.progress.steps == steps + (not refused)
    return "refused" if refused else "computed"


def _refusal(stage: Stepper, frame: pb.Frame) -> str:
    try:
        stage.step(frame, arrived_ns=0)
    except FrameRefused as error:
        return error.message
    return ""


@pytest.mark.parametrize(("layers", "stage"), [(range(1), 0), (range(2, 3), 1), (range(5, 6), 2)], ids=str)
@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([row(0, 0, 8), row(1, 5, 8)], "slot 1 holds 0 tokens, the row starts at 5"),
        ([row(0, 0, 8), row(1, 0, 257)], "slot 1 would hold 257 tokens, the context is 256"),
        ([row(0, 0, 256), row(1, 0, 256), row(2, 0, 256)], "slot 2 needs 16 KV pages, 8 are free"),
    ],
)
def test_what_only_the_books_know_is_refused_before_any_kernel_too(
    layers: range, stage: int, rows: list[pb.Row], why: str, kernel_calls: list[str]
) -> None:
    fed, tokens = stepper(layers, stage=stage), sum(r.count for r in rows)
    frame = activation_frame(1, rows, timings=stage) if stage else token_frame(1, rows, [7] * tokens)
    kernel_calls.clear()
    with pytest.raises(FrameRefused, match=why):
        fed.step(frame, arrived_ns=0)
    assert kernel_calls == []
    fed.model.close()


@pytest.mark.parametrize("stage", [0, 1])
def test_a_payload_without_rows_is_not_passed_on(stage: int) -> None:
    fed = stepper(range(stage, stage + 1), stage=stage)
    frame = token_frame(1, [], [1, 2, 3])
    frame.timings.extend([pb.StageTiming()] * stage)
    with pytest.raises(FrameRefused):
        fed.step(frame, arrived_ns=0)
    fed.model.close()
