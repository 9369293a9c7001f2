"""Controls are what they say: an agent without memory, and a plain network that is told what the texts tell."""

import numpy as np
import pytest

from agents.forage_codec import ForageCodec
from agents.memory import newborn, remember, ways
from agents.wayfinding import NO_WAY
from benchmarks.controls import Forgetful
from benchmarks.sight import NUMBERS, MapSight, MapVecEnv
from envs import ForageBatch, WorldConfig
from envs.sb3 import ForageVecEnv

WORLD = WorldConfig(height=10, width=10, agents=6, food=8, patches=0, energy_start=12.0, max_steps=20)


def test_who_forgets_tells_what_a_newborn_would():
    batch, codec, rng = ForageBatch(WORLD), Forgetful(WORLD), np.random.default_rng(0)
    observation, memory, action = batch.reset([3]), None, np.full(6, -1)
    remembers, differs = None, False
    for _ in range(10):
        rows = observation[0]
        memory = codec.remember(memory, rows, action)
        remembers = ForageCodec(3).remember(remembers, rows, action)
        newly_born = codec.encode(rows, ForageCodec(3).remember(None, rows, np.full(6, -1)))
        assert codec.encode(rows, memory) == newly_born
        differs |= ForageCodec(3).encode(rows, remembers) != newly_born
        action = rng.integers(0, 5, 6)
        observation, _ = batch.step(action[None])
    assert differs, "what is remembered matters here"


def test_a_network_is_told_the_ways_that_a_text_tells():
    observation = ForageBatch(WORLD).reset([3])[0]
    numbers = MapSight(3).look(observation, np.full(6, -1))
    assert numbers.shape == (6, NUMBERS)
    memory = remember(newborn(6), observation, np.full(6, -1), 3)
    for kind, steps in enumerate(ways(memory)):
        told = numbers[:, kind * 5 : kind * 5 + 5]
        np.testing.assert_allclose(np.where(told > 0, 1 / np.maximum(told, 1e-9) - 1, NO_WAY), steps, atol=1e-4)
    assert (numbers[:, -3:] == [1, 0, 0]).all(), "it is day"


def test_its_memory_goes_on_over_steps_and_begins_anew_with_the_newborn():
    env, plain = MapVecEnv(ForageVecEnv(config=WORLD, worlds=2)), ForageVecEnv(config=WORLD, worlds=2)
    sight, rng = MapSight(3), np.random.default_rng(0)
    np.testing.assert_array_equal(env.reset(), sight.look(plain.reset(), np.full(12, -1)))
    deaths = 0
    for _ in range(30):
        actions = rng.integers(0, 5, 12)
        seen, reward, dones, infos = env.step(actions)
        raw, its_reward, its_dones, its_infos = plain.step(actions)
        np.testing.assert_array_equal(reward, its_reward)
        np.testing.assert_array_equal(dones, its_dones)
        for slot in np.flatnonzero(dones):
            last = raw.copy()
            last[slot] = its_infos[slot]["terminal_observation"]
            told = sight.peek(last, actions)[slot]
            np.testing.assert_array_equal(infos[slot]["terminal_observation"], told)
            assert infos[slot]["food_eaten"] == its_infos[slot]["food_eaten"]
        np.testing.assert_array_equal(seen, sight.look(raw, np.where(dones, -1, actions)))
        np.testing.assert_array_equal(env.env_method("action_masks"), plain.action_masks())
        deaths += int(dones.sum())
    assert deaths > 12
    with pytest.raises(AttributeError):
        env.env_method("nothing")
