"""Text and token ids: the tokenizer, decoding token by token, stop texts. Nothing here logs or keeps any of it."""

from trireme_coordinator.text.codec import TextCodec
from trireme_coordinator.text.stops import StopMatcher
from trireme_coordinator.text.stream import TextStream

__all__ = ["StopMatcher", "TextCodec", "TextStream"]
