"""The model that comes with the package."""

import json

import trireme_worker
from trireme_worker.pack import GenerationDefaults, Pack, default_pack


def test_it_opens_and_is_what_its_card_says():
    pack = Pack.open(default_pack())
    config = pack.config
    assert (config.name, config.layers, config.hidden_size, config.ffn_size) == ("trireme-tiny", 6, 256, 768)
    assert (config.heads, config.kv_heads, config.context, config.vocabulary) == (4, 2, 256, 4096)
    assert (config.parameters, config.ternary_parameters) == (5_776_640, 4_718_592)
    assert (config.activation, config.sub_norms, config.tied_head) == ("relu2", True, True)
    assert pack.generation == GenerationDefaults(temperature=0.7, top_k=0, top_p=0.9)


def test_it_is_package_data():
    """Under the package, in a folder that pyproject.toml lists, and small enough to ship."""
    folder = default_pack()
    assert folder.is_relative_to(trireme_worker.__path__[0])
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 4_000_000
    assert "Apache-2.0" in (folder / "README.md").read_text()


def test_its_tokenizer_is_the_models():
    tokenizer = json.loads(Pack.open(default_pack()).tokenizer_path().read_text())
    assert max(tokenizer["model"]["vocab"].values()) == Pack.open(default_pack()).config.vocabulary - 1
