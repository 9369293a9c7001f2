"""Actions are drawn as the adapters say, and what learning sees is what acting did."""

from math import log
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from agents.lora import AdapterBank
from agents.optimiser import StackedAdam
from agents.policy import Policy, log_softmax
from agents.types import Tokens
from agents.value_head import ValueHead

NEAR = {"rtol": 1e-4, "atol": 1e-4}
TEXTS = [" food two north one east, rock north", " no food", " food here", " no food, home south west"]
ALL_LEGAL = np.ones((1, 5), bool)


class Bank:
    acting_version = 0


class TableMind:
    """A network that answers from a table of logits, one row a text, and counts what it is asked."""

    width, part_end = 4, ""

    def __init__(self, table: np.ndarray):
        self.table = torch.from_numpy(table)
        self.action_ids = list(range(table.shape[1]))
        self.bank = Bank()
        self.is_batched = True
        self.asked: list[tuple[list[str], list[int]]] = []

    def action_logits(self, texts, adapters, counts):
        return self.table[[int(text) for text in texts]]

    def answer(self, texts, adapters):
        self.asked.append((list(texts), adapters.tolist()))
        return self.table[[int(text) for text in texts]].numpy()

    def features(self, texts):
        return torch.tensor([[float(text), 1.0, 2.0, -1.0] for text in texts])


class Draws:
    """A generator whose numbers are known beforehand."""

    def __init__(self, numbers):
        self.numbers = numbers

    def random(self, size):
        assert size == len(self.numbers)
        return np.array(self.numbers)


def policy_of(table) -> Policy:
    return Policy(TableMind(np.asarray(table, np.float32)), ValueHead(4))


def names(count: int) -> list[str]:
    return [str(i) for i in range(count)]


draws = st.one_of(st.just(0.0), st.just(1 - 2**-53), st.floats(0, 1, exclude_max=True))
legal_rows = st.lists(st.booleans(), min_size=5, max_size=5).filter(any)


@settings(max_examples=100, deadline=None)
@given(
    hnp.arrays(np.float32, (3, 5), elements=st.floats(-60, 60, width=32)),
    st.lists(legal_rows, min_size=3, max_size=3),
    st.lists(draws, min_size=3, max_size=3),
)
def test_illegal_actions_are_never_sampled(table, legal, numbers):
    legal = np.array(legal)
    decision = policy_of(table).act(names(3), np.zeros(3, int), legal, Draws(numbers))
    assert legal[np.arange(3), decision.action].all()
    weights = np.where(legal, np.exp(table.astype(float) - np.where(legal, table, -np.inf).max(1, keepdims=True)), 0)
    expected = (weights / weights.sum(1, keepdims=True))[np.arange(3), decision.action]
    np.testing.assert_allclose(np.exp(decision.log_prob), expected, rtol=1e-4, atol=1e-6)


def test_actions_are_drawn_as_often_as_they_are_probable():
    probability = np.array([0.4, 0.25, 0.2, 0.1, 0.05])
    policy, count = policy_of([np.log(probability) + 3]), 20_000
    legal = np.array([[True] * 5, [True, False, True, False, True]])
    for row in legal:
        action = policy.act(
            ["0"] * count, np.zeros(count, int), np.tile(row, (count, 1)), np.random.default_rng(0)
        ).action
        expected = count * np.where(row, probability, 0) / probability[row].sum()
        observed = np.bincount(action, minlength=5)
        assert (observed[~row] == 0).all()
        chi_square = ((observed - expected)[row] ** 2 / expected[row]).sum()
        assert chi_square < 18.5  # one in a thousand, four degrees of freedom


def test_each_row_uses_one_number_of_the_generator():
    rng, twin = np.random.default_rng(5), np.random.default_rng(5)
    policy = policy_of(np.zeros((3, 5)))
    decision = policy.act(names(3), np.zeros(3, int), np.ones((3, 5), bool), rng)
    assert decision.action.tolist() == np.floor(5 * twin.random(3)).astype(int).tolist()
    assert rng.random() == twin.random()


def test_log_softmax_by_hand():
    logits = np.log(np.array([[1, 2, 3, 4, 0.5]], np.float32))
    legal = np.array([[True, False, True, True, False]])
    log_probs = log_softmax(logits, legal)[0]
    np.testing.assert_allclose(np.exp(log_probs), [1 / 8, 0, 3 / 8, 1 / 2, 0], rtol=1e-6)
    assert np.isneginf(log_probs[[1, 4]]).all()


def test_entropy_by_hand():
    table = np.log([[2, 1, 1, 4, 8], [1, 1, 1, 1, 1], [1, 5, 1, 1, 1]])
    legal = torch.tensor([[True, True, True, False, False], [True] * 5, [False, True, False, False, False]])
    log_prob, entropy = policy_of(table).evaluate(names(3), torch.tensor([0]), torch.tensor([1, 4, 1]), legal)
    torch.testing.assert_close(entropy, torch.tensor([1.5 * log(2), log(5), 0.0]))
    torch.testing.assert_close(log_prob, torch.tensor([log(0.25), log(0.2), 0.0]))


def test_illegal_actions_leave_gradients_finite_and_get_none():
    policy = policy_of(np.zeros((2, 5)))
    policy.network.table.requires_grad_()
    legal = torch.tensor([[True, False, True, True, False], [True, False, False, False, False]])
    log_prob, entropy = policy.evaluate(names(2), torch.tensor([0]), torch.tensor([2, 0]), legal)
    (log_prob + 0.3 * entropy).sum().backward()
    gradient = policy.network.table.grad
    assert gradient.isfinite().all()
    assert not gradient[~legal].any()
    torch.testing.assert_close(gradient[0, [0, 2, 3]], torch.tensor([-1 / 3, 2 / 3, -1 / 3]))


@pytest.mark.parametrize("tokens", get_args(Tokens))
def test_the_probability_of_acting_is_the_one_that_learning_sees(tiny_policy):
    adapters, texts = np.repeat([4, 0, 2], 4), TEXTS * 3
    legal = np.random.default_rng(0).random((12, 5)) < 0.7
    legal[:, 0] = True
    decision = tiny_policy.act(texts, adapters, legal, np.random.default_rng(1))
    log_prob, _ = tiny_policy.evaluate(
        texts, torch.tensor([4, 0, 2]), torch.from_numpy(decision.action), torch.from_numpy(legal)
    )
    ratio = (log_prob - torch.from_numpy(decision.log_prob)).exp()
    torch.testing.assert_close(ratio, torch.ones(12), rtol=0, atol=1e-6)
    assert len(set(decision.action.tolist())) > 1


@pytest.mark.parametrize("tokens", get_args(Tokens))
def test_groups_of_unequal_size_answer_as_each_agent_alone_and_minus_one_is_the_bare_base(tiny_policy):
    adapters = np.array([2, 0, -1, 2, 5, 2, -1, 2, 0])
    texts = [TEXTS[i] for i in (0, 1, 0, 1, 2, 2, 3, 3, 1)]
    logits = tiny_policy.logits(texts, adapters)
    for adapter, text, row in zip(adapters.tolist(), texts, logits, strict=True):
        plain = tiny_policy.network.plain_logits(text, None if adapter < 0 else adapter)
        torch.testing.assert_close(torch.from_numpy(row), plain, **NEAR)


@pytest.mark.parametrize("tokens", get_args(Tokens))
def test_the_bare_base_does_not_change_when_adapters_do(tiny_policy):
    before = tiny_policy.logits(TEXTS, np.full(4, -1))
    agent = tiny_policy.logits(TEXTS, np.full(4, 3))
    tiny_policy.network.bank.reset(7)
    np.testing.assert_array_equal(tiny_policy.logits(TEXTS, np.full(4, -1)), before)
    np.testing.assert_allclose(tiny_policy.logits(TEXTS, np.full(4, 3)), before, atol=1e-4)
    assert np.abs(agent - before).max() > 0.1


def write_another(bank: AdapterBank) -> None:
    bank.write(1, bank.read(2))


def step_once(bank: AdapterBank) -> None:
    gradients = torch.randn(bank.values.shape, generator=torch.Generator().manual_seed(0))
    everyone = torch.ones(len(bank), dtype=torch.bool)
    StackedAdam(bank).step(slice(0, len(bank)), gradients, torch.full((len(bank),), 0.1), 1.0, everyone)


@pytest.mark.parametrize("tokens", get_args(Tokens))
@pytest.mark.parametrize("change", [write_another, step_once])
def test_answers_are_not_stale_after_the_bank_changed(tiny_policy, change):
    ones = np.ones(4, int)
    before = tiny_policy.logits(TEXTS, ones)
    change(tiny_policy.network.bank)
    after = tiny_policy.logits(TEXTS, ones)
    assert (np.abs(after - before).max(axis=1) > 0.01).all()
    for text, row in zip(TEXTS, after, strict=True):
        torch.testing.assert_close(torch.from_numpy(row), tiny_policy.network.plain_logits(text, 1), **NEAR)


@pytest.mark.parametrize("tokens", get_args(Tokens))
def test_remembered_answers_equal_computed_ones(tiny_policy):
    first = tiny_policy.logits(TEXTS * 2, np.repeat([1, 4], 4))
    mixed = tiny_policy.logits([*TEXTS, " food one south"], np.array([4, 4, 1, 1, 4]))
    np.testing.assert_array_equal(mixed[:4], first[[4, 5, 2, 3]])
    fresh = Policy(tiny_policy.network, tiny_policy.critic)
    np.testing.assert_allclose(fresh.logits(TEXTS * 2, np.repeat([1, 4], 4)), first, rtol=1e-4, atol=1e-4)


def test_nothing_is_computed_twice_until_the_bank_changes():
    policy = policy_of(np.random.default_rng(0).normal(size=(4, 5)))
    asked = policy.network.asked
    policy.logits(["0", "1", "0", "1"], np.array([0, 0, 0, 2]))
    assert asked == [(["0", "1", "1"], [0, 0, 2])], "no more than is asked: the bank may change before the next step"
    policy.logits(["1", "1"], np.array([2, 0]))
    assert len(asked) == 1
    policy.logits(["1", "3"], np.array([0, 2]))
    assert asked[1:] == [(["3", "3"], [0, 2])], "it did not, so agent 0 will meet text 3 as well"
    policy.logits(["2"], np.array([2]))
    assert asked[2:] == [(["2"], [2])], "agent 0 acts no more"
    policy.network.bank.acting_version += 1
    for text in ("0", "2"):
        policy.logits([text], np.array([0]))
    assert asked[3:] == [(["0"], [0]), (["2"], [0])]


def test_texts_in_parts_are_answered_only_for_who_asks():
    policy = policy_of(np.random.default_rng(0).normal(size=(4, 5)))
    policy.network.part_end = ","
    policy.logits(["0", "1"], np.array([0, 2]))
    policy.logits(["3"], np.array([2]))
    policy.logits(["1", "2"], np.array([0, 2]))
    assert policy.network.asked[1:] == [(["3"], [2]), (["1", "2"], [0, 2])]


def test_what_was_answered_ahead_is_not_asked_again_until_the_bank_changes():
    policy = policy_of(np.random.default_rng(0).normal(size=(4, 5)))
    asked = policy.network.asked
    policy.answer_ahead(["1", "0"], [0, 2])
    assert asked == [(["0", "1", "0", "1"], [0, 0, 2, 2])]
    ahead = policy.logits(["0", "1", "1"], np.array([0, 2, 0]))
    policy.answer_ahead(["0", "3"], range(1))
    assert asked[1:] == [(["3"], [0])], "what is known is not computed again"
    policy.network.bank.acting_version += 1
    np.testing.assert_array_equal(policy.logits(["0", "1", "1"], np.array([0, 2, 0])), ahead)
    assert asked[2:] == [(["0", "1", "1"], [0, 0, 2])]
    policy.answer_ahead([], range(3))
    policy.answer_ahead(["3"], [])
    policy.backend.is_batched = False
    policy.answer_ahead(["3"], [0])
    assert len(asked) == 3, "who answers one by one gains nothing"


def test_kept_answers_outlast_a_change_of_others(tiny_policy):
    bank, everyone = tiny_policy.network.bank, np.arange(len(tiny_policy.network.bank))
    before = {agent: tiny_policy.logits(TEXTS, np.full(len(TEXTS), agent)) for agent in (0, 1)}
    tiny_policy.answers.keep(TEXTS[:3])
    known = tiny_policy.answers.kept
    assert known.shape == (len(everyone), 3, 5)
    assert np.array_equal(known[:2].numpy(), np.stack([before[0][:3], before[1][:3]]))
    assert known[2:].isnan().all(), "nobody asked them"
    write_another(bank)  # adapter 1
    fresh = Policy(tiny_policy.network, tiny_policy.critic)
    fresh.answers.restore(TEXTS[:3], torch.full_like(known, 7.0))
    for policy, expected in ((tiny_policy, before[0][:3]), (fresh, 7.0)):
        assert (policy.logits(TEXTS[:3], np.zeros(3, int)) == expected).all(), (
            "adapter 0 is as it was, and is not asked"
        )
    for policy, changed in ((tiny_policy, True), (fresh, False)):
        after = policy.logits(TEXTS, np.ones(len(TEXTS), int))
        is_asked = np.abs(after[:3] - (before[1][:3] if changed else 7.0)).max() > 0.01
        assert is_asked == changed, "changed after the answers were kept, or before"
    bank.values *= 1.5
    assert np.abs(tiny_policy.logits(TEXTS[:3], np.zeros(3, int)) - before[0][:3]).max() > 0.01


def test_a_backend_that_answers_one_by_one_is_asked_for_no_more_than_is_needed():
    policy = policy_of(np.random.default_rng(0).normal(size=(4, 5)))
    policy.network.is_batched = False
    policy.logits(["0", "1"], np.array([0, 2]))
    policy.logits(["0", "1"], np.array([2, -1]))
    assert policy.network.asked == [(["0", "1"], [0, 2]), (["1", "0"], [-1, 2])]


@pytest.mark.parametrize("tokens", get_args(Tokens))
def test_values_are_the_critics_one_for_each_text(tiny_policy):
    texts = [TEXTS[2], TEXTS[0], TEXTS[2], TEXTS[1]]
    expected = tiny_policy.critic(tiny_policy.network.features(texts)).detach()
    decision = tiny_policy.act(texts, np.zeros(4, int), np.ones((4, 5), bool), np.random.default_rng(0))
    np.testing.assert_allclose(decision.value, expected, rtol=1e-5, atol=1e-6)
    assert decision.value[0] == decision.value[2] != decision.value[1]
    assert decision.value.dtype == np.float32
