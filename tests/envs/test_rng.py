"""The random numbers are uniform, independent across every argument, and fixed for ever."""

import numpy as np
import pytest

from envs import rng


def test_the_numbers_are_pinned():
    # Computed by hand from SplitMix64; a change here changes every world ever made
    assert int(rng.bits(0, 0, 0, 0)) == splitmix(splitmix(0, 0), 0)
    assert int(rng.bits(7, 3, 11, 5)) == splitmix(splitmix(7, 11 * 256 + 3), 5)


def splitmix(start: int, number: int) -> int:
    """Return an output of SplitMix64, in Python's integers."""
    limit = 2**64
    z = (start + (number + 1) * 0x9E3779B97F4A7C15) % limit
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % limit
    z = (z ^ z >> 27) * 0x94D049BB133111EB % limit
    return z ^ z >> 31


def test_splitmix64_gives_its_published_first_output():
    assert splitmix(0, 0) == 0xE220A8397B1DCDAF


@pytest.mark.parametrize("axis", ["seed", "stream", "counter", "index"])
def test_numbers_along_any_argument_are_uniform_and_uncorrelated(axis):
    count = 256 if axis == "stream" else 40_000
    sample = np.concatenate(
        [
            rng.uniform(**{"seed": 5, "stream": 1, "counter": 9, "index": offset} | {axis: line(axis, count)})
            for offset in range(40_000 // count)
        ]
    )
    assert sample.min() >= 0
    assert sample.max() < 1
    observed = np.histogram(sample, 100, (0, 1))[0]
    expected = len(sample) / 100
    chi_square = ((observed - expected) ** 2 / expected).sum()
    assert 45 < chi_square < 170  # 99 degrees of freedom; passes by chance all but once in 10,000
    for lag in (1, 2, 7):
        assert abs(np.corrcoef(sample[:-lag], sample[lag:])[0, 1]) < 0.025


def line(axis: str, count: int) -> np.ndarray:
    """Return the values an argument takes."""
    return np.arange(count, dtype=np.uint64)


def test_every_bit_is_set_half_the_time():
    words = rng.bits(np.arange(20_000), 2, 3, 4)
    share = (words[:, None] >> np.arange(64, dtype=np.uint64) & np.uint64(1)).mean(0)
    assert abs(share - 0.5).max() < 0.02


def test_neighbouring_seeds_give_independent_numbers():
    table = rng.uniform(np.arange(50)[:, None], 0, 0, np.arange(2000))
    correlation = np.corrcoef(table) - np.eye(50)
    assert abs(correlation).max() < 0.12


def test_a_number_does_not_depend_on_the_batch_it_is_drawn_in():
    table = rng.bits(np.arange(3)[:, None], 4, np.array([[5], [6], [7]]), np.arange(4))
    assert table[2, 3] == rng.bits(2, 4, 7, 3)


def test_below_stays_below_and_reaches_every_value():
    for bound in (1, 2, 3, 400):
        drawn = rng.below(bound, 0, 0, 0, np.arange(20_000))
        assert set(drawn.tolist()) == set(range(bound))
