"""Random numbers by position: any number of any stream without the ones before it.

Philox4x64-10 (Salmon, Moraes, Dror & Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3"). The
words of the stream (replicate, start) under a key are, bit for bit, those of
``numpy.random.Philox(key=key, counter=[0, start, replicate, 0]).random_raw()``: the 256-bit counter
holds, lowest word first, (block index from 1, start, replicate, 0), and each block is four words.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numpy.typing import NDArray

from pipeline.core.compilation import compiled
from pipeline.core.vector import operation, splat, upper_bits

MULTIPLIER_0 = np.uint64(0xD2E7470EE14C6C93)
MULTIPLIER_1 = np.uint64(0xCA5A826395121157)
WEYL_0 = np.uint64(0x9E3779B97F4A7C15)
WEYL_1 = np.uint64(0xBB67AE8584CAA73B)
ROUNDS = 10
WORDS_PER_BLOCK = 4

SPARE_BITS = np.uint64(12)


@operation
def product(context, a, b):
    """Return the upper and the lower 64 bits of the product of two uint64: one instruction."""

    def codegen(context, builder, signature, values):
        wide = ir.IntType(128)
        whole = builder.mul(*(builder.zext(value, wide) for value in values))
        upper = builder.lshr(whole, ir.Constant(wide, 64))
        halves = [builder.trunc(half, ir.IntType(64)) for half in (upper, whole)]
        return context.make_tuple(builder, signature.return_type, halves)

    return types.UniTuple(types.uint64, 2)(types.uint64, types.uint64), codegen


@compiled
def words(key_0, key_1, block, start, replicate):
    """Return the four uint64 words of one block; every argument is a uint64 and block >= 1."""
    a, b, c, d = block, start, replicate, np.uint64(0)
    for _ in range(ROUNDS):
        upper_0, lower_0 = product(MULTIPLIER_0, a)
        upper_1, lower_1 = product(MULTIPLIER_1, c)
        a, b, c, d = upper_1 ^ b ^ key_0, lower_1, upper_0 ^ d ^ key_1, lower_0
        key_0 += WEYL_0
        key_1 += WEYL_1
    return a, b, c, d


@compiled
def uniform(word):
    """Return (j + 1/2) / 2^52 for the word's upper 52 bits j: exact, symmetric, never 0 or 1.

    With 53 bits the 1/2 would be rounded, and the largest value would be 1.
    """
    return (np.float64(word >> SPARE_BITS) + 0.5) * 2.0**-52


@compiled
def lane_uniforms(words):
    """Return ``uniform`` of the eight words whose bits are a vector's (``load`` from an array)."""
    return upper_bits(words) - splat(1.0 - 2.0**-53)


@compiled
def fill_uniforms(key, stream, out):
    """Fill ``out`` (count,) with the first uniforms of one stream (replicate, start)."""
    for first in range(0, out.size, WORDS_PER_BLOCK):
        block = words(key[0], key[1], np.uint64(first // WORDS_PER_BLOCK + 1), stream[1], stream[0])
        for j in range(min(WORDS_PER_BLOCK, out.size - first)):
            out[first + j] = uniform(block[j])


@compiled
def _uniforms(key, streams, count):
    out = np.empty((streams.shape[0], count))
    for row in range(streams.shape[0]):
        fill_uniforms(key, streams[row], out[row])
    return out


def uniforms(key: NDArray[np.uint64], streams: NDArray[np.uint64], count: int) -> NDArray:
    """Return uniform numbers in the open interval (0, 1), shape (n_streams, count).

    Parameters
    ----------
    key : uint64, shape (2,)
    streams : uint64, shape (n_streams, 2)
        (replicate, start) of each stream; a row of the result depends on the key and its own
        stream only.
    count : int
        How many numbers of each stream, from its beginning.
    """
    return _uniforms(np.asarray(key, np.uint64), np.asarray(streams, np.uint64), count)


def key_from_hex(text: str) -> NDArray[np.uint64]:
    """Return the Philox key, uint64 (2,), that 32 hexadecimal digits spell (first word first)."""
    if len(text) != 32:
        raise ValueError(f"key: got {len(text)} characters ({text!r}), needs 32 hex digits")
    return np.array([int(text[:16], 16), int(text[16:], 16)], dtype=np.uint64)
