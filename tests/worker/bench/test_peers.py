"""The comparison: files that say what they must, and figures that follow from times."""

import sys

import numpy as np
import pytest

from trireme_proto.errors import ConfigurationError
from trireme_worker.bench.interleave import Timing
from trireme_worker.synth.shapes import SHAPES, tiny

EXTRA = "pip install 'trireme-inference[bench]'"


class Blocked:
    """An import hook by which a package is not installed."""

    def __init__(self, package):
        self.package = package

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == self.package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=self.package)


@pytest.mark.parametrize("package", ["gguf", "llama_cpp"])
def test_without_the_extra_one_sentence_says_what_to_install(monkeypatch, package):
    from trireme_worker.commands.bench import peers

    for name in [
        n for n in sys.modules if n.partition(".")[0] == package or n.startswith("trireme_worker.bench.peers")
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Blocked(package), *sys.meta_path])
    if package == "llama_cpp":
        monkeypatch.setitem(sys.modules, "trireme_worker.bench.peers.gguf_file", _Anything())
    with pytest.raises(ConfigurationError, match=f"bench peers needs {package}: ") as caught:
        peers(["700m"])
    assert EXTRA in str(caught.value)


class _Anything:
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)


@pytest.mark.parametrize("kind", ["TQ1_0", "TQ2_0"])
def test_a_written_model_reads_back_as_ternary(tmp_path, kind):
    gguf = pytest.importorskip("gguf", reason="gguf is in the extras test and bench")
    from dataclasses import replace

    from trireme_worker.bench.peers.gguf_file import write_model

    config = replace(tiny(), hidden_size=256, ffn_size=512, heads=4, head_dim=64, vocabulary=300)
    steps = []
    write_model(tmp_path / "m.gguf", config, kind, report=lambda *step: steps.append(step))
    reader = gguf.GGUFReader(tmp_path / "m.gguf")
    assert reader.get_field("llama.block_count").contents() == 2
    assert reader.get_field("llama.attention.head_count_kv").contents() == 2
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    assert len(tensors) == 3 + 2 * 9 == steps[-1][1]
    for name, tensor in tensors.items():
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        assert np.isfinite(values).all()
        if tensor.tensor_type.name == kind:
            unit = np.float32(np.float16(1 / np.sqrt(values.shape[1])))
            assert set(np.unique(values)) == {-unit, np.float32(0), unit}, name
            assert (gguf.quants.quantize(values, tensor.tensor_type) == tensor.data).all()  # the bytes are the format's
        elif tensor.tensor_type.name == "Q6_K":
            assert 0.0 < abs(values).max() <= 0.1
        else:
            assert (values == 1).all()
    assert tensors["blk.1.ffn_down.weight"].shape.tolist() == [512, 256]
    assert tensors["blk.0.attn_k.weight"].shape.tolist() == [256, 128]


@pytest.mark.parametrize(("name", "fits"), [("700m", True), ("2b4t", True), ("8b", True), ("70b", True), ("3b", False)])
def test_widths_that_the_formats_cannot_hold_are_refused(name, fits):
    pytest.importorskip("gguf", reason="gguf is in the extras test and bench")
    from trireme_worker.bench.peers.gguf_file import check_widths

    if fits:
        check_widths(SHAPES[name])
        return
    with pytest.raises(ConfigurationError, match="3b has matrices 3200 wide"):
        check_widths(SHAPES[name])


def test_figures_are_rates_and_ratios():
    pytest.importorskip("gguf", reason="gguf is in the extras test and bench")
    pytest.importorskip("llama_cpp", reason="llama-cpp-python builds for a quarter of an hour: pip install .[bench]")
    from trireme_worker.bench.peers.compare import Plan, Work, result, works

    assert [(w.what, w.threads, w.context, w.count, w.batch) for w in works(Plan((1, 2), (4,), 256, 512, 5))] == [
        ("decode", 1, 256, 1, 1),
        ("decode", 1, 256, 1, 4),
        ("prefill", 1, 512, 512, 1),
        ("decode", 2, 256, 1, 1),
        ("decode", 2, 256, 1, 4),
        ("prefill", 2, 512, 512, 1),
    ]
    timings = {"trireme": Timing((9.0, 0.5, 0.1)), "llama.cpp TQ2_0": Timing((1.0, 1.0, 2.0))}
    found = result(tiny(), "2bit", Work("decode", 2, 256, 1, 4), timings, 0.5)
    assert found.tokens_per_s == {"trireme": 8.0, "llama.cpp TQ2_0": 4.0}
    assert found.over == {"llama.cpp TQ2_0": 2.0}
    assert (found.model, found.what, found.batch, found.rounds, found.other_cpus) == ("tiny", "decode", 4, 3, 0.5)


def test_a_small_model_runs_beside_llama_cpp(monkeypatch):
    pytest.importorskip("gguf", reason="gguf is in the extras test and bench")
    pytest.importorskip("llama_cpp", reason="llama-cpp-python builds for a quarter of an hour: pip install .[bench]")
    from dataclasses import replace

    from trireme_worker.bench.peers import compare

    config = replace(tiny(), hidden_size=256, ffn_size=512, heads=4, kv_heads=2, head_dim=64, vocabulary=300)
    monkeypatch.setattr(compare, "shape", lambda _name: replace(config, parameters=config.counted_parameters()))
    found = list(compare.compare(["tiny"], compare.Plan((1,), (2,), 32, 64, 5), lambda *_step: None))
    assert [(line.what, line.batch) for line in found] == [("decode", 1), ("decode", 2), ("prefill", 1)]
    for line in found:
        assert set(line.tokens_per_s) == {"trireme", "llama.cpp TQ1_0", "llama.cpp TQ2_0"}
        assert min(line.tokens_per_s.values()) > 0


def test_a_model_that_does_not_fit_the_memory_is_refused(monkeypatch):
    pytest.importorskip("gguf", reason="gguf is in the extras test and bench")
    pytest.importorskip("llama_cpp", reason="llama-cpp-python builds for a quarter of an hour: pip install .[bench]")
    from types import SimpleNamespace

    from trireme_worker.bench import memory
    from trireme_worker.bench.peers import compare

    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: SimpleNamespace(available=1 << 30))
    with pytest.raises(ConfigurationError, match=r"8b in all three formats takes 8\.. GiB of memory, 1\.0 are free"):
        next(compare.compare(["8b"], compare.Plan((1,), (), 256, 512, 5), lambda *_step: None))
