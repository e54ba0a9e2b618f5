"""Each thing that can be wrong with a frame is refused with a sentence of its own."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest

from trireme_proto.errors import FrameRefused
from trireme_proto.limits import LIMITS
from trireme_proto.v1 import stage_pb2 as pb
from trireme_worker import frames
from trireme_worker.batch import Batch, Row, SamplingParams

EXPECTED = frames.Expected(epoch=3, step=5, stage=1, slots=8, hidden_size=4, vocabulary=100)


def good() -> pb.Frame:
    """Two rows: three tokens of slot 2, one of slot 7 that asks for a token."""
    sampling = pb.RowSampling(temperature=0.5, top_k=7, top_p=0.25, seed=2**64 - 1)
    rows = [pb.Row(slot=2, position=10, count=3), pb.Row(slot=7, position=0, count=1, sampling=sampling)]
    frame = pb.Frame(epoch=3, step=5, rows=rows, release=[0, 7], timings=[pb.StageTiming()])
    frames.write_activations(frame, np.arange(16, dtype=np.float32).reshape(4, 4))
    return frame


def of_first_stage() -> pb.Frame:
    frame = good()
    frame.ClearField("activations")
    frame.token_ids.extend([0, 99, 5, 5])
    return frame


def test_a_good_frame() -> None:
    batch = frames.read_batch(good(), EXPECTED)
    how = SamplingParams(0.5, 7, 0.25, 2**64 - 1)
    assert batch == Batch((Row(2, 10, 3), Row(7, 0, 1, how)))
    assert batch.tokens == 4
    assert batch.slots().tolist() == [2, 2, 2, 7]
    assert batch.positions().tolist() == [10, 11, 12, 0]
    assert batch.sampled() == [(3, batch.rows[1], 1)]
    values = frames.read_activations(good(), batch, EXPECTED)
    assert values.tolist() == np.arange(16).reshape(4, 4).tolist()
    assert values.dtype == np.float32
    assert values.flags.writeable
    ids = frames.read_token_ids(of_first_stage(), batch, EXPECTED)
    assert (ids.tolist(), ids.dtype) == ([0, 99, 5, 5], np.int32)


def test_a_frame_without_rows() -> None:
    frame = pb.Frame(epoch=3, step=5, release=[1], timings=[pb.StageTiming()])
    batch = frames.read_batch(frame, EXPECTED)
    assert (batch.rows, batch.tokens, batch.sampled()) == ((), 0, [])
    assert (batch.slots().shape, batch.positions().shape) == ((0,), (0,))
    assert frames.read_activations(frame, batch, EXPECTED).shape == (0, 4)
    assert frames.read_token_ids(frame, batch, EXPECTED).shape == (0,)


def test_what_is_written_can_be_read() -> None:
    special = np.array([[0.0, -0.0, 1e-45, 3.4e38]] * 4, np.float32)
    frame = good()
    frames.write_activations(frame, special)
    read = frames.read_activations(frame, frames.read_batch(frame, EXPECTED), EXPECTED)
    assert read.tobytes() == special.tobytes()


Change = Callable[[pb.Frame], object]

REFUSED: list[tuple[Change, str]] = [
    (lambda f: setattr(f, "epoch", 2), "epoch is 2, expected 3"),
    (lambda f: setattr(f, "epoch", 2**64 - 1), "epoch is"),
    (lambda f: setattr(f, "step", 4), "step is 4, expected 5"),
    (lambda f: setattr(f, "step", 6), "step is 6, expected 5"),
    (lambda f: f.timings.add(), "number of timings is 2, expected 1"),
    (lambda f: f.ClearField("timings"), "number of timings is 0, expected 1"),
    (lambda f: f.release.append(8), "a slot to release is out of range"),
    (lambda f: f.release.extend([0] * 7), "a slot to release is out of range"),
    (lambda f: setattr(f.rows[0], "drafts", 1), "a row of 3 tokens cannot have 1 drafts"),  # it samples nothing
    (lambda f: setattr(f.rows[1], "drafts", 1), "a row of 1 tokens cannot have 1 drafts"),
    (lambda f: f.rows[0].MergeFrom(pb.Row(drafts=3, sampling=f.rows[1].sampling)), "cannot have 3 drafts"),
    (
        lambda f: f.rows[0].MergeFrom(pb.Row(count=30, drafts=LIMITS.draft_tokens + 1, sampling=f.rows[1].sampling)),
        "cannot have 9 drafts",
    ),
    (lambda f: setattr(f.rows[0], "follows", 4), "a row of 3 tokens cannot follow what step 4 samples"),
    (lambda f: f.rows[1].MergeFrom(pb.Row(count=2, follows=4)), "a row of 2 tokens cannot follow"),
    (
        lambda f: f.rows[0].MergeFrom(pb.Row(count=1, follows=4)),
        "a row of 1 tokens cannot follow",
    ),  # samples nothing
    (lambda f: setattr(f.rows[1], "follows", 5), "cannot follow what step 5 samples"),
    (lambda f: setattr(f.rows[0], "slot", 8), "slot 8 is not below 8"),
    (lambda f: setattr(f.rows[0], "slot", 2**32 - 1), "slot 4294967295 is not below 8"),
    (lambda f: setattr(f.rows[0], "slot", 7), "two rows of one frame name the same slot"),
    (lambda f: setattr(f.rows[0], "count", 0), "a row of 0 tokens"),
    (lambda f: setattr(f.rows[0], "count", LIMITS.frame_tokens + 1), f"a row of {LIMITS.frame_tokens + 1} tokens"),
    (lambda f: setattr(f.rows[0], "count", 2**32 - 1), "a row of 4294967295 tokens"),
    (lambda f: setattr(f.rows[0], "position", LIMITS.request_tokens + 1), "is out of range"),
    (lambda f: setattr(f.rows[0], "position", 2**32 - 1), "is out of range"),
    (lambda f: setattr(f.rows[0], "count", LIMITS.frame_tokens), f"{LIMITS.frame_tokens + 1} tokens, at most"),
    (lambda f: f.rows.extend([f.rows[0]] * LIMITS.frame_rows), f"{LIMITS.frame_rows + 2} rows, at most"),
    *[
        (lambda f, k=key, v=value: setattr(f.rows[1].sampling, k, v), "sampling parameters are out of range")
        for key, values in {
            "temperature": (-0.001, 100.01, math.nan, math.inf, -math.inf),
            "top_p": (0.0, -0.5, 1.01, math.nan, math.inf),
            "top_k": (101, 2**32 - 1),
        }.items()
        for value in values
    ],
]


@pytest.mark.parametrize(("change", "why"), REFUSED)
def test_frames_that_are_refused(change: Change, why: str) -> None:
    frame = good()
    change(frame)
    with pytest.raises(FrameRefused, match=why):
        frames.read_batch(frame, EXPECTED)


@pytest.mark.parametrize(
    "change",
    [
        lambda f: setattr(f.rows[1].sampling, "temperature", 0.0),
        lambda f: setattr(f.rows[1].sampling, "temperature", 100.0),
        lambda f: setattr(f.rows[1].sampling, "top_p", 1.0),
        lambda f: setattr(f.rows[1].sampling, "top_p", 1e-6),
        lambda f: setattr(f.rows[1].sampling, "top_k", 0),
        lambda f: setattr(f.rows[1].sampling, "top_k", 100),
        lambda f: setattr(f.rows[0], "position", LIMITS.request_tokens),
        lambda f: setattr(f.rows[0], "count", LIMITS.frame_tokens - 1),
        lambda f: setattr(f.rows[0], "slot", 0),
        lambda f: f.rows[0].MergeFrom(pb.Row(drafts=2, sampling=f.rows[1].sampling)),
        lambda f: setattr(f.rows[1], "follows", 4),
        lambda f: f.release.extend([1] * 6),
    ],
)
def test_the_edges_that_are_taken(change: Change) -> None:
    frame = good()
    change(frame)
    assert len(frames.read_batch(frame, EXPECTED).rows) == 2


def test_as_many_rows_as_allowed() -> None:
    rows = [pb.Row(slot=i, position=0, count=2) for i in range(LIMITS.frame_rows)]
    frame = pb.Frame(epoch=3, step=5, rows=rows, timings=[pb.StageTiming()])
    assert (
        frames.read_batch(frame, dataclasses.replace(EXPECTED, slots=LIMITS.frame_rows)).tokens == LIMITS.frame_tokens
    )


@pytest.mark.parametrize(("slot", "from_slot"), [(8, 1), (1, 8), (3, 3)])
def test_shares_that_are_refused(slot: int, from_slot: int) -> None:
    frame = good()
    frame.share.add(slot=slot, from_slot=from_slot, pages=1)
    with pytest.raises(FrameRefused, match=f"slot {slot} cannot share pages of slot {from_slot}"):
        frames.read_shares(frame, EXPECTED)


def test_too_many_shares() -> None:
    frame = good()
    frame.share.extend([pb.Share(slot=1, from_slot=2, pages=1)] * 9)
    with pytest.raises(FrameRefused, match="9 shares, at most 8"):
        frames.read_batch(frame, EXPECTED)


def _flipped(data: bytes) -> bytes:
    return data[:5] + bytes([data[5] ^ 0x10]) + data[6:]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda f: f.token_ids.append(1), "only the first stage takes token ids"),
        (lambda f: setattr(f, "activations", f.activations[:-1]), "bytes of activations is 63, expected 64"),
        (lambda f: setattr(f, "activations", f.activations + b"\0" * 4), "bytes of activations is 68, expected 64"),
        (lambda f: setattr(f, "activations", b""), "bytes of activations is 0, expected 64"),
        (lambda f: setattr(f, "activations", _flipped(f.activations)), "checksum"),
        (lambda f: setattr(f, "checksum", f.checksum ^ 1), "checksum"),
        *[
            (lambda f, v=value: frames.write_activations(f, np.full((4, 4), v, np.float32)), "not finite")
            for value in (np.nan, np.inf, -np.inf)
        ],
        (lambda f: frames.write_activations(f, np.array([[0.0] * 15 + [np.nan]], np.float32)), "not finite"),
    ],
)
def test_activations_that_are_refused(change: Change, why: str) -> None:
    frame = good()
    change(frame)
    with pytest.raises(FrameRefused, match=why):
        frames.read_activations(frame, frames.read_batch(frame, EXPECTED), EXPECTED)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda f: setattr(f, "activations", b"\0" * 64), "takes token ids, not activations"),
        (lambda f: f.token_ids.append(1), "number of token ids is 5, expected 4"),
        (lambda f: f.token_ids.pop(), "number of token ids is 3, expected 4"),
        (lambda f: f.token_ids.__setitem__(0, 100), "token id 100 is not below the vocabulary of 100"),
        (lambda f: f.token_ids.__setitem__(3, 2**32 - 1), "token id 4294967295 is not below"),
    ],
)
def test_token_ids_that_are_refused(change: Change, why: str) -> None:
    frame = of_first_stage()
    change(frame)
    with pytest.raises(FrameRefused, match=why):
        frames.read_token_ids(frame, frames.read_batch(frame, EXPECTED), EXPECTED)


KEY = bytes(32)


@pytest.mark.parametrize(
    ("restore", "message"),
    [
        (pb.Restore(slot=8, fetch=1, pages=1), "slot 8 is not below 8"),
        (pb.Restore(slot=1, fetch=1, pages=0), "0 pages from page 0 on are out of range"),
        (pb.Restore(slot=1, fetch=1, first_page=65536, pages=1), "1 pages from page 65536 on are out of range"),
        (pb.Restore(slot=1, fetch=1, pages=2**32 - 1), "pages from page 0 on are out of range"),
    ],
)
def test_restores_that_are_refused(restore: pb.Restore, message: str) -> None:
    with pytest.raises(FrameRefused, match=message):
        frames.read_restores(pb.Frame(restore=[restore]), EXPECTED)


def test_a_fetch_is_restored_once() -> None:
    frame = pb.Frame(restore=[pb.Restore(slot=1, fetch=7, pages=1), pb.Restore(slot=2, fetch=7, pages=1)])
    with pytest.raises(FrameRefused, match="two restores name the same fetch"):
        frames.read_restores(frame, EXPECTED)


@pytest.mark.parametrize(
    ("save", "message"),
    [
        (pb.Save(slot=8, keys=[KEY]), "slot 8 is not below 8"),
        (pb.Save(slot=1, keys=[]), "0 pages from page 0 on are out of range"),
        (pb.Save(slot=1, first_page=65535, keys=[KEY, KEY]), "2 pages from page 65535 on are out of range"),
        (pb.Save(slot=1, keys=[KEY, KEY[1:]]), "the key of a page is not 32 bytes long"),
        (pb.Save(slot=1, keys=[b""]), "the key of a page is not 32 bytes long"),
    ],
)
def test_saves_that_are_refused(save: pb.Save, message: str) -> None:
    with pytest.raises(FrameRefused, match=message):
        frames.read_saves(pb.Frame(save=[save]), EXPECTED)


def test_too_many_saves_and_keys() -> None:
    with pytest.raises(FrameRefused, match="9 saves, at most 8"):
        frames.read_saves(pb.Frame(save=[pb.Save(slot=1, keys=[KEY])] * 9), EXPECTED)
    with pytest.raises(FrameRefused, match="65537 pages, at most 65536"):
        frames.read_keys([KEY] * 65537)
