"""A pack at a URL: the coordinator fetches what describes it, the workers are told to fetch their layers themselves."""

from __future__ import annotations

import pytest
from tests.support.web import served

from trireme_coordinator.config import ServeConfig, from_environment
from trireme_coordinator.connecting import open_pack
from trireme_coordinator.placement import Node, place
from trireme_coordinator.sizing import settings_of
from trireme_worker.pack import default_pack


@pytest.fixture
def packs(tmp_path, monkeypatch):
    monkeypatch.setenv("TRIREME_PACKS", str(tmp_path / "packs"))
    return tmp_path / "packs"


def launched(config, pack):
    """Settings that the stages of `config` are started with."""
    placed = place([1] * pack.config.layers, 1, [Node("id", "name", "address")], config.stages)
    settings = settings_of(config, pack, None)
    return [settings(stage, "host") for stage in placed]


async def test_a_url(packs):
    pytest.importorskip("aiohttp")
    with served(default_pack()) as web:
        said, config = [], ServeConfig(pack=web.url, stages=2)
        pack = await open_pack(config, said.append)
        assert not [name for name, _ in web.asked if name.endswith(".safetensors")]
    assert pack.path == packs / pack.sha256
    assert pack.tokenizer_path().is_file()
    assert said == ["Fetching the model's manifest and tokenizer"]
    assert [settings.pack for settings in launched(config, pack)] == [web.url] * 2


async def test_a_folder(packs):
    for config in (ServeConfig(), ServeConfig(pack=str(default_pack()))):
        pack = await open_pack(config, pytest.fail)
        assert [settings.pack for settings in launched(config, pack)] == [str(default_pack())]
    assert not packs.exists()


def test_the_folder_of_packs_is_no_setting_of_the_coordinator():
    assert from_environment({}, {"TRIREME_PACKS": "/somewhere"}) == ServeConfig()
