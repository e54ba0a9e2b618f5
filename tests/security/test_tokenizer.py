"""transformers #36121, CVE-2026-4372: slow expressions in tokenizers. A mebibyte of one character, or of deep Unicode,
is refused before it is tokenized where it cannot fit, and otherwise takes no more than other text; tests of single
texts are in tests/coordinator/text/test_codec.py.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from tests.security.keyed_server import keyed_server

from trireme import errors
from trireme_coordinator.text import TextCodec
from trireme_worker.pack import Pack

MIB = 1 << 20
TEXTS = {
    "one letter": "a",
    "spaces": " ",
    "line breaks": "\n",
    "digits": "7",
    "marks": "\N{COMBINING ACUTE ACCENT}",
    "joiners": "\N{ZERO WIDTH JOINER}",
    "families": "\N{MAN}\N{ZERO WIDTH JOINER}\N{WOMAN}\N{ZERO WIDTH JOINER}\N{GIRL}",
    "right to left": "\N{RIGHT-TO-LEFT OVERRIDE}a",
    "apostrophes": "'s",
    "letter and space": "a ",
}


@pytest.mark.parametrize("unit", TEXTS.values(), ids=TEXTS)
def test_twice_as_much_takes_about_twice_as_long(pack: Pack, unit: str) -> None:
    codec = TextCodec.open(pack.tokenizer_path(), pack.config.bos_token_id, pack.config.vocabulary)

    def seconds(size: int) -> float:
        text, started = unit * (size // len(unit.encode())), time.thread_time()
        codec.encode(text, add_bos=False)
        return time.thread_time() - started

    seconds(MIB // 16)
    assert seconds(MIB // 2) < 40 * max(seconds(MIB // 16), 0.005)  # quadratic: 64 times, and a quarter of an hour


async def test_a_server_refuses_what_cannot_fit_and_goes_on(pack: Pack, tmp_path: Path) -> None:
    async with keyed_server(pack, tmp_path, ["acme"]) as server:
        client = server.clients["acme"]
        for unit in TEXTS.values():
            with pytest.raises(errors.PromptTooLong):
                await client.generate(unit * (MIB // len(unit.encode())), max_tokens=1).result()
        many = [client.tokenize("a" * MIB) for _ in range(20)]
        refused = await asyncio.gather(*many, client.tokenize("Hello"), return_exceptions=True)
        assert all(isinstance(each, errors.PromptTooLong) for each in refused[:-1])
        assert isinstance(refused[-1], tuple)
