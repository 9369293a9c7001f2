"""Memories of lives are bounded, belong to one agent, come back from a checkpoint, and teach what went well."""

import numpy as np
import pytest
import torch

from trainers.learning.config import LearnConfig
from trainers.learning.imitation import imitate, own_demonstrations
from trainers.learning.learner import Learner
from trainers.rollout import Trajectory
from trainers.variants.replay import Replay

TEXTS = [" food north" * 6, " food south" * 6]


def life(rng, texts=TEXTS, steps=5, agents=3, worlds=1, alive=None) -> Trajectory:
    shape = (steps, agents * worlds)
    never, zero = np.zeros(shape, bool), np.zeros(shape, np.float32)
    cut = never.copy()
    cut[-1] = True
    legal = rng.random((*shape, 5)) < 0.8
    alive = ~never if alive is None else alive
    action, text = rng.integers(5, size=shape), rng.integers(len(texts), size=shape)
    reward = rng.random(shape).astype(np.float32)
    return Trajectory(list(texts), text, legal, action, zero - 1, zero, reward, alive, never, cut, zero, alive)


def held(replay, agent) -> list[tuple]:
    """What an agent remembers, as texts, actions and rewards, in the order of its places."""
    c, count = replay.columns, int(replay.filled()[agent].sum())
    return [
        (replay.texts[c["text"][agent, i]], int(c["action"][agent, i]), float(c["reward"][agent, i]))
        for i in range(count)
    ]


def lived(t, agent) -> list[tuple]:
    return [(t.texts[t.text[s, agent]], int(t.action[s, agent]), float(t.reward[s, agent])) for s in range(len(t.text))]


def test_a_life_is_remembered_by_whoever_lived_it():
    rng, replay = np.random.default_rng(0), Replay(3, places=10, actions=5)
    t = life(rng)
    replay.add(t, t.reward * 2)
    for agent in range(3):
        assert held(replay, agent) == lived(t, agent)
    assert np.array_equal(replay.columns["legal"][1, :5], t.legal[:, 1])
    assert replay.columns["returned"][2, 3] == t.reward[3, 2] * 2
    assert replay.columns["next_text"][0, -6] == -1, "the last was cut off"
    assert len(replay) == 15


def test_what_follows_is_the_next_text_of_the_same_agent_or_none():
    rng, replay = np.random.default_rng(0), Replay(3, places=10, actions=5)
    t = life(rng)
    terminal = t.is_terminal.copy()
    terminal[1, 0] = True
    replay.add(t._replace(is_terminal=terminal), t.reward)
    following = [None if n < 0 else replay.texts[n] for n in replay.columns["next_text"][0, :5]]
    texts = [t.texts[n] for n in t.text[:, 0]]
    assert following == [texts[1], None, texts[3], texts[4], None]


def test_the_oldest_make_room():
    rng, replay = np.random.default_rng(0), Replay(3, places=8, actions=5)
    first, second = life(rng), life(rng)
    replay.add(first, first.reward)
    replay.add(second, second.reward)
    assert sorted(held(replay, 1)) == sorted(lived(first, 1)[2:] + lived(second, 1))
    long = life(rng, steps=20)
    replay.add(long, long.reward)
    assert sorted(held(replay, 2)) == sorted(lived(long, 2)[-8:])


def test_steps_of_the_dead_are_not_remembered_and_worlds_are_told_apart():
    rng, replay = np.random.default_rng(0), Replay(3, places=20, actions=5)
    alive = np.ones((5, 6), bool)
    alive[3:, 4] = False  # agent 1 in the second world
    t = life(rng, worlds=2, alive=alive)
    replay.add(t, t.reward)
    assert replay.written.tolist() == [10, 8, 10]
    assert sorted(held(replay, 1)) == sorted(lived(t, 1) + lived(t, 4)[:3])


def test_texts_that_nobody_remembers_are_dropped():
    rng, replay = np.random.default_rng(0), Replay(3, places=5, actions=5)
    for generation in range(6):
        t = life(rng, texts=[f" text {generation} {i}" for i in range(4)])
        replay.add(t, t.reward)
    assert {text.split()[1] for text in replay.texts} == {"5"}
    assert held(replay, 0) == sorted(held(replay, 0), key=lambda row: lived(t, 0).index(row))


def test_a_newcomer_remembers_nothing():
    rng, replay = np.random.default_rng(0), Replay(3, places=5, actions=5)
    t = life(rng)
    replay.add(t, t.reward)
    replay.forget(1)
    assert (held(replay, 1), len(replay)) == ([], 10)


def test_it_comes_back_as_it_was():
    rng, replay, other = np.random.default_rng(0), Replay(3, places=8, actions=5), Replay(3, places=8, actions=5)
    t = life(rng)
    replay.add(t, t.reward)
    other.restore({name: tensor.clone() for name, tensor in replay.tensors().items()}, replay.texts)
    t = life(rng, texts=[" other"])
    for one in (replay, other):
        one.add(t, t.reward)
    assert other.texts == replay.texts
    assert all(np.array_equal(other.columns[name], column) for name, column in replay.columns.items())
    with pytest.raises(ValueError, match=r"replay.text has shape \(3, 8\): must be \(3, 9\)"):
        Replay(3, places=9, actions=5).restore(replay.tensors(), [])


def learner_with_memories(policy, rewarded: int) -> tuple[Learner, Trajectory]:
    """A learner whose agents remember that one action was rewarded, and the same number of unrewarded ones."""
    policy.mind.bank.reset(seed=0)
    learner = Learner(policy, LearnConfig(replay=64, max_kl=10.0))
    rng = np.random.default_rng(0)
    t = life(rng, steps=40, agents=6)
    action = rng.integers(5, size=t.action.shape)
    t = t._replace(action=action, legal=np.ones_like(t.legal), reward=(action == rewarded).astype(np.float32))
    learner.replay.add(t, t.reward)
    return learner, t


def imitate_own_lives(learner, resting) -> None:
    policy, rates = learner.policy, torch.full((6,), 0.01)
    demonstrations = own_demonstrations(policy, learner.replay)
    imitate(
        policy,
        learner.optimiser,
        learner.config,
        *demonstrations,
        slice(0, 6),
        resting,
        rates,
        np.random.default_rng(0),
    )


def test_pools_are_the_places_that_hold_something_of_ones_own(tiny_policy):
    learner, _ = learner_with_memories(tiny_policy, rewarded=3)
    learner.replay.forget(2)
    _, pools = own_demonstrations(tiny_policy, learner.replay)
    assert [pool.tolist() for pool in pools[1:4]] == [list(range(64, 104)), [], list(range(192, 232))]


def test_what_went_well_is_imitated_by_those_who_lived_it(tiny_policy):
    learner, _ = learner_with_memories(tiny_policy, rewarded=3)
    learner.replay.forget(2)
    everyone, resting = np.arange(6), torch.zeros(6, dtype=torch.bool)
    before = tiny_policy.logits(TEXTS[:1] * 6, everyone)[:, 3].copy()
    values = tiny_policy.mind.bank.values.clone()
    for _ in range(10):
        imitate_own_lives(learner, resting)
    gained = tiny_policy.logits(TEXTS[:1] * 6, everyone)[:, 3] - before
    assert gained[2] == 0
    assert torch.equal(tiny_policy.mind.bank.values[2], values[2])
    assert np.delete(gained, 2).min() > 0.5


def test_what_went_worse_than_expected_is_not_imitated(tiny_policy):
    learner, _ = learner_with_memories(tiny_policy, rewarded=3)
    learner.replay.columns["returned"][:] = -10.0
    values = tiny_policy.mind.bank.values.clone()
    imitate_own_lives(learner, torch.zeros(6, dtype=torch.bool))
    assert (tiny_policy.mind.bank.values - values).abs().max() < 1e-6


def test_the_critic_learns_from_former_lives_by_one_step_targets(tiny_policy):
    """Memories say that the first text is followed by the second, and the second by reward 2 and an end."""
    learner = Learner(tiny_policy, LearnConfig(replay=64, discount=0.5, critic_learning_rate=0.01))
    rng = np.random.default_rng(0)
    t = life(rng, steps=2, agents=6)
    text = np.array([[0] * 6, [1] * 6])
    t = t._replace(text=text, reward=np.array([[0.0] * 6, [2.0] * 6], np.float32))
    learner.replay.add(t, np.array([[9.0] * 6, [2.0] * 6], np.float32))  # the first return is not to be believed
    old = learner.critic.old_lessons(learner.replay)
    expected = 0.5 * tiny_policy.values(TEXTS[1:])[0]
    assert old.target.tolist() == pytest.approx([expected, 2.0] * 6, abs=1e-5)


def test_a_learner_remembers_every_life_and_learns_from_it(tiny_policy):
    rates, ends = torch.full((6,), 0.01), []
    for places in (0, 64):
        tiny_policy.mind.bank.reset(seed=0)
        learner, generator = Learner(tiny_policy, LearnConfig(replay=places, max_kl=10.0)), np.random.default_rng(1)
        for seed in (0, 1):
            t = life(np.random.default_rng(seed), steps=20, agents=6)
            t = t._replace(legal=np.ones_like(t.legal))
            figures = learner.learn(t, rates, torch.zeros(6), generator)
        ends.append(tiny_policy.mind.bank.values.clone())
    assert figures["replay_steps"] == 6 * 40
    assert not torch.equal(*ends)


def test_an_impossible_size_is_refused():
    with pytest.raises(ValueError, match=r"learn.replay = -1: must be 0 \(none\) or more"):
        LearnConfig(replay=-1)


def test_the_critic_knows_what_only_former_lives_met(tiny_policy):
    """What is read now brings nothing; a former life ended with 5 after the other text."""
    learner = Learner(tiny_policy, LearnConfig(replay=64, critic_learning_rate=0.01))
    rng = np.random.default_rng(0)
    t = life(rng, texts=TEXTS[1:], agents=6)
    learner.replay.add(t, np.full(t.reward.shape, 5.0))
    learner.replay.columns["next_text"][:] = -1
    t = life(rng, texts=TEXTS[:1], agents=6)
    t = t._replace(reward=0 * t.reward, legal=np.ones_like(t.legal))
    learner.learn(t, torch.zeros(6), torch.zeros(6), rng)
    now, formerly = tiny_policy.values(TEXTS)
    assert formerly > now + 1


def test_who_rests_does_not_imitate(tiny_policy):
    learner, _ = learner_with_memories(tiny_policy, rewarded=3)
    before = tiny_policy.mind.bank.values.clone()
    imitate_own_lives(learner, resting=torch.arange(6) == 4)
    changed = (tiny_policy.mind.bank.values != before).any(dim=1)
    assert changed.tolist() == [True, True, True, True, False, True]
