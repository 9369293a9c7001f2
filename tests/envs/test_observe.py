"""What agents see is what is there, no more, and in its documented place."""

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st

from envs import dynamics
from envs.generator import generate
from envs.observe import legal_from, observation_size, observe, unpack
from envs.types import WorldConfig


@settings(max_examples=40, deadline=None)
@given(reference.configs(), st.integers(0, 2**32))
def test_observations_equal_the_reference_for_the_living_and_the_dead(config, seed):
    state = generate(config, [seed, seed + 1])
    generator = np.random.default_rng(seed)
    for _ in range(4):
        seen = observe(config, state)
        assert seen.dtype == np.float32
        assert seen.shape == (2, config.agents, observation_size(config.view_radius))
        for w in range(2):
            for i in range(config.agents):
                np.testing.assert_allclose(seen[w, i], reference.observe(config, state, w, i), rtol=1e-6)
        state, _ = dynamics.step(config, state, generator.integers(0, 5, state.is_alive.shape))


@settings(max_examples=25, deadline=None)
@given(reference.configs(), st.integers(0, 2**32))
def test_legal_actions_can_be_told_from_the_observation_alone(config, seed):
    state = generate(config, [seed, seed + 1])
    mask = legal_from(observe(config, state), config.view_radius)
    assert np.array_equal(mask, dynamics.legal_actions(state))


def test_unpack_works_on_any_batch_shape_and_names_the_parts():
    config = WorldConfig(view_radius=2)
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
    with pytest.raises(ValueError, match=r"must be 102 for view_radius = 2"):
        unpack(np.zeros(198, np.float32), 2)


def test_north_is_up_and_east_is_right_in_the_view():
    config = WorldConfig(rocks=0.0, agents=1, food=2)
    state = generate(config, [0])
    state.position[:] = 10, 10
    state.food[:] = False
    state.food[0, 8, 10] = state.food[0, 10, 13] = True
    food = unpack(observe(config, state), 3).food[0, 0]
    assert np.argwhere(food).tolist() == [[1, 3], [3, 6]]


def test_an_agent_sees_others_but_never_itself_nor_the_dead():
    config = WorldConfig(rocks=0.0, agents=3)
    state = generate(config, [0])
    state.position[0] = [(5, 5), (5, 5), (5, 6)]
    others = unpack(observe(config, state), 3).others[0]
    assert others[[0, 1, 0, 2], 3, [3, 3, 4, 2]].all()
    assert not others[2, 3, 3]
    state.is_alive[0, 1:] = False
    others = unpack(observe(config, state), 3).others[0]
    assert not others[0].any()
    assert others[1, 3, 3]


def test_observations_do_not_share_memory_with_the_state_or_each_other():
    config = WorldConfig()
    state = generate(config, [0])
    first, second = observe(config, state), observe(config, state)
    kept = first.copy()
    second[:] = 7
    assert np.array_equal(first, kept)
    assert not any(np.shares_memory(first, array) for array in state)
