"""`trireme certs dev`: keys for their owner alone, names where they belong, and never a file written over."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509

from trireme_coordinator.dev_certificates import make_certificates
from trireme_proto.errors import ConfigurationError
from trireme_worker.stage_links import STAGE_NAME

FILES = {"ca.crt", "ca.key", "server.crt", "server.key", "client.crt", "client.key"} | {
    *("stage/ca.crt", "stage/tls.crt", "stage/tls.key")
}


def make(folder: Path, *names: str) -> set[str]:
    return {str(path.relative_to(folder)) for path in make_certificates(folder, names or ("localhost",), "app", 30)}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def names(path: Path) -> list[str]:
    found = x509.load_pem_x509_certificate(path.read_bytes())
    extension = found.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return [str(each.value) for each in extension.value]


def test_all_files_are_there_and_keys_are_for_their_owner(tmp_path: Path) -> None:
    folder = tmp_path / "certs"
    assert make(folder) == FILES
    assert folder.stat().st_mode & 0o777 == 0o700
    for path in folder.rglob("*.key"):
        assert path.stat().st_mode & 0o777 == 0o600, path.name


def test_each_certificate_has_its_names_and_one_ca(tmp_path: Path) -> None:
    make(tmp_path, "srv.example", "10.0.0.1", "::1")
    assert names(tmp_path / "server.crt") == ["srv.example", "10.0.0.1", "::1"]
    assert names(tmp_path / "client.crt") == ["app"]
    assert names(tmp_path / "stage/tls.crt") == [STAGE_NAME]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for stem in ("server", "client", "stage/tls"):
        context.load_cert_chain(tmp_path / f"{stem}.crt", tmp_path / f"{stem}.key")
        found = x509.load_pem_x509_certificate((tmp_path / f"{stem}.crt").read_bytes())
        found.verify_directly_issued_by(x509.load_pem_x509_certificate((tmp_path / "ca.crt").read_bytes()))


def test_nothing_is_written_over_and_what_is_missing_is_made_of_the_same_ca(tmp_path: Path) -> None:
    make(tmp_path)
    before = contents(tmp_path)
    assert make(tmp_path) == set()
    assert contents(tmp_path) == before
    (tmp_path / "server.crt").unlink()
    with pytest.raises(ConfigurationError, match=r"server.crt and server.key one is missing"):
        make(tmp_path)
    (tmp_path / "server.key").unlink()
    assert make(tmp_path) == {"server.crt", "server.key"}
    after = contents(tmp_path)
    assert {name for name in FILES if after[name] != before[name]} == {"server.crt", "server.key"}


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "certs", tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "ca.key").symlink_to(elsewhere)
    with pytest.raises(FileExistsError):
        make(folder)
    assert not elsewhere.exists()


@pytest.mark.parametrize("name", [STAGE_NAME, STAGE_NAME.upper()])
def test_the_name_of_stages_is_for_stages(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match="name of stages"):
        make(tmp_path, name)
    with pytest.raises(ConfigurationError, match="name of stages"):
        make_certificates(tmp_path, ["localhost"], name, 30)
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("name", ["", "two words", "a" * 65, "-x", "x-", "a..b", "*", "a\nb", "ü"])
def test_what_is_no_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match="neither a DNS name of"):
        make(tmp_path, name)


def test_the_command(tmp_path: Path) -> None:
    code = "from trireme_coordinator.commands import certs; certs()"
    command = [sys.executable, "-c", code, "dev", str(tmp_path / "c"), "--san", "srv.example", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert {str(Path(p).relative_to(tmp_path / "c")) for p in json.loads(done.stdout)["made"]} == FILES
    assert {"localhost", "127.0.0.1", "srv.example"} <= set(names(tmp_path / "c/server.crt"))
