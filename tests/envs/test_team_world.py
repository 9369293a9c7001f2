"""PettingZoo's worlds: everybody has a seat, and nobody's reward is lost, whenever who leaves."""

import re
import sys
from types import ModuleType

import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from mpe2 import simple_spread_v3
from pettingzoo import ParallelEnv

from envs import HELD_OUT
from envs.worlds.team_world import TeamWorld, make_team

SPREAD = "mpe2.simple_spread_v3"


class Leaving(ParallelEnv):
    """Three players who count steps. The first ends after 2, the second is cut off after 3, the third ends after 5.

    A reward is the step's number, times ten to the power of the seat, plus the action in hundredths.
    """

    metadata = {"name": "leaving"}  # noqa: RUF012
    possible_agents = ["a", "b", "c"]  # noqa: RUF012

    def __init__(self, leaves=(2, 3, 5)):
        self.leaves, self.log, self.agents = dict(zip("abc", leaves, strict=True)), [], []

    def observation_space(self, agent):
        return Box(0, 99, (2,))

    def action_space(self, agent):
        return Discrete(3)

    def reset(self, seed=None, options=None):
        self.agents, self.t = list(self.possible_agents), 0
        return {name: np.array([0, 0]) for name in self.agents}, {name: {} for name in self.agents}

    def step(self, actions):
        assert set(actions) == set(self.agents)
        self.t += 1
        self.log.append(actions)
        leaves = {name: self.t == self.leaves[name] for name in self.agents}
        over = {name: left and name != "b" for name, left in leaves.items()}
        cut = {name: left and name == "b" for name, left in leaves.items()}
        reward = {name: self.t * 10.0 ** "abc".index(name) + actions[name] / 100 for name in self.agents}
        seen = {name: np.array([self.t, actions[name]]) for name in self.agents}
        self.agents = [name for name in self.agents if not leaves[name]]
        return seen, reward, over, cut, {name: {} for name in seen}


@pytest.fixture
def leaving(monkeypatch):
    """A module with that world, and the copies of it that were made."""
    module, made = ModuleType("leaving_v0"), []

    def parallel_env(**options):
        made.append(Leaving(**options))
        return made[-1]

    module.parallel_env = parallel_env
    monkeypatch.setitem(sys.modules, "terrarium_test.leaving_v0", module)
    monkeypatch.setitem(sys.modules, "terrarium_test", ModuleType("terrarium_test"))
    return "terrarium_test.leaving_v0", made


def test_in_a_world_that_does_not_renew_each_leaves_once_and_the_others_play_on(leaving):
    world = TeamWorld(leaving[0], {}, 3, 99, renews=False)
    world.reset(np.array([0]))
    steps = [world.step(np.array([[0, 1, 2]])) for _ in range(7)]
    assert np.argwhere([s.is_terminal[0] for s in steps]).tolist() == [[1, 0], [4, 2]]
    assert np.argwhere([s.is_truncated[0] for s in steps]).tolist() == [[2, 1]]
    assert np.sum([s.is_playing[0] for s in steps], axis=0).tolist() == [1, 2, 4]
    rewards = np.stack([s.reward[0] for s in steps]).sum(0)
    np.testing.assert_allclose(rewards, [1 + 2, 10 * 6 + 0.03, 100 * 15 + 0.1], rtol=1e-6)
    assert steps[1].last_seen[0, 0].tolist() == [2, 0]
    assert steps[2].observation[0, 0] is None
    assert steps[6].observation[0].tolist() == [None] * 3


def test_in_a_world_that_renews_who_left_waits_for_the_next_episode(leaving):
    world = TeamWorld(leaving[0], {}, 3, 99, renews=True)
    world.reset(np.array([0]))
    steps = [world.step(np.array([[0, 1, 2]])) for _ in range(10)]
    playing = np.stack([s.is_playing[0] for s in steps])
    episode = [[1, 1, 1], [0, 1, 1], [0, 0, 1], [0, 0, 1], [1, 1, 1]]
    assert playing.astype(int).tolist() == episode * 2
    for t in (4, 9):
        assert [seen.tolist() for seen in steps[t].observation[0]] == [[0, 0]] * 3
        assert steps[t].last_seen[0, 2].tolist() == [5, 2]
        assert steps[t].is_terminal[0].tolist() == [False, False, True]
    was_playing = np.vstack([np.ones((1, 3), bool), playing[:-1]])
    assert (np.stack([s.reward[0] for s in steps])[~was_playing] == 0).all()


def test_where_a_team_does_not_fill_the_last_table_spare_seats_play_and_are_not_counted(leaving):
    name, made = leaving
    world = TeamWorld(name, {"leaves": (9, 9, 9)}, 20, 99, renews=True)
    assert world.reset(np.array([0, 1])).shape == (2, 20)
    assert len(made) == 1 + 2 * 7
    actions = np.random.default_rng(0).integers(0, 3, (2, 20))
    step = world.step(actions)
    tables = [list(copy.log[-1].values()) for copy in made[1:]]
    assert np.reshape(tables[:7], -1)[:20].tolist() == actions[0].tolist()
    assert np.reshape(tables[7:], -1)[:20].tolist() == actions[1].tolist()
    assert step.is_playing.all()
    assert step.reward.shape == (2, 20)
    np.testing.assert_allclose(step.reward, 10.0 ** (np.arange(20) % 3) + actions / 100, rtol=1e-6)
    assert all(seen.tolist() == [1, action] for seen, action in zip(step.observation.flat, actions.flat, strict=True))


def test_no_reward_of_simple_spread_is_lost():
    world, rng = TeamWorld(SPREAD, {"max_cycles": 6}, 20, 50, renews=True), np.random.default_rng(0)
    world.reset(np.array([7]))
    team, total, expected = simple_spread_v3.parallel_env(max_cycles=6), np.zeros(20), np.zeros(3)
    team.reset(seed=7)
    for t in range(1, 19):
        actions = rng.integers(0, 5, (1, 20))
        step = world.step(actions)
        total += step.reward[0]
        reward = team.step(dict(zip(team.agents, actions[0, :3].tolist(), strict=True)))[1]
        expected += list(reward.values())
        if not team.agents:
            team.reset()
        assert step.is_truncated.all() == step.is_truncated.any() == (t % 6 == 0)
        assert not step.is_terminal.any()
    np.testing.assert_allclose(total[:3], expected, rtol=1e-5)
    assert (total < 0).all()


@pytest.mark.parametrize("renews", [True, False])
def test_the_same_seeds_give_the_same_episodes_and_others_others(renews):
    def play(seeds):
        world, rng = TeamWorld(SPREAD, {"max_cycles": 8}, 4, 30, renews=renews), np.random.default_rng(0)
        seen = [world.reset(np.array(seeds))]
        seen += [world.step(rng.integers(0, 5, (2, 4))).observation for _ in range(12)]
        return [[None if one is None else one.tolist() for one in row.flat] for row in seen]

    assert play([4, 5]) == play([4, 5])
    assert play([4, 5]) != play([6, 7])
    assert play([0, 1]) != play([HELD_OUT, HELD_OUT + 1]), "held-out worlds are none of those trained in"
    once, again = TeamWorld(SPREAD, {}, 3, 30, renews=renews), np.array([4])
    first = once.reset(again)[0, 0].tolist()
    once.step(np.ones((1, 3), int))
    assert once.reset(again)[0, 0].tolist() == first


def test_an_episode_of_simple_spread_is_cut_off_and_not_ended_and_then_nobody_plays():
    world = TeamWorld(SPREAD, {"max_cycles": 5}, 3, 30, renews=False)
    world.reset(np.array([0]))
    steps = [world.step(np.zeros((1, 3), int)) for _ in range(7)]
    assert [s.is_truncated.all() for s in steps] == [False] * 4 + [True] + [False] * 2
    assert [s.is_playing.all() for s in steps] == [True] * 4 + [False] * 3
    assert not any(s.is_terminal.any() for s in steps)
    assert all((s.reward == 0).all() for s in steps[5:])
    assert world.figures() == {}


@pytest.mark.parametrize(
    ("module", "options", "says"),
    [
        ("mpe2.nowhere_v0", {}, "there is no module mpe2.nowhere_v0"),
        ("os.path", {}, "os.path has neither parallel_env nor env: it is no module of a PettingZoo world"),
        (SPREAD, {"M": 3}, "unexpected keyword argument 'M'"),
        (SPREAD, {"local_ratio": 2}, "it cannot be made with options {'local_ratio': 2}: AssertionError('local_ratio"),
        (SPREAD, {"continuous_actions": True}, "must be Discrete, and the same for all agents"),
        (
            "mpe2.simple_speaker_listener_v4",
            {},
            "its actions are [Discrete(3), Discrete(5)]: must be Discrete, and the same",
        ),
    ],
)
def test_what_cannot_be_made_is_refused_with_the_reason(module, options, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        make_team(module, options)
