"""The planner plans: own foods, shortest ways, around rock."""

import numpy as np
import pytest

from envs import HELD_OUT, Action, ForageBatch, WorldConfig
from envs.bots.planner import Planner, match
from envs.generator import generate
from envs.paths import UNREACHED
from envs.presets import preset
from envs.types import is_night

NONE = int(UNREACHED)


def test_matching_takes_the_closest_pairs_first_and_uses_each_once():
    cost = np.array([[1, 2, 9], [1, 3, 9]], np.uint16)
    rows, columns = match(cost)
    assert list(zip(rows.tolist(), columns.tolist(), strict=True)) == [(0, 0), (1, 1)]
    assert cost[0, 0] == 1, "the argument was changed"


def test_matching_leaves_out_what_cannot_be_reached():
    rows, columns = match(np.array([[NONE, NONE], [4, NONE]], np.uint16))
    assert (rows.tolist(), columns.tolist()) == ([1], [0])
    assert match(np.zeros((3, 0), np.uint16))[0].size == 0


def placed(positions, food, rock=()):
    """Return a 5 x 5 world with things where given."""
    config = WorldConfig(height=5, width=5, rocks=0.0, agents=len(positions), food=len(food), food_regrow=0.0)
    state = generate(config, [0])
    state.position[0] = positions
    state.food[:] = False
    for cell in food:
        state.food[0][cell] = True
    for cell in rock:
        state.rock[0][cell] = True
    return config, state


def test_two_agents_on_one_cell_go_to_different_foods():
    config, state = placed([(2, 2), (2, 2)], food=[(2, 0), (2, 4)])
    assert sorted(Planner(config)(state)[0].tolist()) == [Action.EAST, Action.WEST]


def test_it_walks_around_rock_on_a_shortest_way():
    config, state = placed([(2, 0)], food=[(2, 2)], rock=[(1, 1), (2, 1), (3, 1), (4, 1)])
    world, planner = ForageBatch(config), Planner(config)
    world.set_state(state)
    for _ in range(6):
        assert not world.state().food_eaten.any()
        world.step(planner(world.state()))
    assert world.state().food_eaten[0, 0] == 1


def test_the_dead_and_those_without_a_food_stay():
    config, state = placed([(0, 0), (0, 0), (4, 4)], food=[(0, 4)])
    state.is_alive[0, 0] = False
    # Agents 1 and 2 are equally far away: the lower one goes
    assert Planner(config)(state)[0].tolist() == [Action.STAY, Action.EAST, Action.STAY]


def test_it_remembers_layouts_of_the_present_batch_only():
    planner = Planner(WorldConfig())
    planner(generate(WorldConfig(), [1, 2]))
    planner(generate(WorldConfig(), [3]))
    assert len(planner._known) == 1


def test_it_is_home_at_night_and_goes_out_only_as_far_as_it_can_be_back_from():
    config = preset("night")
    world, planner = ForageBatch(config), Planner(config)
    world.reset(HELD_OUT + np.arange(4))
    nights = 0
    for _ in range(config.max_steps):
        state = world.state()
        dark = is_night(config, state.step)
        nights += dark.sum()
        assert ((state.position == state.home[:, :1]).all(-1) | ~state.is_alive)[dark].all()
        world.step(planner(state))
    assert nights > 100
    assert world.state().is_alive.mean() > 0.95


def test_each_goes_home_to_its_own_population():
    config = WorldConfig(agents=4, populations=2, food=0, day_length=1, night_length=60, energy_start=90.0)
    world, planner = ForageBatch(config), Planner(config)
    world.reset([0, 1])
    for _ in range(60):
        world.step(planner(world.state()))
    state = world.state()
    assert (state.position == state.home[:, [0, 0, 1, 1]]).all()


def test_it_refuses_worlds_too_large_to_plan_in():
    with pytest.raises(ValueError, match="a world of 4225 cells: the planner handles at most 4096"):
        Planner(WorldConfig())(generate(WorldConfig(height=65, width=65), [0]))
