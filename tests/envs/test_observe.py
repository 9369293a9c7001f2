"""What agents see is what is there, no more, and in its documented place."""

from dataclasses import replace

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from reference import PLAIN

from envs import dynamics
from envs.generator import generate
from envs.observe import legal_from, observation_size, observe, unpack

OPEN = replace(PLAIN, rocks=0.0, agents=4)
PAIRS = replace(OPEN, populations=2)  # agents 0 and 1 against 2 and 3


@reference.worlds
@given(reference.configs(), st.integers(0, 2**32), st.integers(0, 20))
def test_observations_equal_the_reference_for_the_living_and_the_dead(config, seed, now):
    state = reference.begin(config, [seed, seed + 1])
    generator = np.random.default_rng(seed)
    state.step[:] = now, 3
    state.is_alive[:] = generator.random(state.is_alive.shape) < 0.7
    state.position[:, 1::2] = state.position[:, :1]  # half of all on one cell
    seen = observe(config, state)
    assert seen.dtype == np.float32
    assert seen.shape == (2, config.agents, observation_size(config.view_radius))
    assert seen.min() >= 0
    assert seen.max() <= 1
    for w in range(2):
        for i in range(config.agents):
            np.testing.assert_allclose(seen[w, i], reference.observe(config, state, w, i), rtol=1e-6)


@reference.worlds
@given(reference.configs(), st.integers(0, 2**32))
def test_unpacked_parts_are_those_of_the_reference(config, seed):
    state = reference.begin(config, [seed])
    side = 2 * config.view_radius + 1
    view = unpack(observe(config, state), config.view_radius)
    for i in range(config.agents):
        wanted = np.array(reference.observe(config, state, 0, i))
        planes = wanted[: 5 * side**2].reshape(5, side, side)
        for plane, name in zip(planes, ("rock", "food", "home", "kin", "rivals"), strict=True):
            assert np.array_equal(getattr(view, name)[0, i], plane), name
        numbers = [view.energy[0, i], view.time_left[0, i], view.is_night[0, i], view.phase_left[0, i]]
        np.testing.assert_allclose(numbers, wanted[5 * side**2 :], rtol=1e-6)
    assert view.is_night.dtype == bool


@reference.worlds
@given(reference.configs(), st.integers(0, 2**32))
def test_legal_actions_can_be_told_from_the_observation_alone(config, seed):
    state = reference.begin(config, [seed, seed + 1])
    mask = legal_from(observe(config, state), config.view_radius)
    assert np.array_equal(mask, dynamics.legal_actions(state))


def test_unpack_works_on_any_batch_shape_and_names_the_parts():
    config = replace(PLAIN, view_radius=2)
    observation = observe(config, generate(config, [0, 1, 2]))
    whole = unpack(observation, 2)
    one = unpack(observation[1, 4], 2)
    assert whole.rock.shape == (3, 20, 5, 5)
    assert one.rock.shape == (5, 5)
    for part, of_one in zip(whole, one, strict=True):
        assert np.array_equal(part[1, 4], of_one)
    assert one.energy == np.float32(0.8)
    assert one.time_left == 1


def test_unpack_refuses_an_observation_of_another_radius():
    with pytest.raises(ValueError, match=r"shape \(249,\): its last axis must be 129 for view_radius = 2"):
        unpack(np.zeros(249, np.float32), 2)


def test_north_is_up_and_east_is_right_in_the_view():
    config = replace(OPEN, agents=1, food=2)
    state = generate(config, [0])
    state.position[:] = 10, 10
    state.food[:] = False
    state.food[0, 8, 10] = state.food[0, 10, 13] = True
    food = unpack(observe(config, state), 3).food[0, 0]
    assert np.argwhere(food).tolist() == [[1, 3], [3, 6]]


def test_an_agent_sees_others_but_never_itself_nor_the_dead():
    state = generate(OPEN, [0])
    state.position[0] = [(5, 5), (5, 5), (5, 6), (15, 15)]
    kin = unpack(observe(OPEN, state), 3).kin[0]
    assert kin[[0, 1, 0, 2], 3, [3, 3, 4, 2]].all()
    assert not kin[2, 3, 3]
    assert not kin[3].any()
    state.is_alive[0, 1:] = False
    kin = unpack(observe(OPEN, state), 3).kin[0]
    assert not kin[0].any()
    assert kin[1, 3, 3]


def test_an_agent_tells_kin_from_rivals_and_sees_both_on_one_cell():
    state = generate(PAIRS, [0])
    state.position[0] = [(5, 5), (5, 7), (5, 7), (4, 5)]
    view = unpack(observe(PAIRS, state), 3)
    where = [[np.argwhere(plane[0, i]).tolist() for plane in (view.kin, view.rivals)] for i in range(4)]
    assert where == [
        [[[3, 5]], [[2, 3], [3, 5]]],
        [[[3, 1]], [[2, 1], [3, 3]]],
        [[[2, 1]], [[3, 1], [3, 3]]],
        [[[4, 5]], [[4, 3], [4, 5]]],
    ]
    state.is_alive[0, 2] = False
    rivals = unpack(observe(PAIRS, state), 3).rivals[0]
    assert np.argwhere(rivals[0]).tolist() == [[2, 3]]
    assert np.argwhere(rivals[2]).tolist() == [[3, 1], [3, 3]]  # the dead see, but are not seen


def test_an_agent_sees_its_own_home_and_not_that_of_rivals():
    state = generate(PAIRS, [0])
    state.home[0] = [(5, 5), (5, 6)]
    state.position[0] = 5, 4
    home = unpack(observe(PAIRS, state), 3).home[0]
    assert [np.argwhere(plane).tolist() for plane in home] == [[[3, 4]]] * 2 + [[[3, 5]]] * 2


def test_an_agent_is_told_the_time_of_its_day_and_its_night():
    config = replace(OPEN, day_length=3, night_length=2, max_steps=8)
    state = generate(config, [0])
    told = []
    for now in range(10):
        view = unpack(observe(config, state._replace(step=np.array([now], np.int32))), 3)
        told.append((bool(view.is_night[0, 0]), round(float(view.phase_left[0, 0]), 2), float(view.time_left[0, 0])))
    left = [1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125, 0, 0]  # a world past its end has no time left, never less
    day = [(False, 1.0), (False, 0.67), (False, 0.33), (True, 1.0), (True, 0.5)]
    assert told == [(*phase, share) for phase, share in zip(day * 2, left, strict=True)]


def test_without_nights_the_day_never_nears_its_end():
    config = replace(OPEN, day_length=3, night_length=0)
    state = generate(config, np.arange(7))
    view = unpack(observe(config, state._replace(step=np.arange(7, dtype=np.int32))), 3)
    assert (view.phase_left == 1).all()
    assert not view.is_night.any()


def test_observations_do_not_share_memory_with_the_state_or_each_other():
    state = generate(PLAIN, [0])
    first, second = observe(PLAIN, state), observe(PLAIN, state)
    kept = first.copy()
    second[:] = 7
    assert np.array_equal(first, kept)
    assert not any(np.shares_memory(first, array) for array in state)
