"""Logits of a checkpoint as Hugging Face transformers computes them in float32, on the CPU.

Three things to know about transformers 5: its ternary layers are compiled on first use, which is switched off here; a
packed checkpoint cannot be loaded as float32, so that it is loaded as bfloat16 and cast afterwards (what it stores is
exact in both); and BitLinear keeps a dtype of its own that the cast forgets.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

os.environ["TORCHDYNAMO_DISABLE"] = "1"


def transformers_logits(folder: Path, windows: NDArray, *, packed: bool) -> NDArray[np.float32]:
    """float32 [windows, width, vocabulary] for token ids [windows, width]."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.integrations.bitnet import BitLinear

    dtype = torch.bfloat16 if packed else torch.float32
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager")
    model = torch.nn.Module.float(model).eval()
    for module in model.modules():
        if isinstance(module, BitLinear):
            module.dtype = torch.float32
    with torch.no_grad():
        rows = [model(torch.from_numpy(window[None].astype(np.int64))).logits[0] for window in windows]
    return torch.stack(rows).numpy()
