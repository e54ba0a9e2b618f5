"""Our engine against transformers itself, on checkpoints that transformers writes. Skipped where it is not
installed.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.golden import models
from tests.golden.transformers_logits import transformers_logits
from tests.reference_checkpoints import KINDS, SMALL, Kind, hf_config
from tests.reference_metrics import agreement

from trireme_worker.pack import default_pack

# Warnings of torch and transformers about themselves are not ours to turn into failures.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def torch():
    for name in ("transformers", "accelerate", "torch"):
        pytest.importorskip(
            name, reason=f"{name} is not installed; `make golden` installs it, the recorded files stand in"
        )
    import torch

    return torch


@pytest.mark.parametrize("kind", ["master-bf16", "packed"])
def test_a_checkpoint_written_by_transformers(torch, kind, tmp_path):
    checkpoint = _written(torch, tmp_path, KINDS[kind])
    windows = models.small_windows()
    expected = transformers_logits(checkpoint, windows, packed=KINDS[kind].packed)
    found = agreement(expected[0], models.engine_logits(checkpoint, windows)[0])
    assert found.kl < 2e-3
    assert found.argmax >= 0.95


@pytest.mark.parametrize("kind", models.TRAINED_KINDS)
def test_the_trained_model(torch, kind, tmp_path, record_property):
    checkpoint, windows = models.trained_checkpoint(tmp_path, kind), models.heldout()
    flat = windows.reshape(-1, windows.shape[-1])
    expected = transformers_logits(checkpoint, flat, packed=KINDS[kind].packed)[:, :-1]
    ours = models.engine_logits(checkpoint, flat)[:, :-1]
    found = agreement(_rows(expected), _rows(ours), flat[:, 1:].reshape(-1))
    record_property("agreement", str(found))
    assert found.kl < 2e-4
    assert found.argmax >= 0.99
    assert abs(found.perplexity) < 1e-3


def _written(torch, folder: Path, kind: Kind) -> Path:
    """A random BitNet model saved by transformers; where packed, with the weights packed by its own function."""
    from transformers import BitNetConfig, BitNetForCausalLM
    from transformers.integrations.bitnet import pack_weights

    torch.manual_seed(0)
    config = {k: v for k, v in hf_config(kind, SMALL).items() if k not in ("architectures", "model_type")}
    model = BitNetForCausalLM(BitNetConfig(**config)).to(torch.bfloat16)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(
                1 + 0.2 * torch.randn_like(parameter) if "norm" in name else 0.2 * torch.randn_like(parameter)
            )
    state = {k: v for k, v in model.state_dict().items() if k != "lm_head.weight"}
    if kind.packed:
        for name in [name for name in state if name.endswith("_proj.weight")]:
            weight = state[name].float()
            mean = weight.abs().mean()
            state[name] = pack_weights((weight / mean).round().clamp(-1, 1))
            state[f"{name}_scale"] = mean.to(torch.bfloat16).reshape(1)
    model.save_pretrained(folder / "model", state_dict=state)
    shutil.copy(default_pack() / "tokenizer.json", folder / "model")
    assert json.loads((folder / "model" / "config.json").read_text())["quantization_config"]["quant_method"] == "bitnet"
    return folder / "model"


def _rows(logits: np.ndarray) -> np.ndarray:
    return logits.reshape(-1, logits.shape[-1])
