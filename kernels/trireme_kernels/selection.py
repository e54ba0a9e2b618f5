"""Which tokens top-k and top-p keep, without sorting the vocabulary.

Tokens are ranked by logit, highest first, ties by the lower id.  Probabilities are kept as integers ("masses"),
so that sums are exact and their order is free.  Equal or higher logits have equal or higher masses; so buckets of
masses (128 to an octave) are in rank order too:

    bucket   5120  5119  5118 ...            0          counts and masses are added from the top until the
             |top| |   | |   |  cut here     |zero|     bucket that holds the cut; only that one is sorted.
"""

import numpy as np

from trireme_kernels.arrays import F32, I64
from trireme_kernels.half import magnitude_bits, order_bits
from trireme_kernels.jit import inlined, inner

ONE = 1 << 40
"""The mass of the most likely token.  Below 2**-40 of it a token has mass 0 and is never drawn."""
_LOWEST_BITS = 127 << 7
BUCKETS = ((127 + 40 << 7) - _LOWEST_BITS) + 2


@inner
def bucket_of(mass: int) -> int:
    """0 for mass 0; otherwise by the exponent and 7 bits of the mantissa of the mass as a float32."""
    if mass == 0:
        return 0
    return (magnitude_bits(np.float32(mass)) >> 16) - _LOWEST_BITS + 1  # type: ignore[no-any-return]


@inlined
def fill_buckets(masses: I64, counts: I64, sums: I64) -> None:
    """Count the tokens of each bucket and add their masses."""
    for i in range(masses.size):
        bucket = bucket_of(masses[i])
        counts[bucket] += 1
        sums[bucket] += masses[i]


@inner
def prefix(logits: F32, masses: I64, counts: I64, sums: I64, most: int, limit: int) -> tuple[np.float32, int, int]:
    """The shortest prefix of the ranking that has `most` tokens or a mass of at least `limit`.

    Returns the last token's logit and id, and the mass of the prefix.  When only tokens of mass 0 are missing the
    prefix is everything: (-infinity, V, the whole mass).
    """
    taken, mass = 0, 0
    for bucket in range(BUCKETS - 1, 0, -1):
        if taken + counts[bucket] >= most or mass + sums[bucket] >= limit:
            for key in _ranked(logits, masses, bucket, counts[bucket]):
                i = key & 0xFFFFFFFF
                taken, mass = taken + 1, mass + masses[i]
                if taken >= most or mass >= limit:
                    return logits[i], i, mass
        taken, mass = taken + counts[bucket], mass + sums[bucket]
    return np.float32(-np.inf), logits.size, mass


@inner
def _ranked(logits: F32, masses: I64, bucket: int, count: int) -> I64:
    """The tokens of a bucket in rank order, as keys: falling logits in the upper 32 bits, the id in the lower."""
    keys = np.empty(count, np.int64)
    n = 0
    for i in range(masses.size):
        if bucket_of(masses[i]) == bucket:
            keys[n] = -np.int64(order_bits(logits[i])) << 32 | i
            n += 1
    keys.sort()
    return keys
