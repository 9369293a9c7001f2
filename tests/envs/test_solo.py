"""The world of one agent: same rules, energy outside."""

from dataclasses import replace

import numpy as np
import pytest
from reference import PLAIN

from envs import Action, ForageBatch, Habitat
from envs.generator import generate
from envs.observe import legal_from, observation_size, unpack
from envs.presets import PRESETS

NIGHTLY = replace(PLAIN, day_length=5, night_length=3, night_cost=4.0, cost_step=0.5)


@pytest.mark.parametrize(
    "config", [PLAIN, NIGHTLY, replace(PLAIN, populations=3, walls=4), replace(PLAIN, patches=5, patch_radius=3)]
)
def test_a_walk_in_a_habitat_equals_a_walk_in_a_batch_of_one(config):
    config = replace(config, agents=1, food_energy=0.0, energy_start=1e6, energy_max=1e6, max_steps=1000)
    habitat, batch = Habitat(config, seed=8), ForageBatch(config)
    seen = batch.reset([8])
    position = habitat.start()
    generator = np.random.default_rng(0)
    eaten = 0
    for _ in range(300):
        energy = batch.state().energy[0, 0]
        assert_same_but_for_the_time_left(habitat.observe(position, energy), seen[0, 0])
        action = int(generator.integers(5))
        position, reward, _ = habitat.act(position, action)
        seen, result = batch.step([[action]])
        eaten += result.ate.sum()
        assert reward == result.reward[0, 0]
        assert position == tuple(batch.state().position[0, 0])
        assert habitat.cost(position) == energy - batch.state().energy[0, 0]
    assert eaten > 0


def assert_same_but_for_the_time_left(seen: np.ndarray, of_batch: np.ndarray) -> None:
    for name, alone, other in zip(unpack(seen, 3)._fields, unpack(seen, 3), unpack(of_batch, 3), strict=True):
        if name == "time_left":
            assert alone == 1
        else:
            assert np.array_equal(alone, other), name


def test_it_gives_back_the_energy_of_food_and_never_ends():
    habitat = Habitat(replace(PLAIN, max_steps=10, energy_start=1.0), seed=1)
    position, gained = habitat.start(), set()
    generator = np.random.default_rng(0)
    for _ in range(200):
        legal = np.flatnonzero(legal_from(habitat.observe(position), 3))
        position, reward, energy = habitat.act(position, int(generator.choice(legal)))
        assert type(reward) is float
        assert (reward > 0) == (energy > 0)
        gained.add(energy)
    assert gained == {0.0, 8.0}
    assert unpack(habitat.observe(position), 3).time_left == 1


def test_day_and_night_pass_with_its_steps_and_night_is_dear_away_from_home():
    habitat = Habitat(replace(NIGHTLY, rocks=0.0), seed=0)
    home = tuple(generate(habitat.config, [0]).home[0, 0])
    out = (home[0] + 1) % 20, home[1]
    costs, dark = [], []
    assert habitat.cost(out) == 0.5  # before the first step it is day
    for _ in range(9):
        dark.append(bool(unpack(habitat.observe(out), 3).is_night))
        habitat.act(out, Action.STAY)
        costs.append(habitat.cost(out))
        assert habitat.cost(home) == 0.5
    assert dark == [False] * 5 + [True] * 3 + [False]
    assert costs == [2.0 if night else 0.5 for night in dark]
    assert type(costs[0]) is type(costs[5]) is float


@pytest.mark.parametrize("name", PRESETS)
def test_an_agent_can_live_and_die_in_every_preset(name):
    habitat = Habitat(PRESETS[name], seed=2)
    position, energy, steps = habitat.start(), 20.0, 0
    while energy > 0 and steps < 200:
        legal = legal_from(habitat.observe(position, energy), habitat.config.view_radius)
        position, _, eaten = habitat.act(position, int(np.flatnonzero(legal)[steps % legal.sum()]))
        energy += eaten - habitat.cost(position)
        steps += 1
    assert steps > 1


def test_the_caller_may_show_its_own_energy():
    habitat = Habitat(PLAIN)
    place = habitat.start()
    assert unpack(habitat.observe(place), 3).energy == 1
    assert unpack(habitat.observe(place, energy=25.0), 3).energy == 0.25
    assert unpack(habitat.observe(place, energy=-3.0), 3).energy == 0


def test_looking_changes_nothing():
    habitat = Habitat(PLAIN, seed=3)
    first = habitat.observe(habitat.start())
    assert np.array_equal(first, habitat.observe(habitat.start()))
    assert first.shape == (observation_size(3),)


def test_places_that_are_no_free_cell_are_refused():
    habitat = Habitat(PLAIN, seed=0)
    rock = generate(habitat.config, [0]).rock[0]
    for position in (tuple(np.argwhere(rock)[0]), (-1, 0), (0, 20), (20, 0)):
        with pytest.raises(ValueError, match="must be a free cell of the 20 x 20 grid"):
            habitat.observe(position)
        with pytest.raises(ValueError, match="must be a free cell of the 20 x 20 grid"):
            habitat.act(position, Action.STAY)


def test_an_action_that_does_not_exist_is_refused():
    habitat = Habitat(PLAIN)
    with pytest.raises(ValueError, match="must be between 0 and 4"):
        habitat.act(habitat.start(), 7)
