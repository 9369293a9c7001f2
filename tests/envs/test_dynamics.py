"""The rules: against the slow reference, and each on a world small enough to work out by hand."""

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st

from envs import dynamics
from envs.generator import generate
from envs.types import Action, WorldConfig, WorldState

STAY, NORTH, SOUTH, EAST, WEST = Action


@settings(max_examples=60, deadline=None)
@given(reference.configs(), st.integers(0, 2**32), st.integers(0, 2**32))
def test_vectorised_rules_equal_the_reference_exactly(config, seed, action_seed):
    state = generate(config, [seed, seed + 1])
    generator = np.random.default_rng(action_seed)
    for _ in range(8):
        actions = generator.integers(0, 5, state.is_alive.shape)
        before = [array.copy() for array in state]
        new, result = dynamics.step(config, state, actions)
        expected, gave = reference.step(config, state, actions)
        for name in WorldState._fields:
            got, wanted = getattr(new, name), getattr(expected, name)
            assert got.dtype == wanted.dtype, name
            assert np.array_equal(got, wanted), name
        for (w, i), reward in gave["reward"].items():
            assert result.reward[w, i] == reward
            assert result.is_terminal[w, i] == gave["died"][w, i]
            assert result.ate[w, i] == gave["ate"][w, i]
        assert (result.is_truncated == (expected.step >= config.max_steps)).all()
        assert all(np.array_equal(a, b) for a, b in zip(before, state, strict=True)), "the input was changed"
        state = new


def tiny(positions, food=(), home=(3, 3), energy=10.0, **changes) -> tuple[WorldConfig, WorldState]:
    """Return a 4 x 4 world without rock, its agents and food where given."""
    config = WorldConfig(
        **{"height": 4, "width": 4, "rocks": 0.0, "food": len(food), "food_regrow": 0.0}
        | {"agents": len(positions)}
        | changes
    )
    state = generate(config, [0])
    state.position[0] = positions
    state.home[0] = home
    state.food[:] = False
    for cell in food:
        state.food[0][cell] = True
    state.energy[:] = energy
    return config, state


def test_agents_move_one_cell_and_never_off_the_grid():
    config, state = tiny([(0, 0), (0, 0), (1, 1), (3, 3), (2, 0)])
    new, _ = dynamics.step(config, state, np.array([[NORTH, EAST, SOUTH, SOUTH, WEST]]))
    assert new.position[0].tolist() == [[0, 0], [0, 1], [2, 1], [3, 3], [2, 0]]


def test_rock_stops_agents():
    config, state = tiny([(1, 1)])
    state.rock[0, 0, 1] = True
    new, _ = dynamics.step(config, state, np.array([[NORTH]]))
    assert new.position[0].tolist() == [[1, 1]]
    assert dynamics.legal_actions(state)[0, 0].tolist() == [True, False, True, True, True]


def test_food_goes_to_exactly_one_of_those_who_share_its_cell_and_to_each_in_turn():
    winners = set()
    for seed in range(40):
        config, state = tiny([(1, 1)] * 3, food=[(1, 1)])
        state.seed[0] = seed
        new, result = dynamics.step(config, state, np.array([[STAY] * 3]))
        assert result.ate.sum() == 1
        assert not new.food.any()
        winners.add(int(result.ate.argmax()))
    assert winners == {0, 1, 2}


def test_energy_is_counted_as_eating_up_to_the_cap_less_the_cost_of_living():
    config, state = tiny([(0, 0), (1, 1), (2, 2), (3, 3)], food=[(1, 1), (2, 2)], food_energy=8.0, energy_max=100.0)
    state.energy[0] = [10, 10, 95, 10]
    new, result = dynamics.step(config, state, np.array([[STAY] * 4]))
    assert new.energy[0].tolist() == [9, 17, 99, 9.5]  # nothing; food; food over the cap; at home
    np.testing.assert_allclose(result.reward[0], [-0.02, 0.98, 0.98, -0.02], rtol=1e-6)
    assert new.food_eaten[0].tolist() == [0, 1, 1, 0]


def test_who_has_no_energy_left_dies_once_and_then_does_nothing():
    config, state = tiny([(0, 0), (1, 1)], food=[(0, 1)])
    state.energy[0] = [1, 50]
    dead, result = dynamics.step(config, state, np.array([[STAY, STAY]]))
    assert result.is_terminal[0].tolist() == [True, False]
    np.testing.assert_allclose(result.reward[0], [-1.02, -0.02], rtol=1e-6)
    later, result = dynamics.step(config, dead, np.array([[EAST, WEST]]))
    assert not result.is_terminal.any()
    assert result.reward[0, 0] == 0
    assert later.position[0].tolist() == [[0, 0], [1, 0]]
    assert later.food[0, 0, 1]
    assert later.lifetime[0].tolist() == [1, 2]
    assert later.energy[0, 0] == 0


def test_the_dead_are_not_revived_by_energy_in_a_state_made_by_hand():
    config, state = tiny([(0, 0), (1, 1)], energy=50.0)
    state.is_alive[0, 0] = False
    new, _ = dynamics.step(config, state, np.array([[STAY, STAY]]))
    assert new.is_alive[0].tolist() == [False, True]
    assert new.energy[0].tolist() == [0, 49]


def test_a_meal_in_the_last_moment_saves():
    config, state = tiny([(0, 0)], food=[(0, 1)], energy=1.0)
    new, result = dynamics.step(config, state, np.array([[EAST]]))
    assert new.is_alive.all()
    assert not result.is_terminal.any()


def test_all_worlds_are_truncated_at_the_last_step():
    config, state = tiny([(0, 0)], max_steps=2)
    state, result = dynamics.step(config, state, np.array([[STAY]]))
    assert not result.is_truncated.any()
    _, result = dynamics.step(config, state, np.array([[STAY]]))
    assert result.is_truncated.all()


def test_food_never_exceeds_its_number_and_comes_back_only_on_bare_cells():
    config = WorldConfig(height=6, width=6, agents=6, food=12, food_energy=50.0, max_steps=500)
    state = generate(config, np.arange(8))
    generator = np.random.default_rng(0)
    missing_once = False
    for _ in range(200):
        state, _ = dynamics.step(config, state, generator.integers(0, 5, state.is_alive.shape))
        present = state.food.sum((1, 2))
        assert (present <= config.food).all()
        assert not (state.food & state.rock).any()
        assert not state.food[np.arange(8), state.home[:, 0], state.home[:, 1]].any()
        missing_once |= (present < config.food).any()
    assert missing_once
    assert state.food_eaten.sum() > 500


@pytest.mark.parametrize("chance", [0.0, 0.3, 1.0])
def test_food_regrows_at_the_rate_asked_for(chance):
    config, state = tiny([(0, 0)], food=[(1, 1)], food_regrow=chance, height=16, width=16)
    state = WorldState(*(np.repeat(array, 3000, axis=0) for array in state))
    state.seed[:] = np.arange(3000)
    state.food[:] = False
    new, _ = dynamics.step(config, state, np.zeros((3000, 1), int))
    assert new.food.sum() / 3000 == pytest.approx(chance * 255 / 256, abs=0.03)


@settings(max_examples=25, deadline=None)
@given(reference.configs(), st.integers(0, 2**32))
def test_a_move_is_legal_exactly_where_it_takes_the_agent_elsewhere(config, seed):
    state = generate(config, [seed])
    is_legal = dynamics.legal_actions(state)
    assert is_legal[..., STAY].all()
    for action in (NORTH, SOUTH, EAST, WEST):
        new, _ = dynamics.step(config, state, np.full(state.is_alive.shape, action))
        assert np.array_equal((new.position != state.position).any(-1), is_legal[..., action])
