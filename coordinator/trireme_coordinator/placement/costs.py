"""What a model asks for, what a machine can do, and how long a stage takes for a step: a roofline for each phase.

A phase (weights, attention, head) lasts as long as its bytes take to read or its multiply-adds to compute, whichever
is longer; phases follow each other. Units are bytes, multiply-adds (int8 ones: a float one counts as several) and
seconds. A GB is 10**9 bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import accumulate

GB = 1e9
READ_SHARE = 0.90
"""Of the plain read bandwidth, that the kernels reach (`trireme bench decode`)."""
MAC_SHARE = 0.90
"""Of the dot product peak, that the kernels reach (`trireme bench prefill`)."""
PROCESS_BYTES = 400_000_000
"""What a worker takes beside weights, keys and values."""
DEFAULT_RTT_MS = 0.2
DEFAULT_LINK_GBIT_S = 10.0


@dataclass(frozen=True, slots=True)
class Machine:
    """A node by what it can do."""

    name: str
    ram_gb: float
    """Free memory, GB."""
    read_gb_s: float
    """Plain read bandwidth of all its cores together."""
    int8_gmac_s: float
    """Peak of the int8 dot product of all its cores together, 10**9 multiply-adds a second."""
    cores: int | None = None
    rtt_ms: float = DEFAULT_RTT_MS
    """Round trip to its neighbours."""
    link_gbit_s: float = DEFAULT_LINK_GBIT_S

    @property
    def ram_bytes(self) -> int:
        """Free memory."""
        return int(self.ram_gb * GB)

    def seconds(self, nbytes: float, macs: float) -> float:
        """Of a phase."""
        return max(nbytes / (READ_SHARE * GB * self.read_gb_s), macs / (MAC_SHARE * GB * self.int8_gmac_s))

    def hop_s(self, nbytes: float) -> float:
        """Until a frame of so many bytes has arrived at the next stage."""
        return self.rtt_ms / 2e3 + self.transfer_s(nbytes)

    def transfer_s(self, nbytes: float) -> float:
        """That a frame keeps the link busy."""
        return 8 * nbytes / (self.link_gbit_s * 1e9)


@dataclass(frozen=True, slots=True)
class ModelCosts:
    """What a model asks for. Weights are read once a step, whatever its number of tokens."""

    name: str
    hidden_size: int
    context: int
    """Most positions of a sequence."""
    layer_bytes: tuple[int, ...]
    """Of each layer's weights: held, and read in a step."""
    layer_macs: tuple[int, ...]
    """Of each layer, for a token, without attention."""
    embedding_bytes: int
    """Held by the first stage, which reads one row of it for a token."""
    head_bytes: int
    """Held by the last stage."""
    head_read_bytes: int
    """Read in a step that samples."""
    head_macs: int
    """For a sampled token."""
    shared_bytes: int
    """In both embedding and head, where a stage has both: those of a tied table."""
    kv_bytes: int
    """Of keys and values, for a token in a layer."""
    attention_macs: int
    """For a token and a position that it attends to, in a layer."""

    @property
    def layers(self) -> int:
        """How many there are."""
        return len(self.layer_bytes)

    @property
    def frame_bytes(self) -> int:
        """Of a token's activations between stages: float32."""
        return 4 * self.hidden_size

    @property
    def read_bytes(self) -> int:
        """Of weights, that all stages together read for a token of one sequence."""
        return sum(self.layer_bytes) + self.head_read_bytes

    @property
    def fp16_bytes(self) -> int:
        """That would be read with every weight in 16 bits; the head is as large as the embedding."""
        return 2 * sum(self.layer_macs) + self.embedding_bytes


@dataclass(frozen=True, slots=True)
class Step:
    """A micro-batch, by what it costs."""

    tokens: int
    kv_tokens: int
    """Positions whose keys and values are read."""
    attended: int
    """Sum, over the tokens, of the positions that each attends to."""
    sampled: int
    """Tokens whose successor is chosen."""


def decode_step(sequences: int, context: int) -> Step:
    """A token for each of some sequences, with `context` positions before it."""
    return Step(sequences, sequences * context, sequences * context, sequences)


def prefill_step(position: int, count: int, *, last: bool) -> Step:
    """`count` tokens of one prompt from `position` on; the last ones of it choose the first token of the answer."""
    return Step(count, position + count, count * position + count * (count + 1) // 2, int(last))


class StageCosts:
    """Time and memory of any range of layers on any of some machines, each in constant time.

    step       what the stages compute
    kv_tokens  positions that each stage has to have room for
    """

    def __init__(self, model: ModelCosts, machines: tuple[Machine, ...], step: Step, kv_tokens: int) -> None:
        self.model, self.machines, self.step = model, machines, step
        held = (nbytes + model.kv_bytes * kv_tokens for nbytes in model.layer_bytes)
        self._held = tuple(accumulate(held, initial=0))
        totals = {machine: self._layer_totals(machine) for machine in dict.fromkeys(map(kind, machines))}
        self._seconds = [totals[kind(machine)] for machine in machines]
        self._ends = [self._head_s(machine) for machine in machines]
        self._hops = [machine.hop_s(model.frame_bytes * step.tokens) for machine in machines]
        firsts = {each.ram_gb: self._firsts(each.ram_bytes) for each in machines}
        self.firsts = [firsts[each.ram_gb] for each in machines]
        """firsts[machine][end]: where the largest range begins that ends there and fits; `end` where none does."""

    def until(self, machine: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """`ends, begins` such that `seconds(machine, first, end)` is about `ends[end] - begins[first]`."""
        totals, hop = self._seconds[machine], self._hops[machine]
        ends = [total + hop for total in totals]
        ends[-1] += self._ends[machine]
        return tuple(ends), totals

    def seconds(self, machine: int, first: int, end: int) -> float:
        """From the arrival of a step at a stage with layers [first, end) to its arrival at the next one."""
        return self.compute_s(machine, first, end) + self._hops[machine]

    def compute_s(self, machine: int, first: int, end: int) -> float:
        """Without the hop."""
        totals = self._seconds[machine]
        return totals[end] - totals[first] + (self._ends[machine] if end == self.model.layers else 0.0)

    def needed(self, first: int, end: int) -> int:
        """Bytes of memory that a stage takes."""
        model, begins, ends = self.model, first == 0, end == self.model.layers
        tables = model.embedding_bytes * begins + model.head_bytes * ends - model.shared_bytes * (begins and ends)
        return PROCESS_BYTES + self._held[end] - self._held[first] + tables

    def fits(self, machine: int, first: int, end: int) -> bool:
        """Whether a machine has the memory for it."""
        return self.needed(first, end) <= self.machines[machine].ram_bytes

    def _firsts(self, ram_bytes: int) -> tuple[int, ...]:
        found, first = [0], 0
        for end in range(1, self.model.layers + 1):
            while first < end and self.needed(first, end) > ram_bytes:
                first += 1
            found.append(first)
        return tuple(found)

    def _layer_totals(self, machine: Machine) -> tuple[float, ...]:
        """Seconds of layers [0, i), for each i."""
        model, step = self.model, self.step
        attention = machine.seconds(model.kv_bytes * step.kv_tokens, model.attention_macs * step.attended)
        weights = zip(model.layer_bytes, model.layer_macs, strict=True)
        each = (machine.seconds(nbytes, macs * step.tokens) + attention for nbytes, macs in weights)
        return tuple(accumulate(each, initial=0.0))

    def _head_s(self, machine: Machine) -> float:
        model, sampled = self.model, self.step.sampled
        return machine.seconds(model.head_read_bytes, model.head_macs * sampled) if sampled else 0.0


def kind(machine: Machine) -> Machine:
    """The machine without its name: interchangeable machines are equal."""
    return replace(machine, name="")
