"""Controls are what they say: an agent without memory, and a plain network that sees what the texts say."""

import numpy as np
import pytest

from agents.codecs.forage import ForageCodec
from agents.codecs.forage_map import newborn, remember, ways
from agents.codecs.wayfinding import NO_WAY
from benchmarks.controls import Forgetful
from benchmarks.map_features import FEATURES, MapFeatures, MapVecEnv
from envs import ForageBatch, WorldConfig
from envs.sb3 import ForageVecEnv

WORLD = WorldConfig(height=10, width=10, agents=6, food=8, patches=0, energy_start=12.0, max_steps=20)


def test_a_forgetful_agent_reads_what_a_newborn_would():
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


def test_the_features_of_a_map_are_the_ways_that_a_text_names():
    observation = ForageBatch(WORLD).reset([3])[0]
    features = MapFeatures(3).update(observation, np.full(6, -1))
    assert features.shape == (6, FEATURES)
    memory = remember(newborn(6), observation, np.full(6, -1), 3)
    for kind, steps in enumerate(ways(memory)):
        closeness = features[:, kind * 5 : kind * 5 + 5]
        found = np.where(closeness > 0, 1 / np.maximum(closeness, 1e-9) - 1, NO_WAY)
        np.testing.assert_allclose(found, steps, atol=1e-4)
    assert (features[:, -3:] == [1, 0, 0]).all(), "it is day"


def test_maps_are_kept_over_steps_and_a_newborn_agent_has_a_new_one():
    env, plain = MapVecEnv(ForageVecEnv(config=WORLD, worlds=2)), ForageVecEnv(config=WORLD, worlds=2)
    features, rng = MapFeatures(3), np.random.default_rng(0)
    np.testing.assert_array_equal(env.reset(), features.update(plain.reset(), np.full(12, -1)))
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
            expected = features.peek(last, actions)[slot]
            np.testing.assert_array_equal(infos[slot]["terminal_observation"], expected)
            assert infos[slot]["food_eaten"] == its_infos[slot]["food_eaten"]
        np.testing.assert_array_equal(seen, features.update(raw, np.where(dones, -1, actions)))
        np.testing.assert_array_equal(env.env_method("action_masks"), plain.action_masks())
        deaths += int(dones.sum())
    assert deaths > 12
    with pytest.raises(AttributeError):
        env.env_method("nothing")
