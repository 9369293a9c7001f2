"""The world of one agent: same rules, energy outside."""

import numpy as np
import pytest

from envs import Action, ForageBatch, Habitat, WorldConfig
from envs.generator import generate
from envs.observe import legal_from, unpack


def test_a_walk_in_a_habitat_equals_a_walk_in_a_batch_of_one():
    config = WorldConfig(agents=1, cost_step=0.0, food_energy=0.0, energy_start=100.0, max_steps=1000)
    habitat, batch = Habitat(config, seed=8), ForageBatch(config)
    seen = batch.reset([8])
    position = habitat.start()
    generator = np.random.default_rng(0)
    eaten = 0
    for _ in range(300):
        assert np.array_equal(habitat.observe(position)[:-1], seen[0, 0, :-1])
        action = int(generator.integers(5))
        position, reward, _ = habitat.act(position, action)
        seen, result = batch.step([[action]])
        eaten += result.ate.sum()
        assert reward == result.reward[0, 0]
        assert position == tuple(batch.state().position[0, 0])
    assert eaten > 5


def test_it_gives_back_the_energy_of_food_and_never_ends():
    habitat = Habitat(WorldConfig(food_energy=8.0, max_steps=10, energy_start=1.0), seed=1)
    position, gained = habitat.start(), set()
    generator = np.random.default_rng(0)
    for _ in range(200):
        legal = np.flatnonzero(legal_from(habitat.observe(position), 3))
        position, reward, energy = habitat.act(position, int(generator.choice(legal)))
        assert type(reward) is float
        assert (reward > 0) == (energy > 0)
        gained.add(energy)
    assert gained == {0.0, 8.0}
    assert habitat.observe(position)[-1] == 1


def test_the_caller_may_show_its_own_energy():
    habitat = Habitat()
    place = habitat.start()
    assert unpack(habitat.observe(place), 3).energy == 1
    assert unpack(habitat.observe(place, energy=25.0), 3).energy == 0.25
    assert unpack(habitat.observe(place, energy=-3.0), 3).energy == 0


def test_looking_changes_nothing():
    habitat = Habitat(seed=3)
    first = habitat.observe(habitat.start())
    assert np.array_equal(first, habitat.observe(habitat.start()))
    assert first.shape == (198,)


def test_places_that_are_no_free_cell_are_refused():
    habitat = Habitat(seed=0)
    rock = generate(habitat.config, [0]).rock[0]
    for position in (tuple(np.argwhere(rock)[0]), (-1, 0), (0, 20), (20, 0)):
        with pytest.raises(ValueError, match="must be a free cell of the 20 x 20 grid"):
            habitat.observe(position)
        with pytest.raises(ValueError, match="must be a free cell of the 20 x 20 grid"):
            habitat.act(position, Action.STAY)


def test_an_action_that_does_not_exist_is_refused():
    habitat = Habitat()
    with pytest.raises(ValueError, match="must be between 0 and 4"):
        habitat.act(habitat.start(), 7)
