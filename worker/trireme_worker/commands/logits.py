"""`trireme logits`: the whole model in this process, for comparisons with other implementations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def logits(
    pack: Annotated[Path, typer.Argument(help="Folder of the model pack.")],
    tokens: Annotated[str, typer.Option(help="Token ids, with commas between them: 1,2,3")],
    out: Annotated[Path, typer.Option(help="File to write: float32 [tokens, vocabulary], NumPy's .npy format.")],
    threads: Annotated[int, typer.Option(min=1, max=1024, help="Kernel threads.")] = 1,
) -> None:
    """Write the logits of a model at each position of a sequence of tokens.

    Row i holds the scores for the token that follows tokens 0 to i.
    """
    import numpy as np
    from rich.console import Console

    from trireme_proto.errors import ConfigurationError
    from trireme_worker.pack import Pack
    from trireme_worker.stage import StageModel

    model_pack = Pack.open(pack)
    config = model_pack.config
    token_ids = parse_tokens(tokens, config.vocabulary, config.context)
    with Console(stderr=True).status("Computing (the first run compiles the kernels)"):
        model = StageModel(model_pack, range(config.layers), threads=threads, kv_tokens=len(token_ids), slots=1)
        try:
            found = model.logits(token_ids)
        finally:
            model.close()
    try:
        with out.open("wb") as file:
            np.save(file, found, allow_pickle=False)
    except OSError as fault:
        raise ConfigurationError(f"cannot write {out.name!r}: {fault.strerror or 'input/output error'}") from fault
    print(f"{out}: float32 {list(found.shape)}")


def parse_tokens(text: str, vocabulary: int, context: int) -> list[int]:
    """Token ids from "1,2,3". InvalidRequest: what is not one, or outside the vocabulary; PromptTooLong: too many."""
    from trireme_proto.errors import InvalidRequest, PromptTooLong

    token_ids = []
    for part in text.split(","):
        digits = part.strip()
        if not (digits.isascii() and digits.isdecimal() and len(digits) < 16 and int(digits) < vocabulary):
            raise InvalidRequest(f"--tokens: {digits[:20]!r} is no token id of this model (0 to {vocabulary - 1})")
        token_ids.append(int(digits))
    if len(token_ids) > context:
        raise PromptTooLong(f"--tokens: {len(token_ids)} tokens do not fit the model's context of {context}")
    return token_ids
