"""How the fake server's answer comes apart into messages: limits, end of text, stop texts, characters that span tokens.

Pure: from a model, a context and a request to the list of messages.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from trireme.testing.model import FakeModel
from trireme_proto.errors import PromptTooLong
from trireme_proto.v1 import inference_pb2 as inference

_BREAKS = {True: inference.FINISH_REASON_LENGTH, False: inference.FINISH_REASON_CONTEXT}


def answer(
    model: FakeModel, context: Sequence[int], request: inference.GenerateRequest, seed: int
) -> list[inference.GenerateResponse]:
    """All messages after the first, one a token and a last one with the finish reason. Raises PromptTooLong."""
    room = model.context - len(context)
    if room < 1:
        raise PromptTooLong(f"The prompt has {len(context)} tokens; the context window holds {model.context}.")
    limit = min(request.max_tokens, room) if request.HasField("max_tokens") else room
    greedy = request.sampling.HasField("temperature") and request.sampling.temperature == 0
    writer = _Writer(request.stop)
    reason = _BREAKS[limit == request.max_tokens]
    for token in model.continuation(context, None if greedy else seed):
        if len(writer.messages) == limit:
            break
        if token == model.eos and not request.ignore_eos:
            reason = inference.FINISH_REASON_EOS
            break
        if writer.add(token, special=token >= model.bos):
            reason = inference.FINISH_REASON_STOP
            break
    return [*writer.messages, writer.last(reason)]


class _Writer:
    """Holds back text that a stop text could still claim."""

    def __init__(self, stops: Sequence[str]) -> None:
        self.messages: list[inference.GenerateResponse] = []
        self._stops = stops
        self._hold = max(map(len, stops), default=1) - 1
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._text = ""
        self._sent = 0
        self._end: int | None = None

    def add(self, token: int, *, special: bool) -> bool:
        """One token more; True where a stop text is complete."""
        self._text += "" if special else self._decoder.decode(bytes([token]))
        found = [at for at in map(self._text.find, self._stops) if at >= 0]
        self._end = min(found, default=None)
        upto = max(self._sent, len(self._text) - self._hold) if self._end is None else self._end
        piece = self._text[self._sent : upto]
        self.messages.append(inference.GenerateResponse(index=len(self.messages), token_ids=[token], text=piece))
        self._sent = upto
        return self._end is not None

    def last(self, reason: inference.FinishReason.ValueType) -> inference.GenerateResponse:
        """What was held back, and why it is over."""
        rest = "" if self._end is not None else self._text[self._sent :] + self._decoder.decode(b"", final=True)
        return inference.GenerateResponse(index=len(self.messages), text=rest, finish_reason=reason)
