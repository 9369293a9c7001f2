"""The rules: against the slow reference, and each on a world small enough to work out by hand."""

from dataclasses import replace

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st

from envs import dynamics
from envs.generator import generate, give_birth
from envs.observe import observe
from envs.types import Action, WorldConfig, WorldState

STAY, NORTH, SOUTH, EAST, WEST = Action


def assert_same(got: WorldState, wanted: WorldState) -> None:
    """Every array of two states is the same, dtype and all."""
    for name in WorldState._fields:
        a, b = getattr(got, name), getattr(wanted, name)
        assert a.dtype == b.dtype, name
        assert np.array_equal(a, b), name


@reference.worlds
@given(
    reference.configs(),
    st.lists(st.integers(0, 2**53 - 1), min_size=1, max_size=3),
    st.integers(0, 9),
    st.booleans(),
    st.integers(0, 2**32),
)
def test_the_world_equals_the_reference_exactly(config, seeds, start, is_crowded, luck):
    state = reference.begin(config, seeds)
    generator = np.random.default_rng(luck)
    state.step[:] = start + np.arange(len(seeds))  # each world at another time of its day
    if is_crowded:  # everyone on one cell
        state.position[:] = state.home[:, :1]
    for _ in range(7):
        actions = generator.integers(0, 5, state.is_alive.shape) * (generator.random() < 0.8)  # or all stay
        before = [array.copy() for array in state]
        new, result = dynamics.step(config, state, actions)
        expected, gave = reference.step(config, state, actions)
        assert_same(new, expected)
        for (w, i), reward in gave["reward"].items():
            assert result.reward[w, i] == reward
            assert result.is_terminal[w, i] == gave["died"][w, i]
            assert result.ate[w, i] == gave["ate"][w, i]
        assert (result.is_truncated == (expected.step >= config.max_steps)).all()
        is_born = ~new.is_alive & (generator.random(new.is_alive.shape) < 0.3)
        is_born |= generator.random(new.is_alive.shape) < 0.05  # in the place of a living one
        newer = give_birth(config, new, is_born)
        assert_same(newer, reference.give_birth(config, new, is_born))
        assert_same(new, expected)  # births wrote to a state of their own
        assert all(np.array_equal(a, b) for a, b in zip(before, state, strict=True)), "the input was changed"
        _assert_seen(config, newer)
        state = newer


def _assert_seen(config: WorldConfig, state: WorldState) -> None:
    # All agents' observations and legal actions, those of the dead too
    seen, is_legal = observe(config, state), dynamics.legal_actions(state)
    for w, i in np.ndindex(state.is_alive.shape):
        np.testing.assert_allclose(seen[w, i], reference.observe(config, state, w, i), rtol=1e-6)
        assert is_legal[w, i].tolist() == [reference.is_legal(state, w, i, action) for action in range(5)]


def tiny(positions, food=(), home=(3, 3), energy=10.0, **changes) -> tuple[WorldConfig, WorldState]:
    """Return a 4 x 4 world without rock, its agents and food where given; home: one, or one for each population."""
    config = WorldConfig(
        **{
            "height": 4,
            "width": 4,
            "rocks": 0.0,
            "food": len(food),
            "food_regrow": 0.0,
            "patches": 0,
            "night_length": 0,
        }
        | {"cost_step": 1.0, "food_energy": 8.0, "energy_max": 100.0, "energy_start": 80.0, "max_steps": 128}
        | {"reward_food": 1.0, "reward_step": -0.02, "reward_death": -1.0}
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
    config, state = tiny([(0, 0), (1, 1), (2, 2), (3, 3)], food=[(1, 1), (2, 2)])
    state.energy[0] = [10, 10, 95, 10]
    new, result = dynamics.step(config, state, np.array([[STAY] * 4]))
    assert new.energy[0].tolist() == [9, 17, 99, 9]  # nothing; food; food over the cap; at home, by day
    np.testing.assert_allclose(result.reward[0], [-0.02, 0.98, 0.98, -0.02], rtol=1e-6)
    assert new.food_eaten[0].tolist() == [0, 1, 1, 0]


def test_night_is_dear_for_all_but_those_at_their_own_home_when_the_step_ends():
    homes = [(0, 0), (3, 3)]
    places = [(0, 0), (3, 3), (0, 1), (0, 0), (3, 3), (0, 0)]  # of population 0, then of population 1
    moves = np.array([[STAY, STAY, WEST, SOUTH, STAY, STAY]])
    config, state = tiny(places, home=homes, populations=2, day_length=2, night_length=1, night_cost=3.0)
    spent = []
    for _ in range(4):
        new, _ = dynamics.step(config, state, moves)
        spent.append((state.energy - new.energy)[0].tolist())
        state = state._replace(step=new.step)  # everyone back to where they were
    #                     home, the other's home, on the way home, out; home, the other's home
    by_day, at_night = [1.0] * 6, [1.0, 3.0, 1.0, 3.0, 1.0, 3.0]
    assert spent == [by_day, by_day, at_night, by_day]


def test_the_cold_kills():
    config, state = tiny([(0, 0), (3, 3)], energy=4.0, day_length=1, night_length=9, night_cost=2.0)
    state.step[:] = 1
    state, _ = dynamics.step(config, state, np.array([[STAY, STAY]]))
    state, result = dynamics.step(config, state, np.array([[STAY, STAY]]))
    assert result.is_terminal[0].tolist() == [True, False]
    assert state.energy[0].tolist() == [0, 2]


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


@pytest.mark.parametrize("patches", [0, 3])
def test_food_never_exceeds_its_number_and_comes_back_only_on_fertile_cells(patches):
    small = {"height": 6, "width": 6, "agents": 6, "food": 6, "food_energy": 50.0, "cost_step": 0.0}
    config = replace(reference.PLAIN, **small, populations=2, patches=patches, patch_radius=1)
    state = generate(config, np.arange(8))
    fertile = np.zeros_like(state.food)
    for w in range(8):
        for cell in reference.fertile_of(config, state, w):
            fertile[w][cell] = True
    generator = np.random.default_rng(0)
    missing_once, grown = False, np.zeros_like(state.food)
    for _ in range(600):
        state, _ = dynamics.step(config, state, generator.integers(0, 5, state.is_alive.shape))
        present = state.food.sum((1, 2))
        assert (present <= config.food).all()
        missing_once |= (present < config.food).any()
        grown |= state.food
    assert missing_once
    assert np.array_equal(grown, fertile)  # everywhere there, sooner or later
    assert state.food_eaten.sum() > 300


@pytest.mark.parametrize("chance", [0.0, 0.3, 1.0])
def test_food_regrows_at_the_rate_asked_for(chance):
    config, state = tiny([(0, 0)], food=[(1, 1)], food_regrow=chance, height=16, width=16)
    state = WorldState(*(np.repeat(array, 3000, axis=0) for array in state))
    state.seed[:] = np.arange(3000)
    state.food[:] = False
    new, _ = dynamics.step(config, state, np.zeros((3000, 1), int))
    assert new.food.sum() / 3000 == pytest.approx(chance * 255 / 256, abs=0.03)


def test_seeds_fall_evenly_on_the_cells_of_all_patches_and_are_lost_beyond_the_grid():
    food = [(0, 0)] * 4
    config, state = tiny([(3, 3)], food, food_regrow=1.0, patches=2, patch_radius=1, height=8, width=8)
    worlds = 4000
    state = WorldState(*(np.repeat(array, worlds, axis=0) for array in state))
    state.seed[:] = np.arange(worlds)
    state.food[:] = False
    state.food[:, 7, :3] = True  # so one item is missing
    state.patch[:] = [(0, 0), (4, 5)]
    new, _ = dynamics.step(config, state, np.zeros((worlds, 1), int))
    share = (new.food & ~state.food).mean(0) * 18
    expected = np.zeros((8, 8))
    expected[:2, :2] = expected[3:6, 4:7] = 1
    assert np.array_equal(share > 0, expected > 0)
    assert abs(share - expected).max() < 0.3  # five standard deviations


@reference.worlds
@given(reference.configs(), st.integers(0, 2**32))
def test_a_move_is_legal_exactly_where_it_takes_the_agent_elsewhere(config, seed):
    state = reference.begin(config, [seed])
    is_legal = dynamics.legal_actions(state)
    assert is_legal[..., STAY].all()
    for action in (NORTH, SOUTH, EAST, WEST):
        new, _ = dynamics.step(config, state, np.full(state.is_alive.shape, action))
        assert np.array_equal((new.position != state.position).any(-1), is_legal[..., action])
