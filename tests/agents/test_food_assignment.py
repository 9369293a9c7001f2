"""Two who see each other do not go to the same food, though neither asks the other."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.codecs.food_assignment import food_for_others, others_are_nearer
from envs import ForageBatch, WorldConfig
from envs.bots.planner import match
from envs.observe import observe, unpack


def drawn(*rows: str) -> np.ndarray:
    return np.array([[list(row) for row in rows]])


def theirs(*rows: str) -> list[list[int]]:
    """Where food is another's, in a view drawn with o for others, f for food, b for both."""
    view = drawn(*rows)
    return np.argwhere(food_for_others(np.isin(view, ["o", "b"]), np.isin(view, ["f", "b"]))[0]).tolist()


def test_alone_all_food_is_ones_own():
    assert theirs("f.f", "...", "f.f") == []


def test_food_is_theirs_who_are_nearer():
    assert theirs(".....", ".....", "of...", ".....", ".....") == [[2, 1]]
    assert theirs(".....", ".....", "o..f.", ".....", ".....") == []


def test_whoever_is_served_leaves_the_rest_to_others():
    assert theirs(".....", ".....", "of.f.", ".....", ".....") == [[2, 1]]
    assert theirs(".....", "f....", "of...", ".....", ".....") == [[1, 0]], (
        "as near, but further north: then mine is east"
    )


def test_of_two_as_near_the_one_further_north_then_west_goes():
    assert theirs("o.f", "...", "...") == [[0, 2]]
    assert theirs("...", ".f.", "...") == []
    assert theirs(".....", "...o.", "...f.", ".....", ".....") == [[2, 3]]
    assert theirs(".....", ".....", "...f.", "...o.", ".....") == []


def test_who_shares_a_cell_has_two_to_choose_from():
    assert theirs("...", "fof", "...") == []
    assert theirs(".....", "..o..", "ffo.f", ".....", ".....") == [[2, 4]]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 0.4), st.floats(0, 0.4))
def test_it_is_the_greedy_matching_of_the_planner(seed, crowd, plenty):
    rng = np.random.default_rng(seed)
    others, food = rng.random((6, 5, 5)) < crowd, rng.random((6, 5, 5)) < plenty
    others[:, 2, 2] = False
    for one, (other, items) in zip(food_for_others(others, food), zip(others, food, strict=True), strict=True):
        walkers, foods = np.argwhere(other | (np.indices((5, 5)) == 2).all(0)), np.argwhere(items)
        steps = np.abs(walkers[:, None] - foods).sum(-1).astype(np.uint16)
        rows, columns = match(steps) if steps.size else ((), ())
        expected = np.zeros((5, 5), bool)
        for row, column in zip(rows, columns, strict=True):
            expected[tuple(foods[column])] = tuple(walkers[row]) != (2, 2)
        assert np.array_equal(one, expected)


def test_two_alone_in_sight_of_each_other_never_want_the_same():
    config = WorldConfig(agents=2, height=7, width=7, rocks=0.0, food=0, patches=0, view_radius=5)
    world, rng = ForageBatch(config), np.random.default_rng(0)
    world.reset([0])
    for _ in range(100):
        state = world.state()
        cells = rng.permutation(49)[:8]
        state.rock[:] = state.food[:] = False
        state.food[0].flat[cells[2:]] = True
        state.position[0] = np.stack(np.divmod(cells[:2], 7), axis=1)
        if np.abs(state.position[0, 0] - state.position[0, 1]).max() > 5:
            continue
        seen = unpack(observe(config, world.set_state(state) is not None and world.state())[0], 5)
        left = seen.food & ~food_for_others(seen.kin, seen.food)
        side = np.arange(-5, 6)
        far = np.where(left, np.abs(side)[:, None] + np.abs(side), 99).reshape(2, -1)
        goals = [tuple(state.position[0, n] + np.subtract(divmod(int(far[n].argmin()), 11), 5)) for n in range(2)]
        assert goals[0] != goals[1]


@pytest.mark.parametrize(("view", "side"), [(3, 3), (5, 9), (7, 31)])
def test_a_place_is_another_s_where_it_has_fewer_steps(view, side):
    rng = np.random.default_rng(view)
    others = rng.random((8, view, view)) < 0.15
    cells = np.argwhere(np.ones((side, side)))
    for one, seen in zip(others_are_nearer(others, side), others, strict=True):
        places = np.argwhere(seen) + (side - view) // 2
        own = np.abs(cells - side // 2).sum(1)
        near = np.abs(cells[:, None] - places).sum(-1).min(axis=1, initial=99)
        assert np.array_equal(one, (near < own).reshape(side, side))
