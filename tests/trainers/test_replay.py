"""Replay buffers are bounded, belong to one agent, come back from a checkpoint, and teach what went well."""

import numpy as np
import pytest
import torch

from agents.types import UserError
from trainers import stages
from trainers.begin import begin
from trainers.cli.parser import parse
from trainers.learning.config import LearnConfig
from trainers.learning.imitation import imitate
from trainers.learning.learner import Learner, make_learner
from trainers.rollout import Trajectory
from trainers.variants.replay import ReplayBuffer, one_step_targets, own_demonstrations
from trainers.variants.replay_config import ReplayConfig

TEXTS = [" food north" * 6, " food south" * 6]


def trajectory(rng, texts=TEXTS, steps=5, agents=3, worlds=1, alive=None) -> Trajectory:
    shape = (steps, agents * worlds)
    never, zero = np.zeros(shape, bool), np.zeros(shape, np.float32)
    truncated = never.copy()
    truncated[-1] = True
    legal = rng.random((*shape, 5)) < 0.8
    alive = ~never if alive is None else alive
    action, text = rng.integers(5, size=shape), rng.integers(len(texts), size=shape)
    reward = rng.random(shape).astype(np.float32)
    return Trajectory(list(texts), text, legal, action, zero - 1, zero, reward, alive, never, truncated, zero, alive)


def held(buffer, agent) -> list[tuple]:
    """What an agent remembers, as texts, actions and rewards, in the order of its places."""
    c, count = buffer.columns, int(buffer.filled()[agent].sum())
    return [
        (buffer.texts[c["text"][agent, i]], int(c["action"][agent, i]), float(c["reward"][agent, i]))
        for i in range(count)
    ]


def lived(t, agent) -> list[tuple]:
    return [(t.texts[t.text[s, agent]], int(t.action[s, agent]), float(t.reward[s, agent])) for s in range(len(t.text))]


def test_a_life_is_remembered_by_whoever_lived_it():
    rng, buffer = np.random.default_rng(0), ReplayBuffer(3, places=10, actions=5)
    t = trajectory(rng)
    buffer.add(t, t.reward * 2)
    for agent in range(3):
        assert held(buffer, agent) == lived(t, agent)
    assert np.array_equal(buffer.columns["legal"][1, :5], t.legal[:, 1])
    assert buffer.columns["returned"][2, 3] == t.reward[3, 2] * 2
    assert buffer.columns["next_text"][0, -6] == -1, "the last was truncated"
    assert len(buffer) == 15


def test_what_follows_is_the_next_text_of_the_same_agent_or_none():
    rng, buffer = np.random.default_rng(0), ReplayBuffer(3, places=10, actions=5)
    t = trajectory(rng)
    terminal = t.is_terminal.copy()
    terminal[1, 0] = True
    buffer.add(t._replace(is_terminal=terminal), t.reward)
    following = [None if n < 0 else buffer.texts[n] for n in buffer.columns["next_text"][0, :5]]
    texts = [t.texts[n] for n in t.text[:, 0]]
    assert following == [texts[1], None, texts[3], texts[4], None]


def test_the_oldest_make_room():
    rng, buffer = np.random.default_rng(0), ReplayBuffer(3, places=8, actions=5)
    first, second = trajectory(rng), trajectory(rng)
    buffer.add(first, first.reward)
    buffer.add(second, second.reward)
    assert sorted(held(buffer, 1)) == sorted(lived(first, 1)[2:] + lived(second, 1))
    long = trajectory(rng, steps=20)
    buffer.add(long, long.reward)
    assert sorted(held(buffer, 2)) == sorted(lived(long, 2)[-8:])


def test_steps_of_the_dead_are_not_remembered_and_worlds_are_told_apart():
    rng, buffer = np.random.default_rng(0), ReplayBuffer(3, places=20, actions=5)
    alive = np.ones((5, 6), bool)
    alive[3:, 4] = False  # agent 1 in the second world
    t = trajectory(rng, worlds=2, alive=alive)
    buffer.add(t, t.reward)
    assert buffer.written.tolist() == [10, 8, 10]
    assert sorted(held(buffer, 1)) == sorted(lived(t, 1) + lived(t, 4)[:3])


def test_texts_that_nobody_remembers_are_dropped():
    rng, buffer = np.random.default_rng(0), ReplayBuffer(3, places=5, actions=5)
    for generation in range(6):
        t = trajectory(rng, texts=[f" text {generation} {i}" for i in range(4)])
        buffer.add(t, t.reward)
    assert {text.split()[1] for text in buffer.texts} == {"5"}
    assert held(buffer, 0) == sorted(held(buffer, 0), key=lambda row: lived(t, 0).index(row))


def test_a_newcomer_remembers_nothing():
    rng, buffer = np.random.default_rng(0), ReplayBuffer(3, places=5, actions=5)
    t = trajectory(rng)
    buffer.add(t, t.reward)
    buffer.forget(1)
    assert (held(buffer, 1), len(buffer)) == ([], 10)


def test_it_comes_back_as_it_was():
    rng, buffer, other = (
        np.random.default_rng(0),
        ReplayBuffer(3, places=8, actions=5),
        ReplayBuffer(3, places=8, actions=5),
    )
    t = trajectory(rng)
    buffer.add(t, t.reward)
    other.restore({name: tensor.clone() for name, tensor in buffer.tensors().items()}, buffer.texts)
    t = trajectory(rng, texts=[" other"])
    for one in (buffer, other):
        one.add(t, t.reward)
    assert other.texts == buffer.texts
    assert all(np.array_equal(other.columns[name], column) for name, column in buffer.columns.items())
    with pytest.raises(ValueError, match=r"replay.text has shape \(3, 8\): must be \(3, 9\)"):
        ReplayBuffer(3, places=9, actions=5).restore(buffer.tensors(), [])


def remembering(policy, rewarded: int) -> ReplayBuffer:
    """Each of six agents remembers that one action was rewarded, and as many unrewarded ones."""
    policy.network.bank.reset(seed=0)
    rng, buffer = np.random.default_rng(0), ReplayBuffer(6, places=64, actions=5)
    t = trajectory(rng, steps=40, agents=6)
    action = rng.integers(5, size=t.action.shape)
    t = t._replace(action=action, legal=np.ones_like(t.legal), reward=(action == rewarded).astype(np.float32))
    buffer.add(t, t.reward)
    return buffer


def imitate_own(learner: Learner, buffer: ReplayBuffer, is_stopped: torch.Tensor) -> None:
    policy, rates, rng = learner.policy, torch.full((6,), 0.01), np.random.default_rng(0)
    examples, pools = own_demonstrations(policy, buffer)
    imitate(policy, learner.optimiser, learner.config, examples, pools, slice(0, 6), is_stopped, rates, rng)


def test_pools_are_the_places_that_hold_something_of_ones_own(tiny_policy):
    buffer = remembering(tiny_policy, rewarded=3)
    buffer.forget(2)
    _, pools = own_demonstrations(tiny_policy, buffer)
    assert [pool.tolist() for pool in pools[1:4]] == [list(range(64, 104)), [], list(range(192, 232))]


def test_what_went_well_is_imitated_by_those_who_lived_it(tiny_policy):
    buffer, learner = remembering(tiny_policy, rewarded=3), make_learner(tiny_policy, LearnConfig())
    buffer.forget(2)
    everyone, is_stopped = np.arange(6), torch.zeros(6, dtype=torch.bool)
    before = tiny_policy.logits(TEXTS[:1] * 6, everyone)[:, 3].copy()
    values = tiny_policy.network.bank.values.clone()
    for _ in range(10):
        imitate_own(learner, buffer, is_stopped)
    gained = tiny_policy.logits(TEXTS[:1] * 6, everyone)[:, 3] - before
    assert gained[2] == 0
    assert torch.equal(tiny_policy.network.bank.values[2], values[2])
    assert np.delete(gained, 2).min() > 0.5


def test_what_went_worse_than_expected_is_not_imitated(tiny_policy):
    buffer, learner = remembering(tiny_policy, rewarded=3), make_learner(tiny_policy, LearnConfig())
    buffer.columns["returned"][:] = -10.0
    values = tiny_policy.network.bank.values.clone()
    imitate_own(learner, buffer, torch.zeros(6, dtype=torch.bool))
    assert (tiny_policy.network.bank.values - values).abs().max() < 1e-6


def test_who_is_stopped_does_not_imitate(tiny_policy):
    buffer, learner = remembering(tiny_policy, rewarded=3), make_learner(tiny_policy, LearnConfig())
    before = tiny_policy.network.bank.values.clone()
    imitate_own(learner, buffer, is_stopped=torch.arange(6) == 4)
    changed = (tiny_policy.network.bank.values != before).any(dim=1)
    assert changed.tolist() == [True, True, True, True, False, True]


@pytest.mark.parametrize("rows", [64, 1000])
def test_pooled_all_imitate_what_each_remembers(tiny_policy, rows):
    """By the mean of their gradients, in which first moments are linear; but not who is stopped or has no examples."""
    buffer, bank = remembering(tiny_policy, rewarded=3), tiny_policy.network.bank
    buffer.forget(1)
    tiny_policy.network.rows_at_once, is_stopped = rows, torch.arange(6) == 4
    bank.values[:] = bank.values[0].clone()
    born, means = bank.values.clone(), []
    for pool in (False, True):
        bank.values[:] = born
        learner = make_learner(tiny_policy, LearnConfig(pool=pool, max_grad_norm=1e9))
        examples, pools = own_demonstrations(tiny_policy, buffer)
        still, rng = torch.zeros(6), np.random.default_rng(0)  # a rate of 0: only moments change
        imitate(tiny_policy, learner.optimiser, learner.config, examples, pools, slice(0, 6), is_stopped, still, rng)
        means.append(learner.optimiser.mean.clone())
    own, pooled = means
    learners = [0, 2, 3, 5]
    assert not pooled[[1, 4]].any()
    torch.testing.assert_close(pooled[learners], own[learners].mean(dim=0).expand(4, -1), rtol=1e-3, atol=1e-7)
    assert (own[0] - own[2]).abs().max() > 1e-3 * own.abs().max()


def test_a_poisoned_example_does_not_enter_the_pool(tiny_policy):
    buffer, bank = remembering(tiny_policy, rewarded=3), tiny_policy.network.bank
    learner, before = make_learner(tiny_policy, LearnConfig(pool=True)), tiny_policy.network.bank.values.clone()
    examples, pools = own_demonstrations(tiny_policy, buffer)
    examples.advantage[pools[2]] = np.inf
    nobody, rates, rng = torch.zeros(6, dtype=torch.bool), torch.full((6,), 0.01), np.random.default_rng(0)
    imitate(tiny_policy, learner.optimiser, learner.config, examples, pools, slice(0, 6), nobody, rates, rng)
    assert bank.values.isfinite().all()
    assert (bank.values != before).any(dim=1).all()


def test_the_critic_learns_from_former_rollouts_by_one_step_targets(tiny_policy):
    """Memories say that the first text is followed by the second, and the second by reward 2 and an end."""
    buffer = ReplayBuffer(6, places=64, actions=5)
    t = trajectory(np.random.default_rng(0), steps=2, agents=6)
    text = np.array([[0] * 6, [1] * 6])
    t = t._replace(text=text, reward=np.array([[0.0] * 6, [2.0] * 6], np.float32))
    buffer.add(t, np.array([[9.0] * 6, [2.0] * 6], np.float32))  # the first return is not to be believed
    examples = one_step_targets(tiny_policy, buffer, discount=0.5)
    expected = 0.5 * tiny_policy.values(TEXTS[1:])[0]
    assert examples.target.tolist() == pytest.approx([expected, 2.0] * 6, abs=1e-5)
    assert [buffer.texts[i] for i in examples.text] == TEXTS * 6


def test_agents_remember_every_rollout_and_learn_from_the_ones_before(tiny_arguments, tmp_path):
    ends, remembered, steps = [], [], []
    for places in (0, 64):
        keys = ["--learn.max_kl", "10", "--replay.steps", str(places), "--run_dir", str(tmp_path / str(places))]
        run = begin(parse([*tiny_arguments, *keys])[0], None)
        for number in (0, 1):
            rollout = stages.collect(run, stages.Generation(number))
            steps.append(int(rollout.trajectory.is_alive.sum()))
            remembered.append(stages.learn(run, rollout).get("replay_steps"))
            ends.append(run.population.policy.network.bank.values.clone())
    assert remembered == [None, None, steps[0], steps[0] + steps[1]]
    assert torch.equal(ends[0], ends[2])
    assert not torch.equal(ends[1], ends[3])


def test_the_critic_knows_what_only_former_rollouts_met(begun):
    """What is read now brings nothing; a former rollout ended with 5 after another text."""
    run = begun("--learn.max_kl", "10", "--learn.critic_learning_rate", "0.01", "--replay.steps", "64")
    buffer = run.population.variants["replay"].buffer
    t = trajectory(np.random.default_rng(0), texts=TEXTS[1:], agents=6)
    buffer.add(t, np.full(t.reward.shape, 5.0))
    buffer.columns["next_text"][:] = -1
    rollout = stages.collect(run, stages.Generation(0))
    t = rollout.trajectory
    stages.learn(run, rollout._replace(trajectory=t._replace(reward=0 * t.reward)))
    assert TEXTS[1] not in t.texts
    formerly, now = (run.population.policy.values(texts) for texts in (TEXTS[1:], t.texts))
    assert formerly > now.mean() + 1


def test_an_impossible_size_is_refused():
    with pytest.raises(UserError, match=r"replay.steps = -1: must be 0 \(none\) or more"):
        ReplayConfig(steps=-1)
    with pytest.raises(UserError, match=r"replay.steps = 5: must be 0 with learn.algorithm = none"):
        parse(["--replay.steps", "5", "--learn.algorithm", "none"])
