"""Makes heldout.npy: token ids of text that the bundled model was not trained on, uint16 [2 texts, 16 windows, 256].

    python tests/golden/heldout.py TALES.txt AUSTEN.txt

The texts themselves are not in the repository; the windows are their first 4,096 tokens each.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from trireme_worker.pack import Pack, default_pack

WINDOWS, WIDTH = 16, 256
OUT = Path(__file__).with_name("heldout.npy")


def main(texts: list[str]) -> None:
    tokenizer = Tokenizer.from_file(str(Pack.open(default_pack()).tokenizer_path()))
    ids = [_documents(tokenizer, Path(text).read_text("utf-8"))[: WINDOWS * WIDTH] for text in texts]
    np.save(OUT, np.array(ids, np.uint16).reshape(len(texts), WINDOWS, WIDTH))


def _documents(tokenizer: Tokenizer, text: str) -> list[int]:
    """One document a line, each between <s>, which the tokenizer adds, and </s>, as in training."""
    end = tokenizer.token_to_id("</s>")
    return [token for line in text.splitlines() if line.strip() for token in [*tokenizer.encode(line).ids, end]]


if __name__ == "__main__":
    main(sys.argv[1:])
