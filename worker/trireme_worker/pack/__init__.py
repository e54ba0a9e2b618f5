"""A pack: one model on the disk, ready to be mapped into memory by the workers.

    model/
        trireme.json                  configuration, layout, generation defaults, files with size, SHA-256 and tensors
        embedding.safetensors         bfloat16 table
        layers/00000.safetensors ...  one file per layer: packed ternary matrices, scales, norms
        head.safetensors              final norm, and the head: in int8, with or without 4-bit codes, or in bfloat16
                                      unless it is the embedding's table
        tokenizer.json, ...           the tokenizer's files, as the model's makers published them

Reads and writes that folder; knows nothing of checkpoints (`convert` does) and computes nothing.
"""

from trireme_worker.pack.bundled import default_pack
from trireme_worker.pack.config import ModelConfig
from trireme_worker.pack.files import ProgressCallback
from trireme_worker.pack.manifest import GenerationDefaults
from trireme_worker.pack.reader import Pack
from trireme_worker.pack.weights import LayerWeights
from trireme_worker.pack.writer import PackContents, write_pack

__all__ = [
    "GenerationDefaults",
    "LayerWeights",
    "ModelConfig",
    "Pack",
    "PackContents",
    "ProgressCallback",
    "default_pack",
    "write_pack",
]
