"""The forager knows what it has seen and nothing else, and heeds what it is told to heed."""

import re
from copy import deepcopy

import numpy as np
import pytest

from envs import HELD_OUT, ForageBatch, WorldConfig
from envs.bots.forager import RULES, Forager
from envs.presets import preset
from envs.types import is_night


def lived(config, heeds=RULES, worlds=4, steps=None):
    """Play held-out worlds; yield the state before each step with the actions, and at last the end with None."""
    world, bot = ForageBatch(config), Forager(config, heeds=heeds)
    world.reset(HELD_OUT + np.arange(worlds))
    for _ in range(steps or config.max_steps):
        state = world.state()
        actions = bot(state)
        yield state, actions
        world.step(actions)
    yield world.state(), None


def food_eaten(config, heeds=RULES, worlds=2):
    *_, (state, _) = lived(config, heeds, worlds)
    return state.food_eaten.mean()


@pytest.mark.parametrize("name", ["meadow", "famine", "night", "rivals"])
def test_what_an_agent_does_not_see_does_not_move_it(name):
    config, rng = preset(name), np.random.default_rng(0)
    world, bot = ForageBatch(config), Forager(config)
    world.reset([1])
    for step in range(60):
        state = world.state()
        agent = int(rng.integers(config.agents))
        other = hidden_from(agent, state, config, rng)
        elsewhere = deepcopy(bot)(other)[0, agent]
        actions = bot(state)
        assert actions[0, agent] == elsewhere, step
        world.step(actions)


def hidden_from(agent, state, config, rng):
    """The same state with other food, rocks, agents and energies wherever an agent does not see them."""
    rows, columns = (np.arange(n) for n in state.rock.shape[1:])
    row, column = state.position[0, agent]
    radius = config.view_radius
    hidden = (np.abs(rows - row) > radius)[:, None] | (np.abs(columns - column) > radius)
    position, energy = state.position.copy(), state.energy.copy()
    for n in range(config.agents):
        if hidden[tuple(position[0, n])]:
            position[0, n] = np.argwhere(hidden)[rng.integers(hidden.sum())]
            energy[0, n] = 1
    return state._replace(
        rock=np.where(hidden, rng.random(hidden.shape) < 0.3, state.rock),
        food=np.where(hidden, rng.random(hidden.shape) < 0.3, state.food),
        position=position,
        energy=energy,
    )


def test_it_is_home_at_night_in_nearly_all_cases():
    config, home = preset("night"), []
    for state, _ in lived(config):
        dark = is_night(config, state.step)
        home.extend((state.position == state.home[:, :1]).all(-1)[dark][state.is_alive[dark]])
    assert len(home) > 500
    assert np.mean(home) > 0.95


def test_who_does_not_heed_the_night_is_out_in_it_and_dies():
    config = preset("night")
    careless = [rule for rule in RULES if rule != "night"]
    (*_, (wise, _)), (*_, (unwise, _)) = lived(config, worlds=2), lived(config, tuple(careless), worlds=2)
    assert wise.is_alive.mean() > unwise.is_alive.mean() + 0.3


@pytest.mark.parametrize(("name", "rule"), [("famine", "memory"), ("maze", "rocks")])
def test_what_is_not_heeded_is_missed_where_it_is_asked_for(name, rule):
    without = tuple(r for r in RULES if r != rule)
    assert food_eaten(preset(name)) > 1.1 * food_eaten(preset(name), without)


def test_it_begins_anew_in_new_worlds_and_is_deterministic():
    config, bot = WorldConfig(), Forager(WorldConfig(), seed=3)
    world = ForageBatch(config)
    first = world.reset([1, 2]) is not None and bot(world.state())
    for _ in range(10):
        world.step(bot(world.state()))
    world.reset([1, 2])
    fresh = Forager(config, seed=3)
    assert np.array_equal(first, fresh(world.state()))
    bot._rng, fresh._rng = np.random.default_rng(0), np.random.default_rng(0)
    world.reset([8, 9])
    for _ in range(10):
        actions = bot(world.state())
        assert np.array_equal(actions, fresh(world.state()))
        world.step(actions)


def test_the_dead_stay():
    config = WorldConfig()
    world = ForageBatch(config)
    world.reset([0])
    state = world.state()
    state.is_alive[0, ::2] = False
    assert (Forager(config)(state)[0, ::2] == 0).all()


@pytest.mark.parametrize("heeds", [("memory", "signs"), ("nigth",)])
def test_a_rule_that_is_none_is_answered_with_all_rules(heeds):
    says = f"heeds = {heeds!r}: must be some of memory, rocks, night, home"
    with pytest.raises(ValueError, match=f"^{re.escape(says)}$"):
        Forager(WorldConfig(), heeds=heeds)
