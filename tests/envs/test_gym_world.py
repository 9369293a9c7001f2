"""Gymnasium's worlds, side by side: seeds, ends of episodes, and what nobody may miss."""

import re

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from envs import HELD_OUT
from envs.worlds.faults import WorldFault
from envs.worlds.foreign import Conduct, derived
from envs.worlds.gym_world import NO_ADVICE, GymWorld, make_gym

LEFT, DOWN, RIGHT, UP = range(4)
DRY = {"is_slippery": False}
TO_GOAL = [DOWN, DOWN, RIGHT, RIGHT, DOWN, RIGHT]


def always(world, seeds, actions, steps):
    """Reset, and do the same at every step."""
    first = world.reset(np.array(seeds))
    return first, [world.step(np.broadcast_to(actions, first.shape)) for _ in range(steps)]


@pytest.mark.parametrize("renews", [True, False])
@pytest.mark.parametrize("name", ["FrozenLake-v1", "MiniGrid-Empty-Random-5x5-v0"])
def test_the_same_seeds_give_the_same_episodes_and_others_others(name, renews):
    def play(seeds):
        world, rng = GymWorld(name, {}, 3, 30, renews=renews), np.random.default_rng(0)
        seen = [world.reset(np.array(seeds))]
        seen += [world.step(rng.integers(0, 3, (2, 3))).observation for _ in range(15)]
        return [[one["image"].tolist() if isinstance(one, dict) else one for one in row.flat] for row in seen]

    assert play([4, 5]) == play([4, 5])
    assert play([4, 5]) != play([6, 7])
    assert play([0, 1]) != play([HELD_OUT, HELD_OUT + 1]), "held-out worlds are none of those trained in"


def test_a_world_can_be_begun_again_with_more_or_fewer_seeds():
    world = GymWorld("FrozenLake-v1", {}, 3, 30, renews=True)
    once = [step.observation.tolist() for step in always(world, [1, 2], RIGHT, 8)[1]]
    always(world, [9], DOWN, 5)
    assert [step.observation.tolist() for step in always(world, [1, 2], RIGHT, 8)[1]] == once
    assert always(world, [1, 2, 3], RIGHT, 1)[0].shape == (3, 3)


def test_agents_of_one_world_get_the_same_layout_and_do_not_touch_each_other():
    world = GymWorld("MiniGrid-Empty-Random-6x6-v0", {}, 3, 50, renews=True)
    first = world.reset(np.array([3]))[0]
    assert all((one["image"] == first[0]["image"]).all() for one in first)
    step = world.step(np.array([[0, 1, 0]]))
    assert (step.observation[0, 0]["image"] == step.observation[0, 2]["image"]).all()
    assert step.observation[0, 0]["direction"] != step.observation[0, 1]["direction"]


@pytest.mark.parametrize("seed", [3, HELD_OUT + 3])
def test_where_layouts_are_not_shared_each_agent_has_its_own_and_the_same_again(seed):
    def layouts(agents):
        world = GymWorld("MiniGrid-Empty-Random-6x6-v0", {}, agents, 50, renews=True, is_shared=False)
        first = world.reset(np.array([seed, seed + 1]))
        places = [tuple(copy.unwrapped.agent_pos) for copy in world.copies()]
        world.close()
        return places, [one["image"].tobytes() for one in first.flat]

    places, seen = layouts(4)
    assert len(set(places)) > 3
    assert layouts(4) == (places, seen)
    assert layouts(2)[0] == [*places[:2], *places[4:6]], "an agent's layout does not depend on how many there are"


def test_seeds_that_are_derived_are_held_out_where_their_worlds_are():
    assert all(derived(3, n) < HELD_OUT <= derived(HELD_OUT + 3, n) < 2**32 for n in range(100))
    assert len({derived(3, n) for n in range(100)}) == 100


def test_where_it_does_not_renew_each_plays_one_episode_and_then_gets_nothing():
    world = GymWorld("FrozenLake-v1", DRY, 3, 100, renews=False)
    world.reset(np.array([0]))
    into_hole = [RIGHT, DOWN]
    steps = [world.step(np.array([[TO_GOAL[min(t, 5)], into_hole[t % 2], LEFT]])) for t in range(9)]
    terminal, playing, reward = (
        np.stack([getattr(step, name)[0] for step in steps]) for name in ("is_terminal", "is_playing", "reward")
    )
    assert np.argwhere(terminal).tolist() == [[1, 1], [5, 0]]
    assert playing.sum(0).tolist() == [5, 1, 9]
    assert np.argwhere(reward).tolist() == [[5, 0]]
    assert not any(step.is_truncated.any() for step in steps)
    assert steps[1].last_seen[0, 1] == 5
    assert [one is None for one in steps[-1].observation[0]] == [True, True, False]


def test_where_it_renews_the_end_is_seen_last_and_the_next_beginning_now():
    world = GymWorld("FrozenLake-v1", DRY, 2, 100, renews=True)
    world.reset(np.array([0]))
    for t in range(12):
        step = world.step(np.array([[TO_GOAL[t % 6], LEFT]]))
        is_end = t % 6 == 5
        assert step.is_playing.all()
        assert step.is_terminal.tolist() == [[is_end, False]]
        assert step.reward.tolist() == [[float(is_end), 0.0]]
        assert step.last_seen[0, 0] == (15 if is_end else step.observation[0, 0])
        assert (step.observation[0, 0] == 0) == is_end
    assert world.figures() == {}


def test_an_episode_cut_off_by_its_time_limit_is_truncated_not_terminal():
    world = GymWorld("FrozenLake-v1", DRY, 1, 300, renews=True)
    _, steps = always(world, [0], LEFT, 250)
    assert [t for t, step in enumerate(steps, 1) if step.is_truncated.any()] == [100, 200]
    assert not any(step.is_terminal.any() for step in steps)
    once = GymWorld("FrozenLake-v1", {**DRY, "max_episode_steps": 7}, 1, 300, renews=False)
    _, steps = always(once, [0], LEFT, 9)
    assert [step.is_playing.item() for step in steps] == [True] * 6 + [False] * 3
    assert [step.is_truncated.item() for step in steps] == [False] * 6 + [True] + [False] * 2


class BothAtOnce(gymnasium.Env):
    """Ends and is cut off in the same step."""

    observation_space, action_space = Box(0, 1), Discrete(2)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.ones(1, np.float32), 1.0, True, True, {}


gymnasium.register("TerrariumTest/BothAtOnce-v0", BothAtOnce)


def test_an_end_that_is_also_a_cut_is_an_end():
    _, (step,) = always(GymWorld("TerrariumTest/BothAtOnce-v0", {}, 1, 9, renews=True), [0], 0, 1)
    assert step.is_terminal.all()
    assert not step.is_truncated.any()
    assert step.last_seen[0, 0].tolist() == [1]
    assert step.observation[0, 0].tolist() == [0]


@pytest.mark.parametrize(
    ("env_id", "options", "says"),
    [
        ("FrozenLake-v9", {}, "Environment version `v9` for environment `FrozenLake` doesn't exist"),
        ("Nowhere-v0", {}, "Environment `Nowhere` doesn't exist"),
        ("no such id", {}, "Malformed environment ID: no such id"),
        ("nowhere:Some-v0", {}, "there is no module nowhere"),
        ("FrozenLake-v1", {"slippery": False}, "unexpected keyword argument 'slippery'"),
        ("FrozenLake-v1", {"map_name": "9x9"}, "it cannot be made with options {'map_name': '9x9'}: KeyError('9x9')"),
        ("MiniGrid-Empty-5x5-v0", {"agent_view_size": 4}, "it cannot be made with options {'agent_view_size': 4}"),
        ("Pendulum-v1", {}, "its actions are Box(-2.0, 2.0, (1,), float32): must be Discrete"),
    ],
)
def test_what_cannot_be_made_is_refused_with_the_reason(env_id, options, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        make_gym(env_id, options)


class Advised(gymnasium.Env):
    """Ends after two steps. Its actions are 5 to 7, and it advises some of them."""

    observation_space, action_space = Discrete(3), Discrete(3, start=5)
    advised: tuple = (6, 7, None)

    def reset(self, *, seed=None, options=None):
        self.steps = 0
        return 0, self._told()

    def step(self, action):
        self.steps += 1
        return self.steps, 0.0, self.steps == 2, False, self._told()

    def _told(self):
        advice = self.advised[self.steps]
        return {} if advice is None else {"expert_action": advice}


def advised(monkeypatch, renews=True, **attributes):
    """A world of two agents in it."""
    made = type("Made", (Advised,), attributes)
    monkeypatch.setattr("envs.worlds.gym_world.make_gym", lambda *_: made())
    return GymWorld("advised", {}, 2, 9, renews=renews)


@pytest.mark.parametrize(("renews", "after"), [(True, 1), (False, NO_ADVICE)])
def test_an_experts_advice_is_about_what_is_seen_now(monkeypatch, renews, after):
    world = advised(monkeypatch, renews)
    world.reset(np.array([0]))
    assert world.advice().tolist() == [[1, 1]]
    world.step(np.zeros((1, 2), int))
    assert world.advice().tolist() == [[2, 2]]
    world.step(np.zeros((1, 2), int))
    assert world.advice().tolist() == [[after, after]]


def test_a_copy_that_is_made_anew_has_the_advice_of_its_first_observation(monkeypatch):
    class Fails(Advised):
        def step(self, action):
            if self.steps == 1:
                raise ValueError("no more")
            return super().step(action)

    monkeypatch.setattr("envs.worlds.gym_world.make_gym", lambda *_: Fails())
    world = GymWorld("advised", {}, 2, 9, renews=True, conduct=Conduct(restarts=True))
    world.reset(np.array([0]))
    world.step(np.zeros((1, 2), int))
    assert world.advice().tolist() == [[2, 2]]
    world.step(np.zeros((1, 2), int))
    assert world.is_void.all()
    assert world.advice().tolist() == [[1, 1]]


@pytest.mark.parametrize("wrong", [0, 8, "left", 5.5])
def test_advice_that_is_no_action_is_a_fault(monkeypatch, wrong):
    world = advised(monkeypatch, advised=(6, wrong, None))
    world.reset(np.array([0]))
    says = re.escape(f"its expert_action is {wrong!r}: must be one of its actions, Discrete(3, start=5)")
    with pytest.raises(WorldFault, match=says):
        world.step(np.zeros((1, 2), int))
