"""A tokenizer for a vocabulary of any size: the bundled model's, and a numbered text for every id beyond it.

Each id needs a text: what decodes to nothing never completes a piece of an answer, and whoever looks at the stream of a
synthetic model wants to see its tokens. The numbered texts have no merges, so that no prompt becomes one of them.
"""

from __future__ import annotations

import json

from trireme_worker.pack.bundled import default_pack
from trireme_worker.pack.manifest import TOKENIZER_FILE

BOS_TOKEN_ID = 0
_SPACE = "\u0120"
"""How a byte-level vocabulary writes a space."""


def tokenizer_json(vocabulary: int) -> bytes:
    """A tokenizer.json with ids 0 to `vocabulary` - 1; id 5000 reads " ~5000".

    ValueError: a vocabulary smaller than the bundled model's, whose texts are all needed to write any text.
    """
    tokenizer = json.loads((default_pack() / TOKENIZER_FILE).read_text("utf-8"))
    vocab = tokenizer["model"]["vocab"]
    if vocabulary < len(vocab):
        raise ValueError(f"the vocabulary has {len(vocab)} texts, {vocabulary} are too few")
    vocab |= {f"{_SPACE}~{i}": i for i in range(len(vocab), vocabulary)}
    return json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":")).encode()
