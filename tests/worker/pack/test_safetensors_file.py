"""The container: what a header may say, and what we write."""

import io
import json

import numpy as np
import pytest
import safetensors
from safetensors.numpy import load_file

from trireme_worker.pack.jsontext import Malformed
from trireme_worker.pack.safetensors_file import read_header, write_file
from trireme_worker.pack.tensors import TensorSpec


def parsed(header, body=b"", *, length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    data = (len(text) if length is None else length).to_bytes(8, "little") + text + body
    return read_header(io.BytesIO(data), len(data))


def tensor(begin, end, shape=(4,), dtype="U8"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def test_offsets_count_from_the_start_of_the_file():
    header = {"__metadata__": {"format": "pt"}, "b": tensor(4, 8), "a": tensor(0, 4)}
    found = parsed(header, bytes(8))
    start = 8 + len(json.dumps(header))
    assert (found["a"].begin, found["b"].begin, found["b"].end) == (start, start + 4, start + 8)
    assert set(found) == {"a", "b"}


@pytest.mark.parametrize(
    ("header", "body", "match"),
    [
        ({"a": tensor(0, 4)}, bytes(3), "end at"),
        ({"a": tensor(0, 4)}, bytes(5), "end at"),
        ({"a": tensor(0, 4), "b": tensor(5, 9)}, bytes(9), "begins at"),
        ({"a": tensor(0, 4), "b": tensor(3, 7)}, bytes(7), "begins at"),
        ({"a": tensor(0, 4), "b": tensor(0, 4)}, bytes(4), "begins at"),
        ({"a": tensor(4, 0)}, bytes(4), "do not fit"),
        ({"a": tensor(-4, 0)}, bytes(4), "data_offsets"),
        ({"a": tensor(0, 4, (2,))}, bytes(4), "do not fit"),
        ({"a": tensor(0, 0, (2**32, 2**32))}, b"", "do not fit"),
        ({"a": tensor(0, 2**62, (2**62,))}, b"", "integers from 0"),
        ({"a": tensor(0, 4, (-2, -2))}, bytes(4), "integers from 0"),
        ({"a": tensor(0, 4, [1] * 9)}, bytes(4), "list of at most"),
        ({"a": tensor(0, 4, (1,), "Q9")}, bytes(4), "dtype"),
        ({"a": tensor(0, 4) | {"data_offsets": [0]}}, bytes(4), "do not fit"),
        ({"a": tensor(0, 4) | {"more": 1}}, bytes(4), "unknown field"),
        ({"a": []}, b"", "not a JSON object"),
        ({"a": tensor(0, True, (1,))}, bytes(1), "integers"),
        (b"[]", b"", "not a JSON object"),
        (b'{"a":1,"a":1}', b"", "a key twice"),
        (b"[" * 50_000, b"", "nested"),
    ],
)
def test_headers_that_lie(header, body, match):
    with pytest.raises(Malformed, match=match):
        parsed(header, body)


@pytest.mark.parametrize("length", [0, 3, 2**24 + 1, 2**63, 2**64 - 1])
def test_lengths_that_lie(length):
    with pytest.raises(Malformed):
        parsed({"a": tensor(0, 4)}, bytes(4), length=length)


def test_what_we_write_others_can_read(tmp_path):
    specs = {"m": TensorSpec("U8", (256,)), "x": TensorSpec("F32", (3, 2)), "h": TensorSpec("BF16", (5,))}
    m, x = np.arange(256, dtype=np.uint8), np.arange(6, dtype=np.float32).reshape(3, 2)
    path = tmp_path / "file.safetensors"
    write_file(path, specs, {"m": [m[:100], m[100:]], "x": [x], "h": [np.zeros(5, np.uint16)]})
    entries = dict(safetensors.deserialize(path.read_bytes()))
    assert bytes(entries["m"]["data"]) == m.tobytes()
    assert bytes(entries["x"]["data"]) == x.tobytes()
    assert entries["x"]["shape"] == [3, 2]
    with path.open("rb") as file:
        placed = read_header(file, path.stat().st_size)
    assert placed["m"].begin % 64 == 0
    del specs["h"]
    write_file(tmp_path / "plain.safetensors", specs, {"m": [m], "x": [x]})
    assert np.array_equal(load_file(tmp_path / "plain.safetensors")["x"], x)


def test_writing_other_bytes_than_promised_fails(tmp_path):
    with pytest.raises(ValueError, match="x has 8 bytes, its shape says 12"):
        write_file(tmp_path / "f", {"x": TensorSpec("F32", (3,))}, {"x": [np.zeros(2, np.float32)]})
