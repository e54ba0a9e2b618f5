"""API keys: their form, their file, and the ring that follows it."""

from __future__ import annotations

import json
import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trireme_coordinator.auth import api_key, key_admin, key_file
from trireme_coordinator.auth.identity import Identity
from trireme_coordinator.auth.key_ring import KeyRing
from trireme_coordinator.auth.quotas import Quota
from trireme_coordinator.auth.scopes import Scope
from trireme_proto.errors import ConfigurationError

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now, self.seconds = NOW, 0.0

    def wall(self) -> datetime:
        return self.now

    def monotonic(self) -> float:
        return self.seconds


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


@pytest.fixture
def clock() -> Clock:
    return Clock()


def ring(file: Path, clock: Clock) -> KeyRing:
    return KeyRing(file, clock=clock.wall, monotonic=clock.monotonic)


def test_a_key_has_the_form_that_scanners_are_told_of() -> None:
    made = [api_key.new_key() for _ in range(200)]
    for key_id, key in made:
        assert re.fullmatch(api_key.PATTERN, key)
        assert api_key.key_id_of(key) == key_id
    assert len({key for _, key in made}) == 200


@given(place=st.integers(0, 71), letter=st.sampled_from("0123456789abcdefXYZ_-"))
def test_a_typing_error_shows(place: int, letter: str) -> None:
    _, key = api_key.new_key()
    wrong = key[:place] + letter + key[place + 1 :]
    assert wrong == key or api_key.key_id_of(wrong) is None


def test_the_file_holds_no_key_and_is_for_its_owner_alone(file: Path) -> None:
    stored, key = key_admin.create(file, "acme", ["generate"], NOW, name="app")
    text = file.read_text()
    assert key not in text
    assert key.split("_")[3] not in text
    assert file.stat().st_mode & 0o777 == 0o600
    assert key_file.read(file).keys == {stored.key_id: stored}


@pytest.mark.parametrize("mode", [0o602, 0o604, 0o660, 0o601])
def test_a_file_that_is_open_to_others_is_refused(file: Path, mode: int) -> None:
    key_admin.create(file, "acme", ["generate"], NOW)
    file.chmod(mode)
    with pytest.raises(ConfigurationError, match="open to others"):
        key_file.read(file)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"version": 2, "keys": []}',
        '{"version": 1, "keys": [{}]}',
        '{"version": 1, "keys": 5}',
        '{"version": 1, "keys": [], "more": 1}',
        '{"version": 1, "keys": [], "quotas": {"a": {"streams": -1}}}',
        '{"version": 1, "keys": [], "quotas": {"a/b": {"streams": 1}}}',
        "[" * 100_000,
        '{"version": 1, "keys": [{"id": "0123456789ab", "sha256": "", "tenant": "a", "scopes": []}]}',
    ],
)
def test_a_damaged_file_is_one_sentence(file: Path, content: str) -> None:
    file.write_text(content)
    file.chmod(0o600)
    with pytest.raises(ConfigurationError) as caught:
        key_file.read(file)
    assert str(file) not in caught.value.message


def test_the_same_id_twice_is_damage(file: Path) -> None:
    key_admin.create(file, "acme", ["generate"], NOW)
    held = json.loads(file.read_text())
    held["keys"] *= 2
    file.write_text(json.dumps(held))
    with pytest.raises(ConfigurationError, match="damaged"):
        key_file.read(file)


def test_a_good_key_tells_who_it_is_and_others_open_nothing(file: Path, clock: Clock) -> None:
    stored, key = key_admin.create(file, "acme", ["generate"], NOW)
    _, other = api_key.new_key()
    keys = ring(file, clock)
    assert keys.identify(key) == Identity("acme", frozenset({Scope.GENERATE}), f"key:{stored.key_id}")
    another_secret = f"{api_key.PREFIX}{stored.key_id}_" + other.split("_")[3]
    for wrong in ("", key[:-1], key + "0", other, another_secret, key.upper(), "é" * 72):
        assert keys.identify(wrong) is None


def test_a_key_of_the_right_id_and_another_secret_opens_nothing(file: Path, clock: Clock) -> None:
    stored, _ = key_admin.create(file, "acme", ["generate"], NOW)
    body = f"{api_key.PREFIX}{stored.key_id}_" + "A" * 43
    wrong = body + api_key._checksum(body)
    assert api_key.key_id_of(wrong) == stored.key_id
    assert ring(file, clock).identify(wrong) is None


def test_a_key_ends_when_it_expires(file: Path, clock: Clock) -> None:
    _, key = key_admin.create(file, "acme", ["generate"], NOW, expires=NOW + timedelta(hours=1))
    keys = ring(file, clock)
    clock.now += timedelta(minutes=59)
    assert keys.identify(key) is not None
    clock.now += timedelta(minutes=1)
    assert keys.identify(key) is None


def test_keys_that_are_made_and_revoked_meanwhile_count(file: Path, clock: Clock) -> None:
    stored, key = key_admin.create(file, "acme", ["generate"], NOW)
    keys = ring(file, clock)
    assert keys.identify(key) is not None
    _, second = key_admin.create(file, "acme", ["generate"], NOW, quota=Quota(streams=3))
    key_admin.revoke(file, stored.key_id, NOW)
    clock.seconds += 1
    assert keys.identify(second) is not None
    assert keys.quota("acme") == Quota(streams=3)
    assert keys.identify(key) is None


def test_a_file_that_turns_bad_changes_nothing_and_one_that_is_gone_lets_nobody_in(
    file: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    _, key = key_admin.create(file, "acme", ["generate"], NOW)
    keys = ring(file, clock)
    file.write_text("{")
    clock.seconds += 1
    assert keys.identify(key) is not None
    assert "stay" in caplog.text
    file.unlink()
    clock.seconds += 1
    assert keys.identify(key) is None
    assert "gone" in caplog.text
    assert str(file) not in caplog.text


def test_a_file_that_could_not_be_read_is_read_when_it_is_given_to_us(
    file: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy belongs to root until somebody changes its owner; a key that it revokes must not stay good after that."""
    stored, key = key_admin.create(file, "acme", ["generate"], NOW)
    keys = ring(file, clock)
    key_admin.revoke(file, stored.key_id, NOW)
    with monkeypatch.context() as patch:
        patch.setattr(key_file, "read", unreadable)
        clock.seconds += 1
        assert keys.identify(key) is not None
    os.chown(file, os.getuid(), os.getgid())
    clock.seconds += 1
    assert keys.identify(key) is None


def unreadable(_: Path) -> key_file.KeyFile:
    raise ConfigurationError("The file of keys cannot be read (Permission denied).")


def test_mistakes_of_administration_are_sentences(file: Path) -> None:
    key_admin.create(file, "acme", ["generate"], NOW)
    for what in (
        lambda: key_admin.create(file, "a/b", ["generate"], NOW),
        lambda: key_admin.create(file, "acme", [], NOW),
        lambda: key_admin.create(file, "acme", ["root"], NOW),
        lambda: key_admin.create(file, "acme", ["generate"], NOW, name="\n"),
        lambda: key_admin.revoke(file, "000000000000", NOW),
        lambda: key_admin.create(file.parent / "none" / "keys.json", "acme", ["generate"], NOW),
    ):
        with pytest.raises(ConfigurationError):
            what()
    assert len(key_file.read(file).keys) == 1
