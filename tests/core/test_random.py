"""Philox against numpy's, and the uniforms' range."""

import numba
import numpy as np
import pytest

from pipeline.core import random
from pipeline.core.vector import load, store

KEY_HEX = "0123456789abcdeffedcba9876543210"
KEY = random.key_from_hex(KEY_HEX)


def test_key_from_hex_takes_the_first_word_first():
    assert [int(word) for word in KEY] == [0x0123456789ABCDEF, 0xFEDCBA9876543210]
    assert KEY.dtype == np.uint64


@pytest.mark.parametrize("text", ["", "12", KEY_HEX + "0"])
def test_key_of_another_length_is_refused(text):
    with pytest.raises(ValueError, match="32 hex digits"):
        random.key_from_hex(text)


@pytest.mark.parametrize("key", [[0, 0], [2**64 - 1, 1], [2**63, 2**64 - 1], KEY])
@pytest.mark.parametrize(("replicate", "start"), [(0, 0), (3, 5), (2**40, 2**64 - 1)])
def test_words_equal_numpy(key, replicate, start):
    key = np.array(key, np.uint64)
    counter = np.array([0, start, replicate, 0], np.uint64)
    expected = np.random.Philox(key=key, counter=counter).random_raw(12)
    blocks = [
        random.words(key[0], key[1], np.uint64(block), np.uint64(start), np.uint64(replicate))
        for block in (1, 2, 3)
    ]
    assert [int(word) for block in blocks for word in block] == expected.tolist()


@pytest.mark.parametrize("count", [0, 1, 3, 4, 9])
def test_uniforms_are_the_upper_bits_of_the_words(count):
    streams = np.array([[0, 0], [7, 2], [2**33, 1]], np.uint64)
    expected = [
        np.random.Philox(key=KEY, counter=[0, int(start), int(replicate), 0]).random_raw(count)
        for replicate, start in streams
    ]
    expected = ((np.array(expected, np.uint64) >> np.uint64(12)) + 0.5) / 2.0**52
    np.testing.assert_array_equal(random.uniforms(KEY, streams, count), expected)


def test_uniform_excludes_both_ends_and_is_symmetric():
    lowest, highest = random.uniform(np.uint64(0)), random.uniform(np.uint64(2**64 - 1))
    assert 0 < lowest < 2.0**-52
    assert highest == 1 - lowest < 1


@numba.njit
def fill_lanes(words, out):
    store(out, 0, random.lane_uniforms(load(words, 0)))


def test_uniforms_of_eight_words_are_those_of_each():
    words = np.random.Philox(key=KEY).random_raw(8)
    words[:4] = 0, 1 << 12, 2**64 - 1, 2**64 - 2**12
    out = np.empty(8)
    fill_lanes(words, out)
    np.testing.assert_array_equal(out, [random.uniform(word) for word in words])
