"""Random numbers without a generator: each is a pure function of (seed, stream, counter, index).

Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3" (counter-based generators); the
mixer is SplitMix64 (Steele et al. 2014, "Fast splittable pseudorandom number generators").

So nothing is hidden in a state that would have to be saved, worlds of a batch never influence each other,
and how many numbers one rule draws never shifts the numbers of another. Not for cryptography.
"""

from enum import IntEnum

import numpy as np
from numpy.typing import ArrayLike


class Stream(IntEnum):
    """What a random number is for. Append only: a changed value changes every world."""

    ROCK = 0
    HOME = 1
    FOOD = 2
    BIRTH = 3
    EAT = 4
    CAST = 5
    SPROUT = 6
    WALL = 7
    PATCH = 8
    NEWBORN = 9


_STREAMS = np.uint64(256)  # room for that many values of Stream
_ONE = np.uint64(1)
_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_FACTORS = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_SHIFTS = np.uint64(30), np.uint64(27), np.uint64(31)


def bits(seed: ArrayLike, stream: ArrayLike, counter: ArrayLike, index: ArrayLike) -> np.ndarray:
    """Return 64 random bits (uint64) per element; the arguments, all >= 0, broadcast.

    The key (counter, stream) picks one output of the SplitMix64 started at `seed`, and `index` one output of
    the SplitMix64 started at that. So what does not depend on `index` is mixed at its own, smaller shape.
    """
    with np.errstate(over="ignore"):  # wrapping modulo 2**64 is meant; only NumPy scalars would warn
        key = np.asarray(counter, np.uint64) * _STREAMS + np.asarray(stream, np.uint64)
        return _output(_output(np.asarray(seed, np.uint64), key), np.asarray(index, np.uint64))


def uniform(seed: ArrayLike, stream: ArrayLike, counter: ArrayLike, index: ArrayLike) -> np.ndarray:
    """Return float64 in [0, 1), with 53 random bits each; the arguments as in `bits`."""
    return (bits(seed, stream, counter, index) >> np.uint64(11)) * 2.0**-53


def below(bound: ArrayLike, seed: ArrayLike, stream: ArrayLike, counter: ArrayLike, index: ArrayLike) -> np.ndarray:
    """Return int64 in [0, bound); `bound` broadcasts, the other arguments as in `bits`."""
    return (uniform(seed, stream, counter, index) * bound).astype(np.int64)


def _output(start: np.ndarray, number: np.ndarray) -> np.ndarray:
    word = start + (number + _ONE) * _GAMMA
    word ^= word >> _SHIFTS[0]
    word *= _FACTORS[0]
    word ^= word >> _SHIFTS[1]
    word *= _FACTORS[1]
    word ^= word >> _SHIFTS[2]
    return word
