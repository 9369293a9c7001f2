"""The baselines are in order, and obey the rules they are measured by."""

import numpy as np
import pytest

from envs import HELD_OUT, Action, ForageBatch, WorldConfig
from envs.bots import bots, greedy_bot, random_bot
from envs.dynamics import legal_actions
from envs.generator import generate

CONFIG = WorldConfig()


def play(name, worlds=4):
    """Return the final state of held-out worlds played by a bot."""
    world, bot = ForageBatch(CONFIG), bots(CONFIG)[name]
    world.reset(HELD_OUT + np.arange(worlds))
    for _ in range(CONFIG.max_steps):
        world.step(bot(world.state()))
    return world.state()


def test_who_knows_more_eats_more():
    food = {name: play(name).food_eaten.mean() for name in bots(CONFIG)}
    assert list(food) == ["random", "greedy", "forager", "planner"]
    assert food["greedy"] > 3 * food["random"]
    assert food["forager"] > 1.2 * food["greedy"]
    assert food["planner"] > 1.1 * food["forager"]


def test_chance_starves_and_the_planner_survives():
    assert play("random").is_alive.mean() < 0.1
    assert play("planner").is_alive.mean() > 0.95


def test_bots_are_deterministic():
    for name in bots(CONFIG):
        first, second = play(name, 1), play(name, 1)
        assert np.array_equal(first.food_eaten, second.food_eaten)


def test_the_random_bot_takes_each_legal_move_equally_often_and_no_other():
    state = generate(CONFIG, np.arange(50))
    is_legal = legal_actions(state)
    is_legal[..., Action.STAY] = False
    generator = np.random.default_rng(0)
    count = np.zeros(is_legal.shape)
    for _ in range(400):
        count += np.eye(5)[random_bot(CONFIG, state, generator)]
    assert (count[~is_legal] == 0).all()
    expected = 400 * is_legal / is_legal.sum(-1, keepdims=True)
    assert abs(count - expected)[is_legal].max() < 60  # five standard deviations


def test_the_random_bot_stays_where_it_is_walled_in():
    state = generate(WorldConfig(agents=1), [0])
    state.rock[:] = True
    assert random_bot(CONFIG, state, np.random.default_rng(0)) == Action.STAY


@pytest.mark.parametrize(
    ("food", "action"),
    [((7, 10), "NORTH"), ((12, 10), "SOUTH"), ((10, 13), "EAST"), ((11, 8), "WEST"), ((10, 10), "STAY")],
)
def test_greed_walks_to_the_food_it_sees(food, action):
    config = WorldConfig(agents=1, rocks=0.0, food=1)
    state = generate(config, [0])
    state.position[:] = 10, 10
    state.food[:] = False
    state.food[0][food] = True
    assert greedy_bot(config, state, np.random.default_rng(0)) == Action[action]
