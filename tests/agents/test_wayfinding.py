"""A wave of bits finds what a wave of cells finds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.codecs.wayfinding import NO_WAY, as_bits, steps_by_move
from envs.paths import UNREACHED, distances
from envs.types import MOVES


def test_a_cell_is_a_bit():
    plane = np.zeros((2, 3, 3), bool)
    plane[0, 1, 2] = plane[1, 0, 0] = plane[1, 0, 1] = True
    assert as_bits(plane).tolist() == [[0, 4, 0], [3, 0, 0]]
    assert as_bits(np.ones((1, 31, 31), bool)).tolist() == [[2**31 - 1] * 31]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([3, 9, 31]), st.floats(0, 0.6), st.floats(0, 0.1))
def test_steps_are_those_of_the_world_s_own_paths(seed, side, rocks, goals):
    rng = np.random.default_rng(seed)
    is_free, goal = rng.random((5, side, side)) >= rocks, rng.random((5, side, side)) < goals
    is_free[:, side // 2, side // 2] = True
    found = steps_by_move(as_bits(is_free), as_bits(goal), most=NO_WAY - 2)
    whole = distances(is_free, goal).astype(int)
    for number, (down, right) in enumerate(MOVES):
        after = whole[:, side // 2 + down, side // 2 + right]
        expected = np.where(after == UNREACHED, NO_WAY, after + (number > 0))
        assert np.array_equal(found[:, number], np.minimum(expected, NO_WAY))


@pytest.mark.parametrize(("most", "steps"), [(4, NO_WAY), (5, 5), (40, 5)])
def test_what_is_too_far_is_not_found(most, steps):
    goal = np.zeros((1, 31, 31), bool)
    goal[0, 15, 20] = True
    assert steps_by_move(as_bits(np.ones_like(goal)), as_bits(goal), most)[0, 0] == steps
