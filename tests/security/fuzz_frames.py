"""Feeds a stage damaged frames: `python -O -m tests.security.fuzz_frames FRAMES SEED`. No asserts: they would not run.

Each frame is unreadable, refused with a FrameRefused, or computed; anything else ends the process with an error. The
books are looked at after each, and good frames between them must still be taken.
"""

from __future__ import annotations

import random
import sys

from google.protobuf.message import DecodeError
from tests.support.frames import stepper
from tests.worker.test_frame_fuzz import damaged, next_frame

from trireme_proto.errors import FrameRefused
from trireme_proto.v1 import stage_pb2 as pb
from trireme_worker.stepper import Stepper

STAGES = ((range(1), 0), (range(2, 3), 1), (range(5, 6), 2))


def outcome(stage: Stepper, data: bytes) -> str:
    try:
        frame = pb.Frame.FromString(data)
    except DecodeError:
        return "unreadable"
    try:
        stage.step(frame, arrived_ns=0)
    except FrameRefused:
        return "refused"
    return "computed"


def main() -> None:
    frames, seed = int(sys.argv[1]), int(sys.argv[2])
    counts = {"unreadable": 0, "refused": 0, "computed": 0}
    for layers, number in STAGES:
        rng, stage = random.Random(seed + number), stepper(layers, stage=number)
        for data, _ in zip(damaged(stage, rng), range(frames // len(STAGES)), strict=False):
            counts[outcome(stage, data)] += 1
            if problem := stage.model.kv.check_integrity():
                sys.exit(f"stage {number}: {problem}")
            if rng.random() < 0.05:
                stage.step(next_frame(stage, rng), 0)
        stage.model.close()
    sys.stdout.write(" ".join(f"{name}={count}" for name, count in counts.items()))


if __name__ == "__main__":
    main()
