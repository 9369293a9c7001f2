"""A rollout records what really happened."""

from contextlib import nullcontext
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest

from agents.codecs import PlainCodec
from agents.policy import Decision
from envs.worlds.gym_world import GymWorld
from envs.worlds.world import ForageWorld, Step
from trainers.population import Population, found_population
from trainers.rollout import Newcomers, Observer, Rollout, Trajectory, collect_rollout, gae, latest_texts, mean_return
from trainers.stages import States


@pytest.fixture
def population(tiny_config) -> Population:
    return found_population(tiny_config)


@pytest.fixture
def states() -> States:
    return States()


@pytest.fixture
def rollout(population, tiny_config, states) -> Rollout:
    return in_forage(population, ForageWorld(tiny_config.env), (3, 4), observers=[states])


def in_forage(population: Population, world: ForageWorld, seeds=(3,), **more) -> Rollout:
    rng = np.random.default_rng(0)
    return collect_rollout(population.policy, population.codec, world, np.array(seeds), rng, **more)


def test_replaying_the_recorded_actions_gives_the_same_rewards_and_end(rollout, states, tiny_config):
    world = ForageWorld(tiny_config.env)
    world.reset(np.array([3, 4]))
    assert len(states.states) == len(rollout.trajectory.reward) + 1
    for t, action in enumerate(rollout.trajectory.action):
        step = world.step(action.reshape(2, 6))
        np.testing.assert_array_equal(step.reward.reshape(-1), rollout.trajectory.reward[t])
    np.testing.assert_array_equal(world.state().food_eaten, rollout.outcome.figures["food_eaten"])
    np.testing.assert_array_equal(world.state().position, states.states[-1].position)


def test_the_dead_do_nothing_and_get_nothing(rollout):
    dead = ~rollout.trajectory.is_alive
    assert dead.any(), "the world of this test must be hard enough for some to die"
    assert (rollout.trajectory.reward[dead] == 0).all()
    assert (rollout.trajectory.action[dead] == 0).all()
    assert (rollout.trajectory.is_terminal.sum(axis=0) == ~rollout.outcome.is_alive.reshape(-1)).all()


def test_a_rollout_that_is_cut_off_is_valued_by_what_is_seen_then(rollout, population):
    trajectory = rollout.trajectory
    assert trajectory.is_truncated[:-1].sum() == 0, "in the forage world only the end of a rollout cuts an episode off"
    np.testing.assert_array_equal(trajectory.is_truncated[-1], trajectory.is_alive[-1] & ~trajectory.is_terminal[-1])
    assert trajectory.is_truncated.any()
    assert (trajectory.bootstrap_value[trajectory.is_truncated] != 0).all()
    assert (trajectory.bootstrap_value[~trajectory.is_truncated] == 0).all()


def test_recorded_log_probs_and_values_are_those_of_the_texts_read(rollout, population):
    t, agent = 2, 4
    trajectory = rollout.trajectory
    text = trajectory.texts[trajectory.text[t, agent]]
    logits = population.policy.logits([text], np.array([agent]))[0]
    logits[~trajectory.legal[t, agent]] = -np.inf
    log_probs = logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()
    assert trajectory.log_prob[t, agent] == pytest.approx(log_probs[trajectory.action[t, agent]], abs=1e-4)
    assert trajectory.value[t, agent] == pytest.approx(population.policy.values([text])[0], abs=1e-5)


def test_returns_are_the_sums_of_rewards(rollout):
    total = rollout.trajectory.reward.sum(axis=0)
    np.testing.assert_allclose(rollout.outcome.episode_return.reshape(-1), total, rtol=1e-6)


def test_the_same_seeds_give_the_same_rollout(rollout, population, tiny_config):
    again = in_forage(population, ForageWorld(tiny_config.env), (3, 4))
    np.testing.assert_array_equal(again.trajectory.action, rollout.trajectory.action)
    np.testing.assert_array_equal(again.trajectory.log_prob, rollout.trajectory.log_prob)


def test_bare_agents_all_act_by_the_base(population, tiny_config):
    population.policy.network.bank.values += 1.0
    world = ForageWorld(tiny_config.env)
    rollout = in_forage(population, world, adapter_ids=np.full((1, world.agents), -1))
    text = rollout.trajectory.texts[rollout.trajectory.text[0, 0]]
    logits = population.policy.logits([text], np.array([-1]))[0]
    legal = rollout.trajectory.legal[0, 0]
    expected = logits[legal] - np.log(np.exp(logits[legal]).sum())
    chosen = rollout.trajectory.action[0, 0]
    assert rollout.trajectory.log_prob[0, 0] == pytest.approx(expected[legal[:chosen].sum()], abs=1e-4)


class Steps(NamedTuple):
    """A memory: how many steps each has taken in its episode."""

    taken: np.ndarray  # (M,) int


class Counting(PlainCodec):
    """Says what is seen and how many steps were taken before."""

    action_words = ("left", "down", "right", "up")

    def remember(self, memory, observation, action):
        taken = np.zeros(len(action), int) if memory is None else memory.taken
        return Steps(np.where(action < 0, 0, taken + 1))

    def encode(self, observation, memory):
        return [f" {seen} after {taken}" for seen, taken in zip(observation, memory.taken, strict=True)]


class Script:
    """Does what is written for it, and values a text by the numbers in it."""

    def __init__(self, *scripts):
        self.scripts = scripts

    def act(self, texts, adapters, legal, rng):
        taken = [int(text.split()[-1]) for text in texts]
        scripts = [self.scripts[i] for i in adapters]
        action = np.array([script[t % len(script)] for script, t in zip(scripts, taken, strict=True)])
        nothing = np.zeros(len(texts), np.float32)
        return Decision(action, nothing, self.values(texts), np.zeros(legal.shape, np.float32))

    def values(self, texts):
        return np.array([float(seen) + float(taken) / 100 for seen, _, taken in map(str.split, texts)], np.float32)


class Relay:
    """A world of two: an episode has four steps, of which the second agent plays only the first two."""

    agents, max_steps = 2, 11

    def reset(self, seeds):
        self.t = 0
        return np.array([[0, 0]], object)

    def step(self, actions):
        self.t += 1
        now = self.t % 4
        last_seen = np.array([[now or 4, now if 0 < now <= 2 else None]], object)
        seen = np.array([[now, now if now < 2 else None]], object)
        is_terminal, is_truncated = np.array([[False, now == 2]]), np.array([[now == 0, False]])
        reward = np.array([[1.0, 2.0 * (0 < now <= 2)]], np.float32)
        return Step(seen, reward, is_terminal, is_truncated, np.array([[True, now < 2]]), last_seen)

    def figures(self):
        return {}


LAKE = {"is_slippery": False, "max_episode_steps": 8}
LEFT, DOWN, RIGHT, UP = range(4)
TO_GOAL = (DOWN, DOWN, RIGHT, RIGHT, DOWN, RIGHT)


def on_the_lake(renews, scripts=((LEFT,), TO_GOAL), steps=20):
    world = GymWorld("FrozenLake-v1", LAKE, len(scripts), steps, renews=renews)
    return collect_rollout(Script(*scripts), Counting(None), world, np.array([0]), np.random.default_rng(0))


def in_relay():
    return collect_rollout(Script((0,), (0,)), Counting(None), Relay(), np.array([0]), np.random.default_rng(0))


def read(rollout, agent):
    return [rollout.trajectory.texts[i].strip() for i in rollout.trajectory.text[:, agent]]


def test_where_episodes_follow_each_other_ends_and_cuts_are_where_they_were():
    trajectory = on_the_lake(renews=True).trajectory
    assert trajectory.is_alive.all()
    assert np.argwhere(trajectory.is_terminal).tolist() == [[5, 1], [11, 1], [17, 1]]
    assert np.argwhere(trajectory.is_truncated).tolist() == [[7, 0], [15, 0], [19, 0], [19, 1]]
    assert np.argwhere(trajectory.reward).tolist() == [[5, 1], [11, 1], [17, 1]]


def test_a_cut_is_valued_by_the_end_that_was_seen_and_not_by_the_next_beginning():
    trajectory = on_the_lake(renews=True).trajectory
    assert trajectory.bootstrap_value[[7, 15, 19], 0] == pytest.approx([0.08, 0.08, 0.04])
    assert trajectory.bootstrap_value[19, 1] == pytest.approx(8.02), "two steps down"
    assert (trajectory.bootstrap_value[~trajectory.is_truncated] == 0).all()


def test_memory_is_renewed_where_an_episode_ends_and_only_there():
    rollout = on_the_lake(renews=True)
    assert read(rollout, 0) == [f"0 after {t % 8}" for t in range(20)]
    places = (0, 4, 8, 9, 10, 14)
    assert read(rollout, 1) == [f"{places[t % 6]} after {t % 6}" for t in range(20)]


def test_where_nothing_renews_a_rollout_is_one_episode_and_ends_when_all_are_over():
    rollout = on_the_lake(renews=False)
    assert len(rollout.trajectory.reward) == 8
    assert rollout.outcome.lifetime.tolist() == [[8, 6]]
    assert rollout.outcome.is_alive.tolist() == [[True, False]]
    assert rollout.outcome.episode_return.tolist() == [[0, 1]]
    assert rollout.trajectory.is_alive[:, 1].tolist() == [True] * 6 + [False] * 2


def test_who_waits_for_the_others_does_nothing_and_begins_with_them_anew():
    rollout = in_relay()
    trajectory = rollout.trajectory
    assert trajectory.is_alive[:, 0].all()
    assert trajectory.is_alive[:, 1].tolist() == [t % 4 < 2 for t in range(11)]
    assert read(rollout, 0) == [f"{t % 4} after {t % 4}" for t in range(11)]
    assert [text for t, text in enumerate(read(rollout, 1)) if t % 4 < 2] == ["0 after 0", "1 after 1"] * 3
    assert np.argwhere(trajectory.is_terminal).tolist() == [[1, 1], [5, 1], [9, 1]]
    assert np.argwhere(trajectory.is_truncated).tolist() == [[3, 0], [7, 0], [10, 0]]
    assert rollout.outcome.lifetime.tolist() == [[11, 6]]
    assert rollout.outcome.episode_return.tolist() == [[11, 12]]


def test_the_mean_return_is_of_the_episodes_that_were_finished():
    rollout = in_relay()
    t = rollout.trajectory
    rewards = [t.reward[t.is_alive[:, agent], agent] for agent in range(2)]
    assert mean_return(t).tolist() == [rewards[0][:8].sum() / 2, rewards[1].sum() / 3]
    never = t.is_terminal & False
    unfinished = t._replace(is_terminal=never, is_truncated=never)
    unfinished.is_truncated[-1] = True
    assert mean_return(unfinished)[0] == 11, "what it got so far"


def test_latest_texts_are_named_once_and_in_order(rollout):
    t = rollout.trajectory
    order = [t.texts[i] for i in t.text[t.is_lived]]
    found = latest_texts(t, 3)
    assert found == sorted(set(order), key=lambda text: len(order) - order[::-1].index(text))[-3:]
    assert set(latest_texts(t, 10**6)) == set(t.texts)


@pytest.mark.parametrize("kind", ["lake", "relay"])
def test_advantages_are_those_of_each_episode_alone(kind):
    if kind == "lake":
        trajectory = on_the_lake(renews=True).trajectory
    else:
        trajectory = in_relay().trajectory
    together = gae(trajectory, 0.9, 0.8)
    for agent in range(2):
        ends = np.flatnonzero(trajectory.is_terminal[:, agent] | trajectory.is_truncated[:, agent])
        begins = [0, *(np.flatnonzero(trajectory.is_alive[end + 1 :, agent])[0] + end + 1 for end in ends[:-1])]
        assert len(ends) >= 3
        for first, last in zip(begins, ends, strict=True):
            own = {name: getattr(trajectory, name)[first : last + 1, [agent]] for name in Trajectory._fields[1:]}
            alone = gae(Trajectory(trajectory.texts, **own), 0.9, 0.8)
            np.testing.assert_array_equal(together[first : last + 1, agent], alone[:, 0])


class Replace(Observer):
    """Puts somebody new into the place of whoever dies, and notes who died, who lives and what each has earned."""

    def __init__(self):
        self.noted = []

    def step(self, seen):
        died = seen.transition["is_terminal"]
        if seen.is_last or not died.any():
            return None
        self.noted.append((died.copy(), seen.is_playing.copy(), seen.earned.copy()))
        return Newcomers(died, seen.world.give_birth(died[None]))


def test_newcomers_take_the_places_of_the_dead_and_what_the_dead_did_is_not_theirs(population, tiny_config):
    replace_dead = Replace()
    rollout = in_forage(population, ForageWorld(tiny_config.env), observers=[replace_dead])
    noted, trajectory = replace_dead.noted, rollout.trajectory
    assert len(trajectory.reward) == tiny_config.env.max_steps
    assert trajectory.is_alive[-1].all(), "whoever died was replaced"
    assert noted
    ended = {slot: np.flatnonzero(~trajectory.is_alive[:, slot]).max() for slot in np.flatnonzero(noted[0][0])}
    for slot, last in ended.items():
        assert not trajectory.is_alive[: last + 1, slot].any()
        assert trajectory.is_lived[: last + 1, slot].all(), "the critic still learns from it"
        assert trajectory.is_terminal[last, slot]
        assert trajectory.reward[last, slot] < 0, "death was felt"
        assert trajectory.is_alive[last + 1 :, slot].all()
    for died, living, earned in noted:
        assert not (died & living).any()
        assert earned.shape == (6,)
    never = ~np.any([died for died, _, _ in noted], axis=0)
    assert trajectory.is_alive[:, never].all()
    np.testing.assert_array_equal(rollout.outcome.lifetime[0], trajectory.is_alive.sum(axis=0))
    assert trajectory.is_lived.all(), "every place was taken at once"
    returns = (trajectory.reward * trajectory.is_alive).sum(axis=0)
    np.testing.assert_array_equal(rollout.outcome.episode_return[0], returns)


def test_what_somebody_has_earned_is_counted_from_its_birth(population, tiny_config):
    """Without food all die after five steps, and their children again."""
    replace_dead, env = Replace(), replace(tiny_config.env, food=0, energy_start=5.0)
    in_forage(population, ForageWorld(env), observers=[replace_dead])
    earned = [earned for _, _, earned in replace_dead.noted]
    np.testing.assert_allclose(earned, np.full((3, 6), 5 * -0.02 - 1), rtol=1e-5)


class Ends(Observer):
    """Notes that a rollout begins and stops; fails in the third step where it is to."""

    def __init__(self, noted, name, fails=False):
        self.noted, self.name, self.fails = noted, name, fails

    def start(self, world):
        self.noted.append(f"{self.name} starts")

    def step(self, seen):
        if self.fails and seen.step == 3:
            raise KeyboardInterrupt

    def stop(self):
        self.noted.append(f"{self.name} stops")


@pytest.mark.parametrize("fails", [False, True])
def test_observers_are_stopped_even_where_a_rollout_fails(population, tiny_config, fails):
    noted = []
    with pytest.raises(KeyboardInterrupt) if fails else nullcontext():
        in_forage(population, ForageWorld(tiny_config.env), observers=[Ends(noted, "one", fails), Ends(noted, "other")])
    assert noted == ["one starts", "other starts", "one stops", "other stops"]
