"""Frames to micro-batches: the one place where what arrives from the wire is checked, before any kernel runs.

Trusts nothing of a frame: not its epoch, step, slots, counts, token ids, sizes or bytes. What is wrong is FrameRefused.
Position against length, pages and context are checked by the KV cache, which knows them.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trireme_kernels import PAGE_TOKENS
from trireme_proto.errors import FrameRefused
from trireme_proto.limits import LIMITS
from trireme_proto.v1 import stage_pb2 as pb
from trireme_worker.batch import Batch, Restore, Row, SamplingParams, Save, Share
from trireme_worker.page_value import KEY_BYTES

WIRE_FLOAT = np.dtype("<f4")


@dataclass(frozen=True, slots=True)
class Expected:
    """What a stage's frames must look like."""

    epoch: int
    step: int
    stage: int
    """Position in the pipeline: as many stages have passed the frame on."""
    slots: int
    hidden_size: int
    vocabulary: int


def read_batch(frame: pb.Frame, expected: Expected) -> Batch:
    """The micro-batch of a frame, checked against what the stage expects."""
    _same("epoch", frame.epoch, expected.epoch)
    _same("step", frame.step, expected.step)
    _same("number of timings", len(frame.timings), expected.stage)
    if len(frame.release) > expected.slots or any(slot >= expected.slots for slot in frame.release):
        raise FrameRefused("a slot to release is out of range")
    if len(frame.share) > expected.slots:
        raise FrameRefused(f"{len(frame.share)} shares, at most {expected.slots} are allowed")
    if len(frame.rows) > LIMITS.frame_rows:
        raise FrameRefused(f"{len(frame.rows)} rows, at most {LIMITS.frame_rows} are allowed")
    batch = Batch(tuple(_row(row, expected) for row in frame.rows))
    if len({row.slot for row in batch.rows}) != len(batch.rows):
        raise FrameRefused("two rows of one frame name the same slot")
    if batch.tokens > LIMITS.frame_tokens:
        raise FrameRefused(f"{batch.tokens} tokens, at most {LIMITS.frame_tokens} are allowed")
    return batch


def read_shares(frame: pb.Frame, expected: Expected) -> list[Share]:
    """Which pages are to be shared, in order."""
    for share in frame.share:
        if max(share.slot, share.from_slot) >= expected.slots or share.slot == share.from_slot:
            raise FrameRefused(f"slot {share.slot} cannot share pages of slot {share.from_slot}")
    return [Share(share.slot, share.from_slot, share.pages) for share in frame.share]


def read_restores(frame: pb.Frame, expected: Expected) -> list[Restore]:
    """Which fetched pages go where, in order."""
    for restore in frame.restore:
        _page_range(restore.slot, restore.first_page, restore.pages, expected)
    if len({restore.fetch for restore in frame.restore}) != len(frame.restore):
        raise FrameRefused("two restores name the same fetch")
    return [Restore(r.slot, r.fetch, r.first_page, r.pages) for r in frame.restore]


def read_saves(frame: pb.Frame, expected: Expected) -> list[Save]:
    """Which pages go to the page store."""
    if len(frame.save) > expected.slots:
        raise FrameRefused(f"{len(frame.save)} saves, at most {expected.slots} are allowed")
    for save in frame.save:
        _page_range(save.slot, save.first_page, len(save.keys), expected)
    return [Save(s.slot, s.first_page, read_keys(s.keys)) for s in frame.save]


def read_keys(keys: Sequence[bytes]) -> tuple[bytes, ...]:
    """Keys of pages, 32 bytes each."""
    if any(len(key) != KEY_BYTES for key in keys):
        raise FrameRefused(f"the key of a page is not {KEY_BYTES} bytes long")
    if len(keys) > LIMITS.request_tokens // PAGE_TOKENS:
        raise FrameRefused(f"{len(keys)} pages, at most {LIMITS.request_tokens // PAGE_TOKENS} are allowed")
    return tuple(keys)


def read_token_ids(frame: pb.Frame, batch: Batch, expected: Expected) -> NDArray[np.int32]:
    """First stage: the token ids, int32 [T]."""
    if frame.activations:
        raise FrameRefused("the first stage takes token ids, not activations")
    _same("number of token ids", len(frame.token_ids), batch.tokens)
    ids = np.array(frame.token_ids, np.int64)
    if ids.size and ids.max() >= expected.vocabulary:
        raise FrameRefused(f"token id {ids.max()} is not below the vocabulary of {expected.vocabulary}")
    return ids.astype(np.int32)


def read_activations(frame: pb.Frame, batch: Batch, expected: Expected) -> NDArray[np.float32]:
    """Other stages: the activations, float32 [T, hidden_size], finite and writable."""
    if frame.token_ids:
        raise FrameRefused("only the first stage takes token ids")
    size = batch.tokens * expected.hidden_size * WIRE_FLOAT.itemsize
    _same("bytes of activations", len(frame.activations), size)
    if zlib.crc32(frame.activations) != frame.checksum:
        raise FrameRefused("the checksum of the activations does not match")
    values = np.frombuffer(frame.activations, WIRE_FLOAT).reshape(batch.tokens, expected.hidden_size)
    if not np.isfinite(values).all():
        raise FrameRefused("activations are not finite")
    return values.astype(np.float32)  # a writable copy, in the machine's byte order


def write_activations(frame: pb.Frame, hidden: NDArray[np.float32]) -> None:
    """Puts activations, float32 [T, hidden_size], and their checksum into a frame."""
    frame.activations = hidden.astype(WIRE_FLOAT, copy=False).tobytes()
    frame.checksum = zlib.crc32(frame.activations)


def _row(row: pb.Row, expected: Expected) -> Row:
    if row.slot >= expected.slots:
        raise FrameRefused(f"slot {row.slot} is not below {expected.slots}")
    if not 1 <= row.count <= LIMITS.frame_tokens or row.position > LIMITS.request_tokens:
        raise FrameRefused(f"a row of {row.count} tokens at position {row.position} is out of range")
    if row.drafts > min(LIMITS.draft_tokens, row.count - 1) or (row.drafts and not row.HasField("sampling")):
        raise FrameRefused(f"a row of {row.count} tokens cannot have {row.drafts} drafts")
    if row.follows and (row.count != 1 or not row.HasField("sampling") or row.follows >= expected.step):
        raise FrameRefused(f"a row of {row.count} tokens cannot follow what step {row.follows} samples")
    return Row(row.slot, row.position, row.count, _sampling(row, expected), row.drafts, row.follows)


def _page_range(slot: int, first_page: int, pages: int, expected: Expected) -> None:
    if slot >= expected.slots:
        raise FrameRefused(f"slot {slot} is not below {expected.slots}")
    if not 1 <= pages <= LIMITS.request_tokens // PAGE_TOKENS - first_page:
        raise FrameRefused(f"{pages} pages from page {first_page} on are out of range")


def _sampling(row: pb.Row, expected: Expected) -> SamplingParams | None:
    if not row.HasField("sampling"):
        return None
    s = row.sampling
    if not (0 <= s.temperature <= LIMITS.temperature and 0 < s.top_p <= 1 and s.top_k <= expected.vocabulary):
        raise FrameRefused("sampling parameters are out of range")
    return SamplingParams(s.temperature, s.top_k, s.top_p, s.seed)


def _same(what: str, found: int, expected: int) -> None:
    if found != expected:
        raise FrameRefused(f"{what} is {found}, expected {expected}")
