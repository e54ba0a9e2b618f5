"""Thousands of damaged packs and checkpoints: a typed error, or a pack that computes within its own memory.

Seeded, so that a failure repeats. Files keep their lengths' and hashes' checks out of the
way where the parser behind them is the target.
"""

import hashlib
import json
import random
import shutil

import pytest

from trireme_proto.errors import CheckpointUnsupported, PackCorrupt, PackNotFound, StartupError
from trireme_worker.convert import convert
from trireme_worker.pack import Pack
from trireme_worker.pack.jsontext import Malformed, parse_object
from trireme_worker.pack.manifest import Manifest

LAYER = "layers/00000.safetensors"
VALUES = [
    None,
    True,
    -1,
    0,
    1,
    2**31,
    2**63,
    2**70,
    -(2**70),
    0.5,
    1e308,
    "",
    "x",
    "../x",
    "\0",
    [],
    [[]],
    {},
    [1] * 20,
]


def damaged(data: bytes, draw: random.Random) -> bytes:
    """A few bytes flipped, removed, doubled or cut off."""
    changed = bytearray(data)
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(changed) or 1)
        match draw.randrange(5):
            case 0:
                changed[at : at + 1] = bytes([draw.randrange(256)])
            case 1:
                del changed[at : at + draw.randint(1, 40)]
            case 2:
                changed[at:at] = changed[at : at + draw.randint(1, 40)]
            case 3:
                del changed[at:]
            case 4:
                changed[at : at + 1] = draw.choice(b'0123456789-"{}[],:eE.\\').to_bytes(1, "little")
    return bytes(changed)


def disturb(value, draw: random.Random):
    """JSON with one value somewhere replaced, removed or renamed."""
    if not isinstance(value, dict | list) or not value or draw.random() < 0.2:
        return draw.choice(VALUES)
    key = draw.choice(list(value)) if isinstance(value, dict) else draw.randrange(len(value))
    how = draw.random()
    if how < 0.1:
        value.pop(key)
    elif how < 0.2 and isinstance(value, dict):
        value[draw.choice(["", "x", "../../x", "/x", "a\0b", "layers/00009.safetensors"])] = value.pop(key)
    else:
        value[key] = disturb(value[key], draw)
    return value


def refusal(error: type[Exception], call, *arguments) -> str | None:
    """The message of the only error that `call` may raise, or None where it raises none."""
    try:
        call(*arguments)
    except error as fault:
        return str(fault)
    return None


def test_manifests_with_damaged_bytes(made):
    original, draw = (made("packed")[1] / "trireme.json").read_bytes(), random.Random(1)
    messages = [refusal(Malformed, parsed, damaged(original, draw)) for _ in range(3000)]
    assert all(message is None or message.isprintable() for message in messages)
    assert messages.count(None) < 1000  # a digit of a hash, or of a name


def parsed(data: bytes) -> Manifest:
    return Manifest.from_json(parse_object(data))


def test_manifests_with_disturbed_values(made):
    text, draw = (made("packed")[1] / "trireme.json").read_text(), random.Random(2)
    messages = [refusal(Malformed, Manifest.from_json, disturb(json.loads(text), draw)) for _ in range(3000)]
    assert all(message is None or message.isprintable() for message in messages)
    assert len(set(messages)) > 100


def test_layer_files_that_match_their_hash(pack_folder):
    """The hash is no help against who wrote the manifest, so the header has to stand alone."""
    file, manifest = pack_folder / LAYER, json.loads((pack_folder / "trireme.json").read_text())
    original, draw, messages = file.read_bytes(), random.Random(3), []
    header = int.from_bytes(original[:8], "little") + 8

    def first_layer():
        layer = Pack.open(pack_folder, layers=range(1)).layer(0)
        assert layer.qkv.data.size == manifest["files"][LAYER]["tensors"]["qkv"]["shape"][0]

    for _ in range(1500):
        data = damaged(original[:header], draw) + original[header:]
        file.write_bytes(data)
        manifest["files"][LAYER] |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        (pack_folder / "trireme.json").write_text(json.dumps(manifest))
        messages.append(refusal(PackCorrupt, first_layer))
    refused = [message for message in messages if message is not None]
    assert all(message.isprintable() and message.startswith(f"{LAYER}: ") for message in refused)
    assert len(refused) > 1200  # the others changed spaces at the header's end


def test_any_file_damaged_is_found(pack_folder):
    """Every byte of every file counts: opening with verification finds any change."""
    draw = random.Random(4)
    files = sorted(path for path in pack_folder.rglob("*") if path.is_file() and path.name != "trireme.json")
    for _ in range(500):
        file = draw.choice(files)
        original = file.read_bytes()
        data = damaged(original, draw)
        file.write_bytes(data)
        if data != original:
            with pytest.raises(PackCorrupt, match=f"^{file.relative_to(pack_folder)}: "):
                Pack.open(pack_folder)
        file.write_bytes(original)
    Pack.open(pack_folder)


def test_checkpoints_with_damaged_files(checkpoint, tmp_path):
    (checkpoint / "generation_config.json").write_text('{"do_sample": true, "temperature": 0.7, "eos_token_id": [2]}')
    draw, pack = random.Random(5), tmp_path / "pack"
    weights = (checkpoint / "model.safetensors").read_bytes()
    header = int.from_bytes(weights[:8], "little") + 8
    texts = {name: (checkpoint / name).read_bytes() for name in ("config.json", "generation_config.json")}
    for number in range(600):
        name = draw.choice([*texts, "model.safetensors"])
        if name in texts:
            data = json.dumps(disturb(json.loads(texts[name]), draw)).encode()
            data = damaged(texts[name], draw) if draw.random() < 0.3 else data
        else:
            data = damaged(weights[:header], draw) + weights[header:]
        (checkpoint / name).write_bytes(data)
        message = refusal(CheckpointUnsupported, convert, checkpoint, pack)
        if message is None:
            Pack.open(pack).layer(0)
            shutil.rmtree(pack)
        assert message is None or message.isprintable(), number
        assert not pack.exists(), number
        (checkpoint / name).write_bytes(texts.get(name, weights))


def test_all_of_them_are_startup_errors():
    """What `trireme` prints as one sentence."""
    assert all(issubclass(error, StartupError) for error in (PackCorrupt, PackNotFound, CheckpointUnsupported))
