"""The sums of one tile of 32 rows for up to 6 tokens: the loop in which a model spends its time.

    sums[t, r] = sum over k of (w[r, k] + 1) * q[t, k]                 exact int32, so every way below gives the same

Activations of a group of T tokens lie interleaved by four bytes, as a register tile reads them (`groups.py`):

    x:  | q[0, 0..3] | q[1, 0..3] | ... | q[T-1, 0..3] | q[0, 4..7] | q[1, 4..7] | ...      4T bytes for four columns

Three forms, by the number of tokens; all read a block of 128 bytes, split it into fields and multiply.

    one     fields stay where they are in the byte (0xC0 counts 64 times), each with sums of its own that are shifted
            once at the end: the fewest instructions, to keep up with the memory
            (where products of large bytes are exact, `ISA.any_bytes`)
    few     two sets of sums, fields 1 and 3 counting 4 times: one shift for four fields, and chains that hide the
            latency of a dot product; 6 tokens fill the 32 registers of AVX-512
    many    one set, fields shifted down, for CPUs with fewer registers

Weights are asked for 8 KiB ahead, across the end of a tile, because tiles are read one after the other.
"""

from collections.abc import Callable
from typing import TypeAlias

from trireme_kernels.arrays import I8, I32, U8
from trireme_kernels.decode import INVERSE_81, fields_of, modulo_81
from trireme_kernels.isa import ISA
from trireme_kernels.jit import inlined, inner
from trireme_kernels.simd import Tile, load_u8, merge, outer, prefetch, scale_tile, store_tile, tile

AHEAD = 8192
"""Bytes between a load and the prefetch beside it."""

Form: TypeAlias = Callable[[Tile, U8, int, int, I8, int, I32], None]
"""(zeros, w, p, blocks, x, q, sums): the tile that begins at w[p] times the group that begins at x[q].

The number of tokens is half the length of `zeros`; sums int32[T * 32] is written.
"""


def _one(digits: int) -> Form:
    @inner
    def one(zeros: Tile, w: U8, p: int, blocks: int, x: I8, q: int, sums: I32) -> None:
        f0, f1, f2, f3, f4 = zeros, zeros, zeros, zeros, zeros
        for _ in range(blocks):
            prefetch(w, p + AHEAD)
            prefetch(w, p + AHEAD + 64)
            u, v = load_u8(w, p), load_u8(w, p + 64)
            if digits == 5:
                r, s = modulo_81(u), modulo_81(v)
                f4 = outer(f4, (u - r, v - s), x, q + 16)
                u, v = fields_of(r), fields_of(s)
            f0 = outer(f0, (u & 0x03, v & 0x03), x, q)
            f1 = outer(f1, (u & 0x0C, v & 0x0C), x, q + 4)
            f2 = outer(f2, (u & 0x30, v & 0x30), x, q + 8)
            f3 = outer(f3, (u & 0xC0, v & 0xC0), x, q + 12)
            p += 128
            q += 4 * digits
        total = merge(merge(merge(f0, f1, 2), f2, 4), f3, 6)
        if digits == 5:
            total = merge(total, scale_tile(f4, INVERSE_81), 0)
        store_tile(sums, 0, total)

    return one


def _few(digits: int) -> Form:
    @inner
    def few(zeros: Tile, w: U8, p: int, blocks: int, x: I8, q: int, sums: I32) -> None:
        step = 2 * len(zeros)  # bytes of the group for four columns
        even, odd = zeros, zeros
        for _ in range(blocks):
            prefetch(w, p + AHEAD)
            prefetch(w, p + AHEAD + 64)
            u, v = load_u8(w, p), load_u8(w, p + 64)
            if digits == 5:
                r, s = modulo_81(u), modulo_81(v)
                even = outer(even, ((u - r) & 3, (v - s) & 3), x, q + 4 * step)
                u, v = fields_of(r), fields_of(s)
            even = outer(even, (u & 0x03, v & 0x03), x, q)
            odd = outer(odd, (u & 0x0C, v & 0x0C), x, q + step)
            u, v = u >> 4, v >> 4
            even = outer(even, (u & 0x03, v & 0x03), x, q + 2 * step)
            odd = outer(odd, (u & 0x0C, v & 0x0C), x, q + 3 * step)
            p += 128
            q += digits * step
        store_tile(sums, 0, merge(even, odd, 2))

    return few


def _many(digits: int) -> Form:
    @inner
    def many(zeros: Tile, w: U8, p: int, blocks: int, x: I8, q: int, sums: I32) -> None:
        step = 2 * len(zeros)
        total = zeros
        for _ in range(blocks):
            prefetch(w, p + AHEAD)
            prefetch(w, p + AHEAD + 64)
            u, v = load_u8(w, p), load_u8(w, p + 64)
            if digits == 5:
                r, s = modulo_81(u), modulo_81(v)
                total = outer(total, ((u - r) & 3, (v - s) & 3), x, q + 4 * step)
                u, v = fields_of(r), fields_of(s)
            total = outer(total, (u & 3, v & 3), x, q)
            total = outer(total, (u >> 2 & 3, v >> 2 & 3), x, q + step)
            total = outer(total, (u >> 4 & 3, v >> 4 & 3), x, q + 2 * step)
            total = outer(total, (u >> 6, v >> 6), x, q + 3 * step)
            p += 128
            q += digits * step
        store_tile(sums, 0, total)

    return many


def _tile_sums(digits: int) -> Callable[[U8, int, int, I8, int, int, I32], None]:
    few, many = _few(digits), _many(digits)
    one = _one(digits) if ISA.any_bytes else few

    @inlined
    def wide(w: U8, p: int, blocks: int, x: I8, q: int, tokens: int, sums: I32) -> None:
        if tokens == 1:
            one(tile(2), w, p, blocks, x, q, sums)
        elif tokens == 2:
            few(tile(4), w, p, blocks, x, q, sums)
        elif tokens == 3:
            few(tile(6), w, p, blocks, x, q, sums)
        elif tokens == 4:
            few(tile(8), w, p, blocks, x, q, sums)
        elif tokens == 5:
            few(tile(10), w, p, blocks, x, q, sums)
        else:
            few(tile(12), w, p, blocks, x, q, sums)

    @inlined
    def narrow(w: U8, p: int, blocks: int, x: I8, q: int, tokens: int, sums: I32) -> None:
        if tokens == 1:
            many(tile(2), w, p, blocks, x, q, sums)
        else:
            many(tile(4), w, p, blocks, x, q, sums)

    return wide if ISA.tokens == 6 else narrow


tile_sums_2bit, tile_sums_base3 = _tile_sums(4), _tile_sums(5)
"""(w, p, blocks, x, q, tokens, sums): one tile of the 2-bit or the 1.6-bit layout for 1..ISA.tokens tokens."""
