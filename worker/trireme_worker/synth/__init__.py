"""Models that nobody trained, at the sizes of ones that somebody did: what they say is noise, what they cost is real.

    shapes      sizes of public models, by name
    weights     random weights in the bytes of the packed layouts
    vocabulary  a tokenizer for a vocabulary of any size
    synthesis   a pack of all that on the disk

For benchmarks, plans and tests at full size; knows nothing of any of them.
"""

from trireme_worker.synth.shapes import SHAPES, shape
from trireme_worker.synth.synthesis import Synthesis, synthesise

__all__ = ["SHAPES", "Synthesis", "shape", "synthesise"]
