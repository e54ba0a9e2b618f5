"""Writes trireme/files/shapes.yaml: the bytes of public models, out of which the chart computes requests and limits.

python helm/shapes.py            rewrites the file
python helm/shapes.py --check    fails where it is out of date
"""

from __future__ import annotations

import sys
from pathlib import Path

from trireme_kernels.packing import packed_bytes
from trireme_worker.pack import ModelConfig, Pack, default_pack
from trireme_worker.pack.tensors import matrices, norms, padded_scales
from trireme_worker.synth import SHAPES

FILE = Path(__file__).parent / "trireme" / "files" / "shapes.yaml"
_NOTE = """# Written by helm/shapes.py. Bytes of a layer, of the embedding and of the head in a pack of 2-bit weights.
"""


def table() -> dict[str, dict[str, int]]:
    """Sizes by the name that `model.shape` takes; the bundled model's are those of its files."""
    bundled = Pack.open(default_pack(), verify=False).config
    return {"tiny": sizes(bundled)} | {name: sizes(config) for name, config in SHAPES.items()}


def sizes(config: ModelConfig) -> dict[str, int]:
    """Layers, bytes and what the keys and values take, of one model."""
    shapes = matrices(config).values()
    gains = sum(norms(config).values()) + sum(padded_scales(rows) for rows, _ in shapes)
    vocabulary_bytes = 2 * config.vocabulary * config.hidden_size
    return {
        "layers": config.layers,
        "layerBytes": sum(packed_bytes(rows, cols, "2bit") for rows, cols in shapes) + 4 * gains,
        "embeddingBytes": vocabulary_bytes,
        "headBytes": vocabulary_bytes,
        "kvHeads": config.kv_heads,
        "headDim": config.head_dim,
        "context": config.context,
    }


def text() -> str:
    """The file's content."""
    lines = [
        f"{name}: {{{', '.join(f'{key}: {value}' for key, value in row.items())}}}" for name, row in table().items()
    ]
    return _NOTE + "".join(f'"{line.replace(": {", chr(34) + ": {", 1)}\n' for line in lines)


def main() -> int:
    """0, or 1 where the file is out of date."""
    if "--check" in sys.argv[1:]:
        return int(FILE.read_text() != text())
    FILE.write_text(text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
