"""From logits to a token, a pure function of (logits, settings, seed, position).

    mass[i] = floor(exp_nonpositive(float32((logit[i] - largest) / temperature)) * 2^40)     an integer
    top_k   keeps the k first of the ranking (logit, ties by the lower id)
    top_p   keeps the shortest prefix of what is left whose mass is >= ceil(top_p * its mass)
    draw    u = philox_uniform(seed, position);  the first kept token, by ascending id, at which the running mass
            exceeds floor(u * kept mass)

Sums of masses are exact integers, so their order is free: another order, or a vocabulary split over threads, cannot
change a token.  Differences and quotients are taken in float64, the exponential in float32.
"""

import math

import numpy as np

from trireme_kernels.arrays import ANY, F32, I64, frozen, require, require_array
from trireme_kernels.errors import KernelInputError
from trireme_kernels.exponential import exp_nonpositive
from trireme_kernels.half import magnitude_bits, order_bits
from trireme_kernels.jit import inlined, kernel
from trireme_kernels.philox import check_draw, uniform
from trireme_kernels.selection import BUCKETS, ONE, fill_buckets, prefix

MAX_VOCABULARY = 1 << 22
"""2**22 masses of at most 2**40 stay below 2**63."""
_NO_LIMIT = (1 << 63) - 1


def sample(logits: F32, temperature: float, top_k: int, top_p: float, seed: int, position: int) -> int:
    """Draw a token id.

    logits       float32[V], finite, 1 <= V <= 2**22
    temperature  >= 0; 0 takes the largest logit, ties go to the lowest id, and the other settings do not matter
    top_k        keep the k most likely tokens; 0 keeps all
    top_p        0 < top_p <= 1: keep the most likely tokens with this share of the probability; 1 keeps all
    seed         0 .. 2**64-1
    position     index of the drawn token in its sequence, >= 0: the same (seed, position) draws the same number

    Raises `KernelInputError`, also when a logit is infinite or NaN.
    """
    require_array("logits", logits, np.float32, (ANY,))
    require("logits", 0 < logits.size <= MAX_VOCABULARY, f"must have 1..{MAX_VOCABULARY} entries")
    require("temperature", math.isfinite(temperature) and temperature >= 0, "must be finite and not negative")
    require("top_k", top_k >= 0, "must not be negative")
    require("top_p", 0 < top_p <= 1, "must lie in 0 < top_p <= 1")
    check_draw(seed, position)
    logits = frozen(logits)
    best = _best(logits)
    if best < 0:
        raise KernelInputError("logits are not finite")
    if temperature == 0:
        return int(best)
    most = top_k if 0 < top_k < logits.size else 0
    return int(_draw(logits, best, float(temperature), most, float(top_p), np.uint64(seed), np.uint64(position)))


@kernel
def _best(logits: F32) -> int:
    """The lowest id with the largest logit, or -1 when a logit is not finite."""
    worst, top = np.int32(0), np.int32(-(1 << 31))
    for i in range(logits.size):
        worst = max(worst, magnitude_bits(logits[i]))
        top = max(top, order_bits(logits[i]))
    if worst >= np.int32(0x7F800000):
        return -1
    best = 0
    while order_bits(logits[best]) != top:
        best += 1
    return best


@kernel
def _draw(
    logits: F32, best: int, temperature: float, top_k: int, top_p: float, seed: np.uint64, position: np.uint64
) -> int:
    masses = np.empty(logits.size, np.int64)
    _weigh(logits, logits[best], temperature, masses)
    last_logit, last_id, mass = np.float32(-np.inf), logits.size, 0
    if top_k or top_p < 1.0:
        counts, sums = np.zeros(BUCKETS, np.int64), np.zeros(BUCKETS, np.int64)
        fill_buckets(masses, counts, sums)
        last_logit, last_id, mass = prefix(logits, masses, counts, sums, top_k or logits.size, int(np.int64(_NO_LIMIT)))
        if top_p < 1.0:
            limit = int(np.ceil(top_p * mass))
            last_logit, last_id, mass = prefix(logits, masses, counts, sums, logits.size, limit)
    else:
        mass = int(masses.sum())
    target = min(int(uniform(seed, position) * mass), mass - 1)
    return _find(logits, masses, last_logit, last_id, target)


@inlined
def _weigh(logits: F32, top: np.float32, temperature: float, masses: I64) -> None:
    for i in range(logits.size):
        z = np.float32((np.float64(logits[i]) - np.float64(top)) / temperature)
        masses[i] = np.int64(np.float64(exp_nonpositive(z)) * ONE)


@inlined
def _find(logits: F32, masses: I64, last_logit: np.float32, last_id: int, target: int) -> int:
    """The first kept token, by ascending id, at which the running mass exceeds `target`."""
    mass, found = 0, 0
    for i in range(logits.size):
        if logits[i] > last_logit or (logits[i] == last_logit and i <= last_id):
            mass, found = mass + masses[i], i
            if mass > target:
                break
    return found
