"""CVE-2026-25874: a pickle inside a gRPC bytes field. Every bytes field of our messages is listed here from the
descriptors, with who checks it; a pickle bomb in each gives a typed error, or plain bytes, and no side effect.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from tests.security.bomb import bomb
from tests.support.frames import stepper

import trireme_proto.v1
from trireme_proto import archive
from trireme_proto.errors import ArchiveDamaged, FrameRefused
from trireme_proto.v1 import stage_pb2 as pb
from trireme_worker.frames import read_keys

LAYERS = {0: range(1), 1: range(1, 2)}


def activations(data: bytes) -> None:
    fed = stepper(LAYERS[1], stage=1)
    row = pb.Row(slot=0, position=0, count=1)
    frame = pb.Frame(epoch=1, step=1, rows=[row], timings=[pb.StageTiming()], activations=data)
    try:
        fed.step(frame, 0)
    finally:
        fed.model.close()


def saved_keys(data: bytes) -> None:
    fed = stepper(LAYERS[0], stage=0)
    frame = pb.Frame(epoch=1, step=1, rows=[pb.Row(slot=0, position=0, count=1)], token_ids=[5])
    frame.save.append(pb.Save(slot=0, first_page=0, keys=[data]))
    try:
        fed.step(frame, 0)
    finally:
        fed.model.close()


def page_keys(data: bytes) -> None:
    read_keys([data])


def archived(data: bytes) -> None:
    archive.from_bytes(data)


def passed_on(_data: bytes) -> None:
    """What Export answers: bytes that a client hands to its caller as they are, and nobody reads."""
    raise ArchiveDamaged("not read at all")


FIELDS: dict[str, tuple[str, Callable[[bytes], None], type[Exception]]] = {
    "trireme.v1.Frame.activations": ("frames.py: exact length by shape, CRC-32", activations, FrameRefused),
    "trireme.v1.Save.keys": ("frames.py: 32 bytes each, hashed", saved_keys, FrameRefused),
    "trireme.v1.FindPagesRequest.keys": ("frames.py: read_keys, 32 bytes each", page_keys, FrameRefused),
    "trireme.v1.FetchPagesRequest.keys": ("frames.py: read_keys, 32 bytes each", page_keys, FrameRefused),
    "trireme.v1.ImportSessionRequest.archive": ("archive.py: magic, SHA-256, fields", archived, ArchiveDamaged),
    "trireme.v1.ExportSessionResponse.archive": ("nobody reads it here", passed_on, ArchiveDamaged),
}
"""Every bytes field: who checks it and how, that check, and what it raises."""


def messages(found: Descriptor) -> Iterator[Descriptor]:
    yield found
    for inner in found.nested_types:
        yield from messages(inner)


def bytes_fields() -> set[str]:
    """Of all messages of all our .proto files, whatever they are."""
    names = [each.name for each in pkgutil.iter_modules(trireme_proto.v1.__path__) if each.name.endswith("_pb2")]
    assert len(names) >= 4
    found: set[str] = set()
    for name in names:
        module = importlib.import_module(f"trireme_proto.v1.{name}")
        for message in module.DESCRIPTOR.message_types_by_name.values():
            for each in messages(message):
                found |= {f.full_name for f in each.fields if f.type == FieldDescriptor.TYPE_BYTES}
                assert all(
                    f.message_type is None or f.message_type.full_name != "google.protobuf.Any" for f in each.fields
                )
    return found


def test_no_bytes_field_is_forgotten() -> None:
    assert bytes_fields() == set(FIELDS), "list a new bytes field here, with its check"


@pytest.mark.parametrize("field", FIELDS)
def test_a_pickle_bomb_in_each_does_nothing(field: str, tmp_path: Path) -> None:
    mark = tmp_path / "went-off"
    _, check, refusal = FIELDS[field]
    with pytest.raises(refusal):
        check(bomb(mark))
    assert not mark.exists()
