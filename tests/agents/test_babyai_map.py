"""What is remembered of a BabyAI level is where things really are, seen from the agent."""

import gymnasium
import minigrid  # noqa: F401  registers its worlds
import numpy as np
import pytest

from agents.codecs.babyai_map import KINDS, NOTHING, looked
from envs.babyai import TASKS

CHANCES = (0.15, 0.15, 0.4, 0.12, 0.1, 0.08)


def really(env) -> dict:
    """All things of a level by (steps ahead, steps to the right), as an image has them."""
    world = env.unwrapped
    ahead, right = np.array(world.dir_vec), np.array(world.right_vec)
    found = {}
    for x in range(world.width):
        for y in range(world.height):
            thing = world.grid.get(x, y)
            if thing is not None and thing.encode()[0] in KINDS:
                way = np.array((x, y)) - world.agent_pos
                found[int(way @ ahead), int(way @ right)] = tuple(int(number) for number in thing.encode())
    return found


@pytest.mark.parametrize("name", [*TASKS, "BabyAI-GoToObjMaze-v0", "BabyAI-UnlockToUnlock-v0", "MiniGrid-LavaGapS7-v0"])
def test_things_are_where_the_map_has_them(name):
    env = gymnasium.make("envs:BabyAI-MixedTrainLocal-v0", task=name) if name in TASKS else gymnasium.make(name)
    rng, hidden, met = np.random.default_rng(0), 0, set()
    for seed in range(8):
        observation, _ = env.reset(seed=seed)
        known, there = looked(NOTHING, observation, -1), set()
        for _ in range(60):
            truth = really(env)
            assert known.things.items() <= truth.items()
            assert known.hidden.items() <= known.things.items()
            visible = env.unwrapped.gen_obs_grid()[1].sum()
            assert len(known.things) - len(known.hidden) <= visible
            there |= set(truth.values())
            hidden += len(known.hidden)
            action = int(rng.choice(6, p=CHANCES))
            observation, _, over, cut, _ = env.step(action)
            if over or cut:
                break
            known = looked(known, observation, action)
        met |= set(known.things.values())
    assert hidden > 100 or "Lava" in name
    assert met


def test_an_episode_begins_with_an_empty_map():
    env = gymnasium.make("envs:BabyAI-MixedTrainLocal-v0")
    observation, _ = env.reset(seed=0)
    known = looked(NOTHING, observation, -1)
    assert known.hidden == {}
    for action in (0, 0):
        known = looked(known, env.step(action)[0], action)
    assert known.hidden
    assert looked(known, observation, -1) == looked(NOTHING, observation, -1)
