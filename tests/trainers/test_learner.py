"""The learner learns, each adapter for itself and from its own samples, and can be stopped."""

from typing import get_args

import numpy as np
import pytest
import torch

from agents.types import Tokens, UserError
from trainers.learning.config import LearnConfig
from trainers.learning.learner import approx_kl, make_learner, minibatches
from trainers.rollout import Trajectory, spread
from trainers.stages import MAX_RATIO_ERROR

TEXTS = [" food north" * 6, " rock south" * 6]
WANTED = np.array([1, 2])  # the action that each text rewards


def one_step_episodes(policy, rng, steps=32) -> Trajectory:
    """Every agent reads a text and is rewarded for the action that the text names; each step ends its episode."""
    agents = len(policy.network.bank)
    text = rng.integers(2, size=(steps, agents))
    legal = np.ones((steps, agents, 5), bool)
    rows = [policy.act([TEXTS[i] for i in row], np.arange(agents), legal[0], rng) for row in text]
    action, log_prob, value, _ = (np.stack(column) for column in zip(*rows, strict=True))
    reward = (action == WANTED[text]).astype(np.float32)
    always, never = np.ones((steps, agents), bool), np.zeros((steps, agents), bool)
    nothing = np.zeros((steps, agents), np.float32)
    return Trajectory(TEXTS, text, legal, action, log_prob, value, reward, always, always, never, nothing, always)


def rates(policy, value=0.01):
    return torch.full((len(policy.network.bank),), value)


def no_entropy(policy):
    return torch.zeros(len(policy.network.bank))


def learn(learner, t, learning_rate, entropy_coef, rng) -> dict[str, float]:
    """Improve all adapters and the critic from one rollout, as `trainers.stages.learn` does without variants."""
    experience = learner.experience(t, learning_rate, entropy_coef)
    return learner.learn(experience, rng) | learner.critic.learn(t, experience.returns, rng)


@pytest.mark.parametrize(("algorithm", "tokens"), [("ppo", "answer"), ("ppo", "text"), ("reinforce", "answer")])
def test_every_agent_solves_an_identity_task(tiny_policy, algorithm):
    tiny_policy.network.bank.reset(seed=0)
    learner = make_learner(tiny_policy, LearnConfig(algorithm=algorithm, max_kl=0.5))
    rng = np.random.default_rng(0)
    before = one_step_episodes(tiny_policy, rng).reward.mean()
    for _ in range(90):
        entropy_coef = torch.full((6,), 0.05)
        learn(learner, one_step_episodes(tiny_policy, rng), rates(tiny_policy), entropy_coef, rng)
    after = one_step_episodes(tiny_policy, rng, steps=64).reward.mean(axis=0)
    assert before < 0.5
    assert after.min() > 0.9, after


def test_the_critic_comes_to_explain_returns(tiny_policy):
    learner = make_learner(tiny_policy, LearnConfig(algorithm="none", critic_learning_rate=0.01))
    rng = np.random.default_rng(0)
    for _ in range(30):
        trajectory = one_step_episodes(tiny_policy, rng)
        trajectory = trajectory._replace(reward=trajectory.text.astype(np.float32))
        figures = learn(learner, trajectory, rates(tiny_policy), no_entropy(tiny_policy), rng)
    assert figures["explained_variance"] > 0.9


def test_returns_whose_squares_are_beyond_float32_are_learned_from(tiny_policy):
    rng = np.random.default_rng(0)
    learner, t = make_learner(tiny_policy, LearnConfig()), one_step_episodes(tiny_policy, rng)
    advantage = [
        learner.experience(t._replace(reward=t.reward * np.float32(scale)), rates(tiny_policy), no_entropy(tiny_policy))
        for scale in (1e15, 1e25)
    ]
    plain, huge = (x.advantage.numpy() for x in advantage)
    assert huge.dtype == np.float32
    np.testing.assert_allclose(huge, plain, rtol=1e-4)
    assert plain.std() == pytest.approx(1)


def test_the_standard_deviation_of_ordinary_advantages_is_numpys_to_the_last_bit():
    drawn = np.random.default_rng(0).normal(3, 2, 9999).astype(np.float32)
    assert spread(drawn).tobytes() == drawn.std().tobytes()
    assert spread(np.array([-1e30, 1e30], np.float32)) == np.float32(1e30)


def test_without_an_algorithm_no_adapter_moves(tiny_policy):
    before = tiny_policy.network.bank.values.clone()
    rng = np.random.default_rng(0)
    learner = make_learner(tiny_policy, LearnConfig(algorithm="none"))
    learn(learner, one_step_episodes(tiny_policy, rng), rates(tiny_policy), no_entropy(tiny_policy), rng)
    assert torch.equal(tiny_policy.network.bank.values, before)


@pytest.mark.parametrize("tokens", get_args(Tokens))
def test_one_agents_experience_moves_one_agents_adapter(tiny_policy):
    rng = np.random.default_rng(0)
    trajectory = one_step_episodes(tiny_policy, rng)
    alive = trajectory.is_alive.copy()
    alive[:, 1:] = False
    before = tiny_policy.network.bank.values.clone()
    learner = make_learner(tiny_policy, LearnConfig())
    learn(learner, trajectory._replace(is_alive=alive), rates(tiny_policy), no_entropy(tiny_policy), rng)
    changed = (tiny_policy.network.bank.values != before).any(dim=1)
    assert changed.tolist() == [True, False, False, False, False, False]


@pytest.mark.parametrize("tokens", get_args(Tokens))
def test_an_adapter_that_exceeds_max_kl_is_projected_and_stopped(tiny_policy):
    rng = np.random.default_rng(0)
    trajectory = one_step_episodes(tiny_policy, rng)
    config = LearnConfig(max_kl=0.02, epochs=8, minibatch=16)
    learning_rate = rates(tiny_policy, 1e-4)
    learning_rate[3] = 0.05
    figures = learn(make_learner(tiny_policy, config), trajectory, learning_rate, no_entropy(tiny_policy), rng)
    assert figures["kl_exceeded"] == 1
    texts = [TEXTS[i] for i in trajectory.text[:, 3]]
    action, legal = torch.from_numpy(trajectory.action[:, 3]), torch.ones(32, 5, dtype=torch.bool)
    log_prob, _ = tiny_policy.evaluate(texts, torch.tensor([3]), action, legal)
    kl = approx_kl(log_prob.detach(), torch.from_numpy(trajectory.log_prob[:, 3])).mean()
    assert 0 < kl < 0.1


def test_an_adapter_that_exceeds_max_kl_in_its_last_step_is_projected_too(tiny_policy):
    """Agent 3 dies early: it has one small minibatch an epoch, long before the others have theirs."""
    rng = np.random.default_rng(0)
    trajectory = one_step_episodes(tiny_policy, rng)
    alive = trajectory.is_alive.copy()
    alive[6:, 3] = False
    learning_rate = rates(tiny_policy, 1e-4)
    learning_rate[3] = 0.05
    config = LearnConfig(max_kl=0.02, epochs=1, minibatch=8)
    short = trajectory._replace(is_alive=alive)
    figures = learn(make_learner(tiny_policy, config), short, learning_rate, no_entropy(tiny_policy), rng)
    assert figures["kl_exceeded"] == 1
    texts = [TEXTS[i] for i in trajectory.text[:6, 3]]
    action, legal = torch.from_numpy(trajectory.action[:6, 3]), torch.ones(6, 5, dtype=torch.bool)
    log_prob, _ = tiny_policy.evaluate(texts, torch.tensor([3]), action, legal)
    assert 0 < approx_kl(log_prob.detach(), torch.from_numpy(trajectory.log_prob[:6, 3])).mean() < 0.1


@pytest.mark.parametrize("tokens", get_args(Tokens))
def test_a_poisoned_gradient_stays_with_its_agent(tiny_policy):
    rng = np.random.default_rng(0)
    trajectory = one_step_episodes(tiny_policy, rng)
    log_prob = trajectory.log_prob.copy()
    log_prob[:, 4] = np.nan
    before = tiny_policy.network.bank.values.clone()
    learner = make_learner(tiny_policy, LearnConfig())
    poisoned = trajectory._replace(log_prob=log_prob)
    figures = learn(learner, poisoned, rates(tiny_policy), no_entropy(tiny_policy), rng)
    assert all(np.isfinite(value) for value in figures.values())
    assert figures["not_finite"] == 1
    after = tiny_policy.network.bank.values
    assert torch.isfinite(after).all()
    assert torch.equal(after[4], before[4])
    assert (after[[0, 1, 2, 3, 5]] != before[[0, 1, 2, 3, 5]]).any(dim=1).all()


class InOrder:
    """A generator that shuffles nothing."""

    def permutation(self, x):
        return np.asarray(x if np.ndim(x) else np.arange(x))


def test_chunks_bound_the_memory_and_change_nothing(tiny_policy, monkeypatch):
    trajectory = one_step_episodes(tiny_policy, np.random.default_rng(0))
    begin, ends, gather = tiny_policy.network.bank.values.clone(), [], tiny_policy.network.bank.gathering
    for rows in (1, 16, 1000):
        tiny_policy.network.bank.values[:] = begin
        gathered = list[int]()

        def note(learners, gathered=gathered):
            gathered.append(learners.stop - learners.start)
            return gather(learners)

        monkeypatch.setattr(tiny_policy.network.bank, "gathering", note)
        tiny_policy.network.rows_at_once = rows
        learner = make_learner(tiny_policy, LearnConfig(minibatch=8))
        figures = learn(learner, trajectory, rates(tiny_policy), no_entropy(tiny_policy), InOrder())
        ends.append(tiny_policy.network.bank.values.clone())
        assert max(gathered) == {1: 1, 16: 2, 1000: 6}[rows]
        assert figures["ratio_error"] < 1e-5
    assert (ends[0] - begin).abs().max() > 1e-3
    torch.testing.assert_close(ends[0], ends[2], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ends[1], ends[2], rtol=1e-4, atol=1e-5)


def pooled(policy, trajectory, rows=1000, agents_rates=0.01, **changes) -> tuple[torch.Tensor, dict[str, float]]:
    """How far each adapter comes from where all begin, with `learn.pool`, and the figures."""
    bank = policy.network.bank
    bank.values[:] = bank.values[0].clone()
    begin, policy.network.rows_at_once = bank.values.clone(), rows
    learner = make_learner(policy, LearnConfig(minibatch=8, pool=True, max_kl=1e9, **changes))
    figures = learn(learner, trajectory, rates(policy, agents_rates), no_entropy(policy), InOrder())
    moved = bank.values - begin
    bank.values[:] = begin
    return moved, figures


@pytest.mark.parametrize("tokens", get_args(Tokens))
def test_pooled_adapters_that_are_alike_stay_alike_and_follow_the_mean_gradient(tiny_policy):
    bank, settings = tiny_policy.network.bank, {"minibatch": 8, "epochs": 1, "max_grad_norm": 1e9}
    bank.values[:] = bank.values[0].clone()
    t = one_step_episodes(tiny_policy, np.random.default_rng(0), steps=8)
    moved, figures = pooled(tiny_policy, t, epochs=1)
    assert (moved[0] != 0).any()
    assert all(torch.equal(moved[0], other) for other in moved[1:])
    assert figures["ratio_error"] < 1e-5
    means = []
    for pool in (False, True):
        learner = make_learner(tiny_policy, LearnConfig(pool=pool, **settings))
        learn(learner, t, rates(tiny_policy, 0.0), no_entropy(tiny_policy), InOrder())
        means.append(learner.optimiser.mean)  # a tenth of each agent's gradient
    own, mean = means
    torch.testing.assert_close(mean, own.mean(dim=0).expand(len(bank), -1), rtol=1e-4, atol=1e-7)
    assert (own[0] - own[1]).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("pool", "slots", "forgotten"), [(False, [2], [2]), (True, [2], []), (True, [*range(6)], [*range(6)])]
)
def test_a_newcomer_goes_on_with_the_moments_of_a_pool_and_else_begins_with_none(tiny_policy, pool, slots, forgotten):
    t = one_step_episodes(tiny_policy, np.random.default_rng(0), steps=8)
    learner = make_learner(tiny_policy, LearnConfig(minibatch=8, pool=pool))
    learn(learner, t, rates(tiny_policy, 0.0), no_entropy(tiny_policy), InOrder())
    moments = learner.optimiser.mean, learner.optimiser.square, learner.optimiser.steps[:, None]
    before = [moment.clone() for moment in moments]
    assert all(moment.any(dim=1).all() for moment in before)
    learner.forget(slots)
    for was in before:
        was[forgotten] = 0.0
    assert all(torch.equal(moment, was) for moment, was in zip(moments, before, strict=True))


def test_pooled_who_has_no_samples_stays_as_it_is(tiny_policy):
    """Nobody could say how far its policy moves."""
    t = one_step_episodes(tiny_policy, np.random.default_rng(0), steps=8)
    was_there = t.is_lived.copy()
    was_there[:, 2] = False
    moved, _ = pooled(tiny_policy, t._replace(is_alive=was_there, is_lived=was_there), epochs=1)
    assert (moved[0] != 0).any()
    assert (moved[2] == 0).all()


def test_pooled_learning_in_parts_changes_nothing(tiny_policy):
    t = one_step_episodes(tiny_policy, np.random.default_rng(0))
    ends = [pooled(tiny_policy, t, rows)[0] for rows in (1, 16, 1000)]
    torch.testing.assert_close(ends[0], ends[2], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ends[1], ends[2], rtol=1e-4, atol=1e-5)


def test_a_poisoned_gradient_does_not_enter_the_pool(tiny_policy):
    t = one_step_episodes(tiny_policy, np.random.default_rng(0), steps=8)
    log_prob = t.log_prob.copy()
    log_prob[:, 4] = np.nan
    moved, figures = pooled(tiny_policy, t._replace(log_prob=log_prob), epochs=1)
    assert torch.isfinite(moved).all()
    assert (moved[[0, 1, 2, 3, 5]] != 0).any(dim=1).all()
    assert all(np.isfinite(value) for value in figures.values())
    assert figures["not_finite"] == 1


@pytest.mark.parametrize("algorithm", ["online", "none"])
def test_other_algorithms_have_no_pool(algorithm):
    with pytest.raises(UserError, match=f"learn.pool = True: must be false with learn.algorithm = {algorithm}"):
        LearnConfig(algorithm=algorithm, pool=True)


def test_the_ratio_is_far_from_one_if_others_acted(tiny_policy):
    rng = np.random.default_rng(0)
    trajectory = one_step_episodes(tiny_policy, rng)
    tiny_policy.network.bank.values[3] = tiny_policy.network.bank.values[2]
    figures = learn(
        make_learner(tiny_policy, LearnConfig()), trajectory, rates(tiny_policy), no_entropy(tiny_policy), rng
    )
    assert figures["ratio_error"] > MAX_RATIO_ERROR, "one agent among six is enough"


def test_entropy_bonus_keeps_choices_open(tiny_policy):
    rng = np.random.default_rng(0)
    trajectory = one_step_episodes(tiny_policy, rng)
    still = trajectory._replace(reward=np.zeros_like(trajectory.reward))
    learner = make_learner(tiny_policy, LearnConfig(max_kl=10.0, epochs=10))
    first = learn(learner, still, rates(tiny_policy), torch.ones(6), rng)["entropy"]
    last = learn(learner, still, rates(tiny_policy), torch.ones(6), rng)["entropy"]
    assert last > first


@pytest.mark.parametrize(("algorithm", "returned"), [("ppo", 0.7), ("reinforce", 0.5)])
def test_what_is_learned_from_are_lambda_returns_and_with_reinforce_whole_ones(tiny_policy, algorithm, returned):
    """Nothing, then 1 and the end, where the critic expects 2: the first step is worth 0.5 * (0.4 * 2 + 0.6 * 1)."""
    reward, value = np.zeros((2, 6), np.float32), np.zeros((2, 6), np.float32)
    reward[1], value[1] = 1, 2
    t = one_step_episodes(tiny_policy, np.random.default_rng(0), steps=2)
    t = t._replace(reward=reward, value=value, is_terminal=reward > 0)
    learner = make_learner(tiny_policy, LearnConfig(algorithm=algorithm, discount=0.5, gae_lambda=0.6))
    returns = learner.experience(t, rates(tiny_policy), no_entropy(tiny_policy)).returns
    np.testing.assert_allclose(returns.view(2, 6), [[returned] * 6, [1.0] * 6], rtol=1e-5)


@pytest.mark.parametrize("was_lived", [False, True])
def test_where_nobody_lived_nothing_is_learned_and_from_the_dead_by_the_critic_alone(tiny_policy, was_lived):
    t = one_step_episodes(tiny_policy, np.random.default_rng(0))
    alive = t.is_alive.copy()
    alive[16:, 3:] = False
    critic = {name: tensor.clone() for name, tensor in tiny_policy.critic.state_dict().items()}
    begin, ends = tiny_policy.network.bank.values.clone(), []
    for nonsense in (0.0, 100.0):
        tiny_policy.network.bank.values[:] = begin
        tiny_policy.critic.load_state_dict(critic)
        reward = np.where(alive, t.reward, np.float32(nonsense))
        changed = t._replace(reward=reward, is_alive=alive, is_lived=alive | was_lived)
        learn(make_learner(tiny_policy, LearnConfig()), changed, rates(tiny_policy), no_entropy(tiny_policy), InOrder())
        ends.append((tiny_policy.network.bank.values.clone(), tiny_policy.values(TEXTS)))
    assert torch.equal(ends[0][0], ends[1][0])
    assert np.array_equal(ends[0][1], ends[1][1]) == (not was_lived)


@pytest.mark.parametrize("chunk", [slice(0, 4), slice(1, 3), slice(3, 4)])
def test_each_agent_of_the_chunk_gets_each_of_its_samples_once(chunk):
    rng = np.random.default_rng(0)
    alive = rng.random((20, 3, 4)) < 0.6
    seen = [[] for _ in range(4)]
    for batch in minibatches(alive, chunk, 8, rng, torch.zeros(4, dtype=torch.bool)):
        assert batch.samples.shape[1] <= 8
        for agent, samples, keep in zip(batch.groups, batch.samples, batch.keep, strict=True):
            seen[agent].extend(samples[keep].tolist())
    for agent in range(4):
        own = [i for i in np.flatnonzero(alive.reshape(-1)) if i % 4 == agent]
        assert sorted(seen[agent]) == (own if agent in range(4)[chunk] else [])


def test_who_is_stopped_is_left_out_from_the_next_minibatch_on():
    is_stopped = torch.zeros(3, dtype=torch.bool)
    groups = []
    for batch in minibatches(np.ones((12, 1, 3), bool), slice(0, 3), 4, np.random.default_rng(0), is_stopped):
        groups.append(batch.groups.tolist())
        is_stopped[1] = True
    assert groups == [[0, 1, 2], [0, 2], [0, 2]]


def test_a_chunk_without_samples_has_no_minibatch():
    alive = np.zeros((5, 1, 2), bool)
    assert not list(minibatches(alive, slice(0, 2), 4, np.random.default_rng(0), torch.zeros(2, dtype=torch.bool)))
