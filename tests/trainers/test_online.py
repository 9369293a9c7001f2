"""Learning while acting: every reward reaches the decisions that it belongs to, of its own agent alone."""

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch

from agents.types import Tokens
from trainers.learning.config import LearnConfig
from trainers.learning.imitation import examples_of
from trainers.learning.learner import make_learner
from trainers.learning.online import MOST_STEPS_AHEAD, BackgroundObserver, OnlineObserver
from trainers.rollout import Observed, Trajectory

TEXTS = [" food north" * 6, " rock south" * 6]
WANTED = np.array([1, 2])  # the action that each text rewards
CONFIG = LearnConfig(algorithm="online", max_kl=10.0, discount=0.9, gae_lambda=0.9, trace=3)


def observer_of(policy, rate=0.003, entropy=0.0, **changes) -> OnlineObserver | BackgroundObserver:
    agents = len(policy.network.bank)
    learner = make_learner(policy, replace(CONFIG, **changes))
    (observer,) = learner.start(torch.full((agents,), rate), torch.full((agents,), entropy))
    return observer


def show(observer, transition) -> None:
    """As `collect_rollout` shows a step."""
    observer.step(Observed(0, False, TEXTS, transition, None, None, None))


def step_of(policy, rng, text, reward=None, ends=False, alive=None) -> dict:
    """A step of all agents (M,), in as many worlds as there are texts for."""
    agents, everyone = len(policy.network.bank), len(text)
    legal = np.ones((everyone, 5), bool)
    decision = policy.act([TEXTS[i] for i in text], np.arange(everyone) % agents, legal, rng)
    gained = decision.action == WANTED[text] if reward is None else np.asarray(reward)
    never = np.zeros(everyone, bool)
    alive = ~never if alive is None else alive
    columns = {
        "reward": gained.astype(np.float32),
        "is_terminal": never | ends,
        "is_truncated": never,
        "text": np.asarray(text),
    }
    return (
        decision._asdict()
        | columns
        | {"legal": legal, "is_lived": alive, "bootstrap_value": np.zeros(everyone, np.float32)}
    )


@pytest.mark.parametrize("tokens", get_args(Tokens))
@pytest.mark.parametrize("worlds", [1, 2])
def test_agents_solve_an_identity_task(tiny_policy, worlds):
    tiny_policy.network.bank.reset(seed=0)
    rng = np.random.default_rng(0)
    observer = observer_of(tiny_policy, rate=0.01, entropy=0.1)
    rewards = []
    for _ in range(400):
        now = step_of(tiny_policy, rng, rng.integers(2, size=6 * worlds), ends=True)
        show(observer, now | {"value": np.full(6 * worlds, 0.5, np.float32)})
        rewards.append(now["reward"])
    figures = observer.finish(TEXTS)
    assert np.mean(rewards[:10]) < 0.5
    assert np.median(np.mean(rewards[-40:], axis=0)) > 0.9
    assert figures["ratio_error"] < 1e-4
    assert figures["approx_kl"] > 0.1
    assert len(observer.update_s) == 400


def gradient(policy, observer) -> torch.Tensor:
    """The gradient (N, F) of the last update: taken from Adam's first step, where mean is (1 - beta1) of it."""
    return observer.optimiser.mean / 0.1


def test_a_reward_is_credited_to_the_decisions_before_it_by_how_long_ago_they_were(tiny_policy):
    rng = np.random.default_rng(0)
    read = [[0] * 6, [1] * 6, [0] * 6, [1] * 6]
    steps = [step_of(tiny_policy, rng, text, reward=[0.0] * 6) for text in read]
    zero = np.zeros(6, np.float32)
    steps = [m | {"value": zero} for m in steps]
    steps[-1] |= {"reward": np.ones(6, np.float32), "is_terminal": np.ones(6, bool)}
    observer = observer_of(tiny_policy, rate=0.0, max_grad_norm=1e9)  # nothing moves: all gradients are of one policy
    for m in steps:
        show(observer, m)
    observer.optimiser.mean.zero_()
    observer.finish(TEXTS)
    bank = tiny_policy.network.bank
    with bank.gathering(slice(0, 6)) as expected:
        for back, m in enumerate(steps[:0:-1]):  # the trace is three long: the first is out of it
            texts = [TEXTS[i] for i in m["text"]]
            action = torch.from_numpy(m["action"])
            log_prob, _ = tiny_policy.evaluate(texts, torch.arange(6), action, torch.ones(6, 5, dtype=torch.bool))
            (-(0.81**back) * log_prob).sum().backward()
    torch.testing.assert_close(gradient(tiny_policy, observer), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("worlds", [1, 2])
def test_credit_is_weighted_by_all_ratios_between_a_decision_and_its_reward(tiny_policy, worlds):
    """As in V-trace: a decision that came before one which is now unlikely has little to do with what came of that."""
    rng, everyone = np.random.default_rng(0), 6 * worlds
    steps = [step_of(tiny_policy, rng, [i] * everyone, reward=[float(i)] * everyone) for i in range(2)]
    older, newest = (m | {"value": np.zeros(everyone, np.float32)} for m in steps)
    newest |= {"is_terminal": np.ones(everyone, bool)}
    likelier = np.array([2.0, 4.0, 0.5, 1.0, 10.0, 1.0, 1.0, 8.0, 4.0, 1.0, 0.5, 1.0], np.float32)[:everyone]
    seen = [older, newest | {"log_prob": newest["log_prob"] + np.log(likelier)}]  # when it was chosen than now
    observer = observer_of(tiny_policy, rate=0.0, max_grad_norm=1e9)
    for m in seen:
        show(observer, m)
    observer.optimiser.mean.zero_()
    observer.finish(TEXTS)
    bank, ratio = tiny_policy.network.bank, torch.from_numpy(1 / likelier).clamp(max=1)
    with bank.gathering(slice(0, 6)) as expected:
        for own in (slice(6 * world, 6 * world + 6) for world in range(worlds)):
            for factor, m in ((ratio, newest), (0.81 * ratio, older)):
                text, action = [TEXTS[i] for i in m["text"][own]], torch.from_numpy(m["action"][own])
                log_prob, _ = tiny_policy.evaluate(text, torch.arange(6), action, torch.ones(6, 5, dtype=torch.bool))
                (-factor[own] / worlds * log_prob).sum().backward()
    torch.testing.assert_close(gradient(tiny_policy, observer), expected, atol=1e-5, rtol=1e-4)


def test_change_and_entropy_are_of_the_actions_that_were_allowed(tiny_policy):
    rng = np.random.default_rng(0)
    legal = np.zeros((6, 5), bool)
    legal[:, [1, 3]] = True
    observer = observer_of(tiny_policy, max_kl=1e9)
    decision = tiny_policy.act([TEXTS[0]] * 6, np.arange(6), legal, rng)
    now = step_of(tiny_policy, rng, [0] * 6, reward=[1.0] * 6, ends=True) | decision._asdict() | {"legal": legal}
    before = tiny_policy.logits([TEXTS[0]] * 6, np.arange(6))[:, [1, 3]]
    show(observer, now | {"value": np.zeros(6, np.float32)})
    figures = observer.finish(TEXTS)
    after = tiny_policy.logits([TEXTS[0]] * 6, np.arange(6))[:, [1, 3]]
    p, q = (torch.tensor(x).double().log_softmax(1) for x in (before, after))
    assert figures["approx_kl"] == pytest.approx(float((p.exp() * (p - q)).sum(1).mean()), rel=1e-3)
    assert figures["entropy"] == pytest.approx(float(-(q.exp() * q).sum(1).mean()), rel=1e-3)


def test_credit_ends_where_an_episode_began(tiny_policy):
    rng = np.random.default_rng(0)
    first = step_of(tiny_policy, rng, [0] * 6, reward=[0.0] * 6) | {"value": np.zeros(6, np.float32)}
    ended = first | {"is_terminal": np.array([True, False] * 3)}
    second = step_of(tiny_policy, rng, [1] * 6, reward=[1.0] * 6, ends=True) | {"value": np.zeros(6, np.float32)}
    observer = observer_of(tiny_policy, rate=0.0, max_grad_norm=1e9)
    show(observer, ended)
    show(observer, second)
    observer.optimiser.mean.zero_()
    observer.finish(TEXTS)
    bank = tiny_policy.network.bank
    with bank.gathering(slice(0, 6)) as expected:
        for factor, m in ((torch.ones(6), second), (torch.tensor([0.0, 0.81] * 3), first)):
            texts, action = [TEXTS[i] for i in m["text"]], torch.from_numpy(m["action"])
            log_prob, _ = tiny_policy.evaluate(texts, torch.arange(6), action, torch.ones(6, 5, dtype=torch.bool))
            (-factor * log_prob).sum().backward()
    torch.testing.assert_close(gradient(tiny_policy, observer), expected, atol=1e-5, rtol=1e-4)


def test_the_error_is_one_step_of_the_critic(tiny_policy):
    """With a critic that is right, nothing is learned: reward 1, then nothing; values 1 + 0.9 * 2 and 2."""
    rng = np.random.default_rng(0)
    one = step_of(tiny_policy, rng, [0] * 6, reward=[1.0] * 6) | {"value": np.full(6, 2.8, np.float32)}
    two = step_of(tiny_policy, rng, [1] * 6, reward=[2.0] * 6, ends=True) | {"value": np.full(6, 2.0, np.float32)}
    before = tiny_policy.network.bank.values.clone()
    observer = observer_of(tiny_policy)
    show(observer, one)
    show(observer, two)
    observer.finish(TEXTS)
    assert (tiny_policy.network.bank.values - before).abs().max() < 0.004  # Adam takes full steps of tiny gradients
    assert observer.optimiser.mean.abs().max() < 1e-6


def test_the_dead_learn_nothing(tiny_policy):
    rng = np.random.default_rng(0)
    before = tiny_policy.network.bank.values.clone()
    alive = np.array([True, False, True, True, True, False])
    observer = observer_of(tiny_policy)
    for _ in range(3):
        now = step_of(tiny_policy, rng, [0] * 6, alive=alive)
        show(observer, now | {"legal": np.ones((6, 5), bool) & alive[:, None]})
    observer.finish(TEXTS)
    assert (tiny_policy.network.bank.values != before).any(dim=1).tolist() == alive.tolist()


def test_who_exceeds_max_kl_over_a_rollout_is_projected(tiny_policy):
    rng = np.random.default_rng(0)
    observer = observer_of(tiny_policy, rate=0.05, max_kl=0.02)
    for _ in range(20):
        show(observer, step_of(tiny_policy, rng, rng.integers(2, size=6), ends=True))
    figures = observer.finish(TEXTS)
    assert figures["kl_exceeded"] >= 3
    assert figures["approx_kl"] > 0.02
    kl, _ = observer._change(TEXTS)
    assert kl.mean() < figures["approx_kl"] / 2


def test_who_is_no_number_any_more_goes_back_and_is_counted_and_the_others_learn(tiny_policy):
    rng, before = np.random.default_rng(0), tiny_policy.network.bank.values.clone()
    observer = observer_of(tiny_policy)
    for _ in range(3):
        now = step_of(tiny_policy, rng, [0] * 6)
        now["reward"][4] = np.nan
        show(observer, now)
    figures = observer.finish(TEXTS)
    assert all(np.isfinite(value) for value in figures.values())
    assert figures["not_finite"] == 1
    changed = (tiny_policy.network.bank.values != before).any(dim=1)
    assert changed.tolist() == [True, True, True, True, False, True]


def test_small_parts_change_nothing(tiny_policy):
    begin, ends = tiny_policy.network.bank.values.clone(), []
    for rows in (4, 12, 1000):
        tiny_policy.network.bank.values[:] = begin
        tiny_policy.network.rows_at_once = rows
        rng, observer = np.random.default_rng(0), observer_of(tiny_policy)
        for _ in range(5):
            show(observer, step_of(tiny_policy, rng, rng.integers(2, size=6)))
        observer.finish(TEXTS)
        ends.append(tiny_policy.network.bank.values.clone())
    torch.testing.assert_close(ends[0], ends[2], atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(ends[1], ends[2], atol=1e-4, rtol=1e-3)


def test_in_the_background_agents_act_by_a_copy_and_learn_as_well(tiny_policy):
    tiny_policy.network.bank.reset(seed=0)
    bank, rng = tiny_policy.network.bank, np.random.default_rng(0)
    threads = torch.get_num_threads()
    observer, rewards, copies = observer_of(tiny_policy, rate=0.01, entropy=0.1, background=True), [], set()
    assert isinstance(observer, BackgroundObserver)
    observer.start(None)
    while len(observer.learning.update_s) < 400:  # each of some steps, of how many is up to the machine
        now = step_of(tiny_policy, rng, rng.integers(2, size=6), ends=True)
        assert bank.acting is not bank.values
        copies.add(bank.acting_version)
        show(observer, now | {"value": np.full(6, 0.5, np.float32)})
        rewards.append(now["reward"])
    observer.stop()
    figures = observer.finish(TEXTS)
    assert np.median(np.mean(rewards[-40:], axis=0)) > 0.9
    assert len(copies) > 20
    assert 0 <= figures["staleness_mean"] <= figures["staleness_max"] <= 2 * MOST_STEPS_AHEAD
    assert len(observer.learning._read) == len(rewards)
    assert bank.acting is bank.values
    assert torch.get_num_threads() == threads


def test_what_goes_wrong_in_the_background_is_raised_where_agents_act(tiny_policy):
    observer, rng = observer_of(tiny_policy, background=True), np.random.default_rng(0)
    observer.start(None)
    broken = step_of(tiny_policy, rng, [0] * 6)
    del broken["reward"]
    for _ in range(2):  # the first error comes with the second step, when its action is credited
        show(observer, broken)

    def go_on():
        for _ in range(MOST_STEPS_AHEAD + 2):  # no more find a place before the thread has come so far
            show(observer, broken)

    with pytest.raises(RuntimeError, match="learning in the background failed") as error:
        go_on()
    assert observer._thread.is_alive(), "it goes on, waiting for work"
    assert isinstance(error.value.__cause__, KeyError)
    observer.stop()
    assert not observer._thread.is_alive()


def test_old_decisions_count_by_the_ratio_at_most_one(tiny_policy):
    rng, gradients = np.random.default_rng(0), []
    one = step_of(tiny_policy, rng, [0] * 6, reward=[1.0] * 6, ends=True) | {"value": np.zeros(6, np.float32)}
    for shift in (0.0, 1.0, -1.0):  # as if it had been likelier, or less likely, when it was done
        observer = observer_of(tiny_policy, rate=0.0, max_grad_norm=1e9)
        show(observer, one | {"log_prob": one["log_prob"] + np.float32(shift)})
        observer.finish(TEXTS)
        gradients.append(gradient(tiny_policy, observer))
    torch.testing.assert_close(gradients[1], gradients[0] * np.exp(-1), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(gradients[2], gradients[0], atol=1e-5, rtol=1e-4)


def test_a_truncation_is_valued_by_what_was_seen_then_and_ends_the_trace(tiny_policy):
    rng, zero = np.random.default_rng(0), np.zeros(6, np.float32)
    first = step_of(tiny_policy, rng, [0] * 6, reward=[0.0] * 6) | {"value": zero}
    first |= {"is_truncated": np.array([True, False] * 3), "bootstrap_value": np.full(6, 2.0, np.float32)}
    second = step_of(tiny_policy, rng, [1] * 6, reward=[1.0] * 6, ends=True) | {"value": zero}
    observer = observer_of(tiny_policy, rate=0.0, max_grad_norm=1e9)
    show(observer, first)
    show(observer, second)
    bank, gradients = tiny_policy.network.bank, [gradient(tiny_policy, observer).clone()]
    observer.optimiser.mean.zero_()
    observer.finish(TEXTS)
    gradients.append(gradient(tiny_policy, observer))
    nothing, everything = torch.zeros(6), torch.ones(6)
    credit = (torch.tensor([1.8, 0.0] * 3), nothing), (torch.tensor([0.0, 0.81] * 3), everything)
    for got, factors in zip(gradients, credit, strict=True):
        with bank.gathering(slice(0, 6)) as expected:
            for factor, m in zip(factors, (first, second), strict=True):
                texts, action = [TEXTS[i] for i in m["text"]], torch.from_numpy(m["action"])
                log_prob, _ = tiny_policy.evaluate(texts, torch.arange(6), action, torch.ones(6, 5, dtype=torch.bool))
                (-factor * log_prob).sum().backward()
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("background", [False, True])
def test_who_learns_online_imitates_too(tiny_policy, background):
    """What it lived through taught agent 0 nothing, but it saw agent 3 earn much by action 3."""
    tiny_policy.network.bank.reset(seed=0)
    rng, nobody, rates = np.random.default_rng(0), np.array([], int), torch.full((6,), 0.01)
    now = step_of(tiny_policy, rng, [0] * 6, reward=[0.0] * 6, ends=True)
    now |= {"value": np.zeros(6, np.float32), "is_alive": now["is_lived"]}
    t = Trajectory(TEXTS, **{name: now[name][None].copy() for name in Trajectory._fields if name != "texts"})
    t.action[0, 3], t.reward[0, 3] = 3, 9.0
    learner = make_learner(tiny_policy, replace(CONFIG, background=background))
    before = tiny_policy.logits(TEXTS[:1], np.array([0]))
    (observer,) = learner.start(rates, torch.zeros(6))
    observer.start(None)
    show(observer, now)
    observer.stop()
    experience = learner.experience(t, rates, torch.zeros(6))
    shown = examples_of(tiny_policy, t, experience.returns.numpy()), [np.array([3]), *[nobody] * 5]
    learner.learn(experience._replace(demonstrations=[shown]), rng)
    assert (tiny_policy.logits(TEXTS[:1], np.array([0])) - before)[0, 3] > 0.01


@pytest.mark.parametrize("worlds", [1, 2])
def test_steps_that_are_learned_from_together_count_as_one_after_the_other(tiny_policy, worlds):
    """Their gradient is the mean of those that each of them comes to, where nothing moves in between."""
    rng, everyone = np.random.default_rng(0), 6 * worlds
    steps = []
    for i in range(7):
        ends = {"is_terminal": rng.random(everyone) < 0.2, "is_truncated": rng.random(everyone) < 0.1}
        ends["is_truncated"] &= ~ends["is_terminal"]
        values = {"value": rng.normal(size=everyone).astype(np.float32)}
        now = step_of(tiny_policy, rng, [i % 2] * everyone, reward=rng.normal(size=everyone)) | values | ends
        older = now["log_prob"] + rng.normal(scale=0.3, size=everyone).astype(np.float32)  # when it was chosen
        steps.append(now | {"log_prob": older})

    def gradients(parts: list[list[dict]]) -> list[torch.Tensor]:
        observer, found = observer_of(tiny_policy, rate=0.0, entropy=0.1, max_grad_norm=1e9), []
        for part in parts:
            observer.optimiser.mean.zero_()
            observer.update(TEXTS, part)
            found.append(gradient(tiny_policy, observer).clone())
        return found

    alone = gradients([[step] for step in steps])
    together = gradients([steps[:3], steps[3:]])  # the last step of each waits for the next one
    torch.testing.assert_close(together[0], sum(alone[1:3]) / 2, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(together[1], sum(alone[3:]) / 4, atol=1e-5, rtol=1e-4)
