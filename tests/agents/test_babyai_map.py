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


@pytest.mark.parametrize("name", [*TASKS, "BabyAI-GoToObjMaze-v0", "BabyAI-UnlockToUnlock-v0", "BabyAI-GoTo-v0"])
def test_all_that_was_seen_is_where_the_map_has_it(name):
    env = gymnasium.make("envs:BabyAI-MixedTrainLocal-v0", task=name) if name in TASKS else gymnasium.make(name)
    rng, hidden = np.random.default_rng(0), 0
    for seed in range(8):
        observation, _ = env.reset(seed=seed)
        known, seen = looked(NOTHING, observation, -1), set()
        for _ in range(80):
            truth, level = really(env), env.unwrapped
            seen = {at for at in seen | in_view(level) if level.grid.get(*at) is not None}
            assert known.things == {from_agent(level, at): truth[from_agent(level, at)] for at in seen}
            out_of_view = seen - in_view(level) - {tuple(int(x) for x in level.agent_pos)}
            assert known.hidden.keys() == {from_agent(level, at) for at in out_of_view}
            hidden += len(out_of_view)
            action = int(rng.choice(6, p=CHANCES))
            observation, _, over, cut, _ = env.step(action)
            if over or cut:
                break
            known = looked(known, observation, action)
    assert hidden > 100


def from_agent(level, at: tuple[int, int]) -> tuple[int, int]:
    way = np.array(at) - level.agent_pos
    return int(way @ np.array(level.dir_vec)), int(way @ np.array(level.right_vec))


def in_view(level) -> set[tuple[int, int]]:
    """Where in the grid things are that the agent sees now."""
    _, mask = level.gen_obs_grid()
    found = set()
    for x in range(level.width):
        for y in range(level.height):
            thing, place = level.grid.get(x, y), level.relative_coords(x, y)
            if thing is not None and thing.encode()[0] in KINDS and place is not None and mask[place]:
                found.add((x, y))
    return found


def test_a_door_in_which_the_agent_stood_is_remembered():
    image = np.ones((7, 7, 3), np.uint8)
    open_door = image.copy()
    open_door[3, 5] = (4, 2, 0)
    known = looked(NOTHING, {"image": open_door}, -1)
    known = looked(known, {"image": image}, 2)
    assert known.things == {(0, 0): (4, 2, 0)}
    assert known.hidden == {}
    dark = np.zeros((7, 7, 3), np.uint8)
    assert looked(known, {"image": dark}, 2).hidden == {(-1, 0): (4, 2, 0)}


def test_an_episode_begins_with_an_empty_map():
    env = gymnasium.make("envs:BabyAI-MixedTrainLocal-v0")
    observation, _ = env.reset(seed=0)
    known = looked(NOTHING, observation, -1)
    assert known.hidden == {}
    for action in (0, 0):
        known = looked(known, env.step(action)[0], action)
    assert known.hidden
    assert looked(known, observation, -1) == looked(NOTHING, observation, -1)
