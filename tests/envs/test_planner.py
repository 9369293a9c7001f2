"""The planner plans: own foods, shortest ways, around rock."""

import numpy as np
import pytest

from envs import Action, ForageBatch, WorldConfig
from envs.generator import generate
from envs.paths import UNREACHED
from envs.planner import Planner, match

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
    _, state = placed([(2, 2), (2, 2)], food=[(2, 0), (2, 4)])
    assert sorted(Planner()(state)[0].tolist()) == [Action.EAST, Action.WEST]


def test_it_walks_around_rock_on_a_shortest_way():
    config, state = placed([(2, 0)], food=[(2, 2)], rock=[(1, 1), (2, 1), (3, 1), (4, 1)])
    world, planner = ForageBatch(config), Planner()
    world.set_state(state)
    for _ in range(6):
        assert not world.state().food_eaten.any()
        world.step(planner(world.state()))
    assert world.state().food_eaten[0, 0] == 1


def test_the_dead_and_those_without_a_food_stay():
    _, state = placed([(0, 0), (0, 0), (4, 4)], food=[(0, 4)])
    state.is_alive[0, 0] = False
    # Agents 1 and 2 are equally far away: the lower one goes
    assert Planner()(state)[0].tolist() == [Action.STAY, Action.EAST, Action.STAY]


def test_it_remembers_layouts_of_the_present_batch_only():
    planner = Planner()
    planner(generate(WorldConfig(), [1, 2]))
    planner(generate(WorldConfig(), [3]))
    assert len(planner._known) == 1


def test_it_refuses_worlds_too_large_to_plan_in():
    with pytest.raises(ValueError, match="a world of 4225 cells: the planner handles at most 4096"):
        Planner()(generate(WorldConfig(height=65, width=65), [0]))
