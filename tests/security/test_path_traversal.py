"""CVE-2024-37032, CVE-2026-7020: a model's name that becomes a path. Names in packs are further in
tests/worker/pack/test_damage.py, test_fetch.py and test_fuzz.py; here: every name that can come in from outside.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tests.security.keyed_server import keyed_server

from trireme import errors
from trireme_coordinator.config import ServeConfig
from trireme_coordinator.store import layout
from trireme_coordinator.store.records import checked_id
from trireme_proto.errors import ConfigurationError, PackCorrupt
from trireme_worker.pack import Pack, default_pack

NAMES = [
    *(
        "../x",
        "..",
        "/etc/passwd",
        "a/../../b",
        "a\\..\\b",
        "a\0b",
        "~/x",
        "%2e%2e%2fx",
        "x\n",
        "..\N{DIVISION SLASH}x",
    ),
    *("\N{FULLWIDTH FULL STOP}\N{FULLWIDTH FULL STOP}/x", "{x}", "*", "x:y", "session:{a}:tokens", " "),
]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_of_a_file_in_a_pack_leads_nowhere_else(tmp_path: Path, name: str) -> None:
    pack = tmp_path / "pack"
    shutil.copytree(default_pack(), pack)
    manifest = json.loads((pack / "trireme.json").read_text())
    manifest["files"][name] = {"sha256": "0" * 64, "bytes": 1}
    (pack / "trireme.json").write_text(json.dumps(manifest))
    with pytest.raises(PackCorrupt):
        Pack.open(pack, verify=False)


def test_a_link_out_of_a_pack_is_no_way_around_its_hashes(tmp_path: Path) -> None:
    pack, secret = tmp_path / "pack", tmp_path / "secret"
    shutil.copytree(default_pack(), pack)
    secret.write_text("{}")
    (pack / "tokenizer.json").unlink()
    (pack / "tokenizer.json").symlink_to(secret)
    with pytest.raises(PackCorrupt):
        Pack.open(pack, verify=False).verify_files(["tokenizer.json"])


@pytest.mark.parametrize("name", NAMES)
def test_a_name_from_a_caller_reaches_no_key_of_redis(name: str) -> None:
    with pytest.raises(errors.SessionNotFound):
        layout.session_key(checked_id(name))


@pytest.mark.parametrize("name", [*NAMES, "x" * 65])
def test_a_deployment_and_a_tenant_have_plain_names(tmp_path: Path, name: str) -> None:
    from trireme_coordinator.auth.key_file import checked_tenant

    if name != "..":
        with pytest.raises(ConfigurationError):
            ServeConfig(name=name)
        with pytest.raises(ConfigurationError):
            checked_tenant(name)


async def test_over_the_wire_too(pack: Pack, tmp_path: Path) -> None:
    async with keyed_server(pack, tmp_path, ["acme"]) as server:
        client = server.clients["acme"]
        for name in NAMES:
            with pytest.raises((errors.InvalidRequest, errors.SessionNotFound)):
                await client.sessions.get(name)
            with pytest.raises((errors.InvalidRequest, errors.SessionNotFound)):
                await client.generate([1], session=name, max_tokens=1).result()
            if name not in {"..", "x:y"}:  # ids of requests may be these: they name nothing but themselves
                with pytest.raises(errors.InvalidRequest):
                    await client.generate([1], request_id=name, max_tokens=1).result()
