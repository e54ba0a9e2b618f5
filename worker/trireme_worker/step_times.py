"""What the computation of one step consists of, in time. Filled by the stage, sent with the frame; plain numbers.

Reading the clock takes 50 ns, four times a step. Within the layers the kernels count cycles (`attention_share`).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class StepTimes:
    """Nanoseconds; 0: not measured, or nothing of the kind was done."""

    linear_ns: int = 0
    """Products with the layers' weights, norms included."""
    attention_ns: int = 0
    """Rotation, writing to the KV cache, attention."""
    head_ns: int = 0
    sample_ns: int = 0
    """Drawing tokens."""

    def layers(self, spent_ns: int, attention_share: float) -> None:
        """All layers took so long, this share of it attention; 0: that is not known."""
        self.attention_ns = int(spent_ns * attention_share)
        self.linear_ns = spent_ns - self.attention_ns if attention_share else 0
