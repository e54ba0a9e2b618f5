"""An answer that is generated again after its record was lost: each token once, in pieces cut anywhere, or an error."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest

from trireme._answer import Answer
from trireme_proto.errors import RequestSuperseded
from trireme_proto.v1 import inference_pb2 as inference

IDS = list(range(500, 512))
TEXTS = ["a", "", "bc", "d", "", "", "\N{SNOWMAN}", "e", "f", "", "g", "h"]
HEAD = inference.GenerateResponse(session_id="s", request_id="r", seed=3)


def pieces(*cuts: int) -> Iterator[inference.GenerateResponse]:
    """The messages of the answer whose tokens come several at a time, up to each of `cuts` and to the end."""
    yield HEAD
    for begin, end in pairwise([0, *cuts, len(IDS)]):
        yield inference.GenerateResponse(index=begin, token_ids=IDS[begin:end], text="".join(TEXTS[begin:end]))
    usage = inference.Usage(prompt_tokens=1, completion_tokens=len(IDS))
    yield inference.GenerateResponse(index=len(IDS), finish_reason=inference.FINISH_REASON_LENGTH, usage=usage)


def begun(tokens: int) -> Answer:
    """An answer that was lost behind so many tokens; its text may be ahead of a token, never behind it."""
    answer = Answer()
    for message in list(pieces(tokens))[: 2 if tokens else 1]:
        answer.take(message)
    answer.attempt(anew=True)
    return answer


@pytest.mark.parametrize("cuts", [(), (1,), (3, 4, 9), (4, 5), (7,), tuple(range(1, 12))])
@pytest.mark.parametrize("tokens", range(12))
def test_each_token_is_delivered_once(tokens: int, cuts: tuple[int, ...]) -> None:
    answer = begun(tokens)
    chunks = [chunk for message in pieces(*cuts) if (chunk := answer.take(message)) is not None]
    assert [i for chunk in chunks for i in chunk.token_ids] == IDS[tokens:]
    assert "".join(chunk.text for chunk in chunks) == "".join(TEXTS[tokens:])
    assert (list(answer.token_ids), answer.text) == (IDS, "".join(TEXTS))
    assert answer.generation().usage.completion_tokens == len(IDS)


@pytest.mark.parametrize(
    "message",
    [
        inference.GenerateResponse(index=0, token_ids=[500, 501, 999], text="abc"),
        inference.GenerateResponse(index=1, token_ids=[501], text=""),
        inference.GenerateResponse(index=0, token_ids=[500, 501, 502], text="axx"),
        inference.GenerateResponse(index=0, finish_reason=inference.FINISH_REASON_EOS),
    ],
    ids=["another-token", "from-elsewhere", "another-text", "shorter"],
)
def test_another_answer_is_none(message: inference.GenerateResponse) -> None:
    answer = begun(5)
    answer.take(HEAD)
    with pytest.raises(RequestSuperseded, match="its answer is another one by now"):
        answer.take(message)
    assert list(answer.token_ids) == IDS[:5]
