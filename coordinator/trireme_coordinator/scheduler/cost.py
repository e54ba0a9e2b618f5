"""What a step costs, learnt from the stages' own times, and how to cut decode rows into micro-batches so that a round
of them costs least.

A micro-batch of n tokens takes the slowest stage about `fixed + per_token * n`: the weights are read once, whatever n
is, and each token adds its arithmetic. When nobody is in its way, a micro-batch comes round in `laps` times as long:
through all stages one after the other, and over the wire. With m micro-batches of r rows on their way, every sequence
gets a token each

    max(laps * (fixed + per_token * r),  m * (fixed + per_token * r))

the first when the pipeline has gaps, the second when the slowest stage has none.
"""

from __future__ import annotations

from collections.abc import Sequence as Items

_MEMORY = 0.98
"""Weight of what was learnt before, against one more step: about the last 50 count."""
_QUICKLY = 0.2
_AFRESH = 32
"""Steps after which the split is thought over."""
_SPREAD = 0.1
"""Variance of the sizes of steps below which they are all about one."""
_LONGEST = 64
"""Tokens beyond which a step says nothing of decoding."""


class StepCost:
    """Learns from finished steps. Before the first one, stages are taken to be alike and a token to cost a tenth of
    a step.
    """

    def __init__(self, stages: int) -> None:
        self.stages = stages
        self.fixed, self.per_token = 10.0, 1.0
        self.laps = float(stages)
        self.gap = 0.0
        """Share of a round in which no stage computes it: messages, and the turn-round here."""
        self.prefill_ns = 0.0
        """Of the first stage, for a token of a prefill chunk; 0 before there was one."""
        self.slowest_prefill_ns = 0.0
        """The same of the slowest stage."""
        self._sums = (0.0, 0.0, 0.0, 0.0, 0.0)  # of 1, n, n * n, t, n * t, the older ones fading
        self._learnt = 0
        self._rows: dict[int, int] = {}

    def learn(self, tokens: int, compute_ns: Items[int], round_ns: int) -> None:
        """A step of `tokens` tokens took the stages `compute_ns` each, and a round `round_ns`, time in queues not
        counted.
        """
        slowest = max(compute_ns, default=0)
        if tokens > _LONGEST:
            self.prefill_ns = _learnt(self.prefill_ns, compute_ns[0] / tokens)
            self.slowest_prefill_ns = _learnt(self.slowest_prefill_ns, slowest / tokens)
        if not slowest or not 0 < tokens <= _LONGEST:
            return
        round_ns = max(round_ns, sum(compute_ns))
        self.gap += (1 - _MEMORY) * (1 - sum(compute_ns) / round_ns - self.gap)
        laps = round_ns / slowest
        self.laps += (1 - _MEMORY) * (min(laps, 2.0 * self.stages) - self.laps)
        news = (1.0, tokens, tokens * tokens, slowest, tokens * slowest)
        self._sums = tuple(_MEMORY * old + new for old, new in zip(self._sums, news, strict=True))  # type: ignore[assignment]
        self._fit()
        self._learnt += 1
        if self._learnt % _AFRESH == 0:
            self._rows.clear()

    def time(self, tokens: float) -> float:
        """Of the slowest stage for a micro-batch; in units of its own before anything was learnt."""
        return self.fixed + self.per_token * tokens

    def price(self, rows: int) -> float:
        """What one more token in a micro-batch of `rows` decode rows costs, in tokens that could be had for it."""
        return self.per_token * rows / self.time(rows) if rows else 0.0

    def rows(self, decoding: int) -> int:
        """Decode rows that a micro-batch should have when `decoding` sequences decode; at least 1."""
        if decoding not in self._rows:
            choices = {-(-max(decoding, 1) // m) for m in range(1, self.stages + 2)}
            self._rows[decoding] = min(choices, key=lambda rows: (self._round(decoding, rows), rows))
        return self._rows[decoding]

    def _round(self, decoding: int, rows: int) -> float:
        batches = -(-decoding // rows)
        return max(self.laps * self.time(rows), batches * self.fixed + decoding * self.per_token)

    def _fit(self) -> None:
        """The line through the steps: least squares."""
        weight, n, nn, t, nt = self._sums
        mean_n, mean_t = n / weight, t / weight
        spread = nn / weight - mean_n**2
        if spread > _SPREAD:
            slope = (nt / weight - mean_n * mean_t) / spread
        else:  # one size tells nothing of the slope: what was believed of its share stays
            slope = self.per_token / self.time(mean_n) * mean_t
        self.per_token = min(max(slope, 0.0), mean_t / mean_n)
        self.fixed = mean_t - self.per_token * mean_n


def _learnt(known: float, news: float) -> float:
    return known + (news - known) * (_QUICKLY if known else 1.0)
