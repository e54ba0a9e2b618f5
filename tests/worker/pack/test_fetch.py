"""Fetching packs: from folders and over HTTP, through broken connections, against wrong and hostile sources."""

import json
import os
import shutil
import threading
from dataclasses import replace

import pytest
from tests.support.web import served

from trireme.cli import lazy, main
from trireme_proto.errors import ConfigurationError, PackCorrupt, PackNotFound, StartupError
from trireme_worker.actor import StageSettings, load
from trireme_worker.commands import fetch as command
from trireme_worker.pack import Pack, fetch, local_pack
from trireme_worker.pack import source as sources

LAYER = "layers/00000.safetensors"


@pytest.fixture
def web(pack_folder):
    """The pack on a web server, in small pieces."""
    pytest.importorskip("aiohttp")
    with served(pack_folder) as running:
        yield running


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(sources, "_BLOCK", 4096)


def get(web, dst, **how):
    pauses = []
    return fetch(web.url, dst, pause=pauses.append, **how), pauses


def same(dst, pack_folder, names):
    assert {str(p.relative_to(dst)) for p in dst.rglob("*") if p.is_file()} == set(names)
    assert all((dst / name).read_bytes() == (pack_folder / name).read_bytes() for name in names)


def everything(folder):
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def nothing_but_parts(dst):
    """Nobody can take for a pack what is there."""
    assert not dst.exists()
    assert not [p for p in dst.parent.rglob("trireme.json") if dst.parent in p.parents and "partial" in str(p)]


def test_a_whole_pack_over_http(web, pack_folder, tmp_path):
    steps = []
    made, _ = get(web, tmp_path / "new" / "dst", progress=lambda done, total: steps.append((done, total)))
    same(made.path, pack_folder, everything(pack_folder))
    assert Pack.open(made.path).sha256 == made.sha256 == Pack.open(pack_folder).sha256
    total = sum(p.stat().st_size for p in pack_folder.rglob("*.*") if p.is_file() and p.name != "trireme.json")
    assert steps[-1] == (total, total) == (made.copied, made.copied)
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)
    assert [p.name for p in made.path.parent.iterdir()] == ["dst"]


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_a_folder_is_a_source_too(pack_folder, tmp_path, form):
    made = fetch(form.format(pack_folder), tmp_path / "dst")
    same(made.path, pack_folder, everything(pack_folder))


def test_layers_take_only_their_files_and_more_can_follow(web, pack_folder, tmp_path):
    dst, config = tmp_path / "dst", Pack.open(pack_folder).config
    last = config.layers - 1
    get(web, dst, layers=range(last, config.layers))
    weights = {name for name in everything(dst) if name.endswith(".safetensors")}
    assert weights == {f"layers/{last:05d}.safetensors", "head.safetensors"}
    Pack.open(dst, layers=range(last, config.layers))
    before = web.sent("head.safetensors")
    made, _ = get(web, dst)
    same(dst, pack_folder, everything(pack_folder))
    assert web.sent("head.safetensors") == before
    assert 0 < made.copied < sum(p.stat().st_size for p in pack_folder.rglob("*.*") if p.is_file())
    assert get(web, dst)[0].copied == 0


def test_an_empty_range_takes_no_weights(web, tmp_path):
    get(web, tmp_path / "dst", layers=range(0))
    assert "tokenizer.json" in everything(tmp_path / "dst")
    assert not [name for name in everything(tmp_path / "dst") if name.endswith(".safetensors")]
    Pack.open(tmp_path / "dst", weights=False, verify=False).tokenizer_path()


def test_a_connection_that_breaks_goes_on_where_it_broke(web, pack_folder, tmp_path):
    web.breaks[LAYER] = [1 << 20, 1000, 0, 5]
    made, pauses = get(web, tmp_path / "dst")
    same(made.path, pack_folder, everything(pack_folder))
    offsets = web.sent(LAYER)
    assert len(pauses) == 3
    assert offsets[0] == 0
    assert offsets[1] == offsets[2] == offsets[3] > 0
    assert all(offset > 0 for offset in offsets[1:])
    size = (pack_folder / LAYER).stat().st_size
    assert made.copied == sum(p.stat().st_size for p in pack_folder.rglob("*.*") if p.name != "trireme.json")
    assert size > 8192


@pytest.mark.parametrize("sizes", [True, False])
def test_a_server_without_ranges_is_read_again_from_the_beginning(web, pack_folder, tmp_path, sizes):
    web.ranges, web.sizes = False, sizes
    if sizes:  # else an early end is none that could be told
        web.breaks[LAYER] = [5000]
    made, _ = get(web, tmp_path / "dst")
    same(made.path, pack_folder, everything(pack_folder))


def test_a_source_that_stays_broken_ends_it_and_the_next_time_goes_on(web, pack_folder, tmp_path):
    dst = tmp_path / "dst"
    web.breaks[LAYER] = [8192, *[0] * 9]
    with pytest.raises(StartupError, match=f"does not answer, or breaks off: {LAYER}") as caught:
        get(web, dst)
    assert web.url not in caught.value.message
    nothing_but_parts(dst)
    web.breaks.clear()
    web.asked.clear()
    get(web, dst)
    same(dst, pack_folder, everything(pack_folder))
    assert web.sent(LAYER)[0] == 8192
    assert [p.name for p in tmp_path.iterdir() if "dst" in p.name] == ["dst"]


def test_waits_grow(web, tmp_path):
    web.statuses["trireme.json"] = [503] * 4
    _, pauses = get(web, tmp_path / "dst")
    assert pauses == sorted(pauses)
    assert len(pauses) >= 1


def test_a_part_that_is_wrong_is_fetched_again(web, pack_folder, tmp_path):
    sha = Pack.open(pack_folder).sha256
    part = tmp_path / f".dst.{sha[:16]}.partial" / f"{LAYER}.part"
    for junk in (b"x" * 5000, b"x" * 10**6):
        part.parent.mkdir(parents=True)
        part.write_bytes(junk)
        get(web, tmp_path / "dst")
        same(tmp_path / "dst", pack_folder, everything(pack_folder))
        shutil.rmtree(tmp_path / "dst")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), f"^{LAYER}: its SHA-256"),
        (lambda data: data + b"x", f"^{LAYER}: is longer than"),
        (lambda data: data[:-1], f"^{LAYER}: is shorter than"),
        (lambda data: b"", f"^{LAYER}: is shorter than"),
    ],
)
@pytest.mark.parametrize("ranges", [True, False])
def test_wrong_bytes_are_never_a_pack(web, pack_folder, tmp_path, change, match, ranges):
    web.ranges = ranges
    (pack_folder / LAYER).write_bytes(change((pack_folder / LAYER).read_bytes()))
    with pytest.raises(PackCorrupt, match=match):
        get(web, tmp_path / "dst")
    nothing_but_parts(tmp_path / "dst")


@pytest.mark.parametrize("name", ["../escaped", "/etc/passwd", "layers/../../escaped.safetensors", "a\0b"])
def test_a_hostile_manifest_leads_nowhere(web, pack_folder, edit, tmp_path, name):
    entry = {"sha256": "0" * 64, "bytes": 1} | ({"tensors": {}} if name.endswith(".safetensors") else {})
    edit(pack_folder / "trireme.json", lambda value: value["files"].update({name: entry}))
    with pytest.raises(PackCorrupt, match="unknown file"):
        get(web, tmp_path / "dst")
    assert not (tmp_path / "escaped").exists()
    nothing_but_parts(tmp_path / "dst")


def test_a_manifest_without_end_is_refused(web, pack_folder, tmp_path, monkeypatch):
    (pack_folder / "trireme.json").write_bytes(b" " * ((16 << 20) + 1))
    monkeypatch.setattr(sources, "_BLOCK", 8 << 20)
    with pytest.raises(PackCorrupt, match=r"^trireme.json: is larger"):
        get(web, tmp_path / "dst")


def test_a_file_larger_than_the_disk_is_refused_before_it_is_copied(web, pack_folder, edit, tmp_path):
    edit(pack_folder / "trireme.json", lambda value: value["files"][LAYER].update(bytes=1 << 50))
    with pytest.raises(StartupError, match="GB more"):
        get(web, tmp_path / "dst")
    assert LAYER not in {name for name, _ in web.asked}


def test_missing_sources(web, pack_folder, tmp_path):
    (pack_folder / LAYER).unlink()
    with pytest.raises(PackNotFound, match=f"no {LAYER} at the source"):
        get(web, tmp_path / "dst")
    with pytest.raises(PackNotFound, match=r"no trireme.json at the source"):
        fetch(f"{web.url}/nothing", tmp_path / "dst")
    with pytest.raises(StartupError, match="does not answer"):
        fetch("http://127.0.0.1:1/pack", tmp_path / "dst", pause=lambda _: None)
    nothing_but_parts(tmp_path / "dst")


def test_a_fifo_at_the_source_is_not_waited_for(pack_folder, tmp_path):
    (pack_folder / LAYER).unlink()
    os.mkfifo(pack_folder / LAYER)
    with pytest.raises(PackCorrupt, match="is not a file"):
        fetch(str(pack_folder), tmp_path / "dst")


def test_a_link_in_place_of_a_part_is_not_followed(web, pack_folder, tmp_path):
    sha, victim = Pack.open(pack_folder).sha256, tmp_path / "victim"
    victim.write_text("precious")
    part = tmp_path / f".dst.{sha[:16]}.partial" / f"{LAYER}.part"
    part.parent.mkdir(parents=True)
    part.symlink_to(victim)
    with pytest.raises(ConfigurationError, match="cannot write the pack 'dst'"):
        get(web, tmp_path / "dst")
    assert victim.read_text() == "precious"


def test_what_is_in_the_way_is_left_alone(web, pack_folder, edit, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(pack_folder)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    for name in ("file", "link", "full"):
        with pytest.raises(ConfigurationError, match=f"'{name}' exists already"):
            get(web, tmp_path / name)
    (tmp_path / "empty").mkdir()
    get(web, tmp_path / "empty")
    edit(pack_folder / "trireme.json", lambda value: value["generation"].update(temperature=0.123))
    with pytest.raises(ConfigurationError, match="'empty' holds another pack"):
        get(web, tmp_path / "empty")


def test_two_at_once_copy_each_file_once(web, pack_folder, tmp_path):
    copied = []
    threads = [threading.Thread(target=lambda: copied.append(get(web, tmp_path / "dst")[0].copied)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(copied)[:2] == [0, 0]
    same(tmp_path / "dst", pack_folder, everything(pack_folder))


@pytest.mark.parametrize("source", ["ftp://h/p", "memory://p", "simplecache::file:///p", "://"])
def test_other_schemes_are_refused(source, tmp_path):
    with pytest.raises(ConfigurationError, match="cannot be fetched over"):
        fetch(source, tmp_path / "dst")


def test_a_worker_fetches_its_layers_once(web, pack_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("TRIREME_PACKS", str(tmp_path / "packs"))
    sha = Pack.open(pack_folder).sha256
    settings = StageSettings(
        pack=web.url,
        pack_sha256=sha,
        first_layer=0,
        end_layer=1,
        threads=1,
        kv_tokens=64,
        kv_dtype="float32",
        layout="packed",
        slots=2,
        host="127.0.0.1",
    )
    load(settings).close()
    folder = tmp_path / "packs" / sha
    assert {n for n in everything(folder) if n.endswith(".safetensors")} == {LAYER, "embedding.safetensors"}
    web.asked.clear()
    load(settings).close()
    assert web.asked == []
    damaged = (folder / LAYER).read_bytes()
    (folder / LAYER).write_bytes(damaged[:-1] + bytes([damaged[-1] ^ 1]))
    load(settings).close()
    assert (folder / LAYER).read_bytes() == damaged
    assert local_pack(web.url, range(0)) == folder
    assert local_pack(str(pack_folder), range(0)) == pack_folder
    with pytest.raises(StartupError, match="another model pack"):
        load(replace(settings, pack_sha256="0" * 64))


@pytest.fixture
def cli(monkeypatch, capsys):
    from importlib.metadata import EntryPoint

    point = EntryPoint("fetch", "trireme_worker.commands:fetch", lazy.GROUP)
    monkeypatch.setattr(lazy, "entry_points", lambda group: [point])
    assert command is not None

    def run(*args):
        code = main(["fetch", *map(str, args)])
        return code, *capsys.readouterr()

    return run


def test_the_command(cli, pack_folder, tmp_path):
    code, out, _ = cli(pack_folder, tmp_path / "dst", "--layers", "0:1", "--json")
    found = json.loads(out)
    assert (code, found["model"], found["pack_sha256"]) == (0, "small", Pack.open(pack_folder).sha256)
    code, out, _ = cli(pack_folder, tmp_path / "dst")
    assert code == 0
    assert "small" in out
    for layers in ("x", "1", "2:1", "0:99"):
        code, _, err = cli(pack_folder, tmp_path / "dst", "--layers", layers)
        assert (code in {1, 2}, err.count("error: ")) == (True, 1)
        assert "layers" in err


def test_a_damaged_file_of_a_pack_that_is_there_is_fetched_anew_where_that_is_asked_for(made, tmp_path):
    source = made("packed", "int8+4bit")[1]
    fetch(str(source), tmp_path / "copy")
    damaged = tmp_path / "copy" / "head.safetensors"
    good = damaged.read_bytes()
    damaged.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    assert fetch(str(source), tmp_path / "copy", recheck=True).copied == len(good)
    assert damaged.read_bytes() == good
    assert fetch(str(source), tmp_path / "copy", recheck=True).copied == 0
