"""Answers from memory equal answers computed anew, whatever else is in the batch or in the memory."""

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from agents import layers, prefix_cache
from agents.backends import BACKENDS, open_backend
from agents.codecs.forage import ForageCodec
from agents.policy import Policy, make_policy
from agents.policy_network import PolicyNetwork
from agents.types import AdapterConfig, ModelConfig, Tokens, UserError

TEXTS = [
    " food two north one east, rock north",
    " no food",
    " food here",
    " no food, home south west, rock west",
    " food was north west",
]
NEAR = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture(params=get_args(Tokens))
def tokens(request) -> str:
    """All here is held in both modes."""
    return request.param


@pytest.fixture
def network(tiny_policy) -> PolicyNetwork:
    return tiny_policy.network


def policy_on(tiny_model, config: AdapterConfig, agents: int, dtype: str = "float32") -> Policy:
    return make_policy(ModelConfig(name=str(tiny_model), dtype=dtype), config, ForageCodec(3), agents, seed=0)


def another(network: PolicyNetwork, prefix_cache_mb: int = 1) -> PolicyNetwork:
    """A network with the same base and adapters that has read nothing yet."""
    return PolicyNetwork(network.base, network.bank, ForageCodec(3), prefix_cache_mb)


def test_fast_logits_equal_plain_logits_for_every_agent(network):
    groups = torch.tensor([4, 0, 5, 2, 1, 3])
    fast = network.action_logits(TEXTS * 6, groups).view(6, len(TEXTS), 5)
    for agent, answers in zip(groups.tolist(), fast, strict=True):
        for text, logits in zip(TEXTS, answers, strict=True):
            torch.testing.assert_close(logits, network.plain_logits(text, agent), **NEAR)
    assert (fast[0] - fast[1]).abs().max() > 0.1


def test_fast_and_plain_logits_of_the_bare_base_equal_those_of_plain_transformers(network, tiny_model):
    plain = AutoModelForCausalLM.from_pretrained(tiny_model)
    fast = network.action_logits(TEXTS, None)
    for text, logits in zip(TEXTS, fast, strict=True):
        ids = [*network.instruction_ids, *network.base.tokens(text), network.answer_id]
        expected = plain(torch.tensor([ids])).logits[0, -1, network.action_ids]
        torch.testing.assert_close(logits, expected, **NEAR)
        torch.testing.assert_close(network.plain_logits(text, None), expected, **NEAR)


def test_a_batch_equals_a_loop(network):
    together = network.action_logits(TEXTS, torch.tensor([2]))
    alone = torch.cat([network.action_logits([text], torch.tensor([2])) for text in TEXTS])
    torch.testing.assert_close(together, alone, **NEAR)


def test_reading_a_text_beside_longer_ones_changes_nothing(network):
    together = network.action_logits(TEXTS, torch.tensor([3]))
    for text, logits in zip(TEXTS, together, strict=True):
        torch.testing.assert_close(another(network).action_logits([text], torch.tensor([3]))[0], logits, **NEAR)
        torch.testing.assert_close(another(network).features([text]), network.features([text]), **NEAR)


def test_the_order_of_texts_does_not_matter(network):
    forth = network.action_logits(TEXTS, torch.tensor([1]))
    back = another(network).action_logits(TEXTS[::-1], torch.tensor([1]))
    torch.testing.assert_close(forth, back.flip(0), **NEAR)
    assert (forth - back).abs().max() > 0.01


def test_answers_do_not_depend_on_what_was_remembered(network):
    forgetful = another(network, prefix_cache_mb=0)
    for texts in (TEXTS[:2], TEXTS[1:4], TEXTS[:1], TEXTS[3:], TEXTS[:1] * 2):
        fresh = another(network).action_logits(texts, torch.tensor([5]))
        torch.testing.assert_close(forgetful.action_logits(texts, torch.tensor([5])), fresh, **NEAR)
    assert forgetful.cache.take_counts()[1] > len(TEXTS)


def test_instructions_and_texts_are_read_once_and_only_what_adapters_act_on_is_computed_again(
    network, tokens, monkeypatch
):
    shapes: dict[int, list[tuple[int, ...]]] = {}
    go_through = layers._Layer.__call__

    def noted(layer, hidden, *rest):
        shapes.setdefault(layer.number, []).append(tuple(hidden.shape[:2]))
        return go_through(layer, hidden, *rest)

    monkeypatch.setattr(layers._Layer, "__call__", noted)
    for agents in ([0], [1], None):
        network.action_logits(TEXTS, None if agents is None else torch.tensor(agents))
    lengths = [len(network.base.tokens(text)) + 1 for text in TEXTS]
    first, last = shapes[0], shapes[network.base.layers - 1]
    if tokens == "answer":
        assert first == [(1, sum(lengths))], "all in one row"
        assert last == [(1, sum(lengths) - 5), (5, 1), (5, 1), (5, 1)], "where the bare base gives no answer"
    else:
        assert first == [(1, sum(lengths) + 5)]
        assert last == [(5, 1 + max(lengths))] * 3, "the bare base needs no more than what enters the adapted layers"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_is_read_of_a_text_is_the_same_to_the_last_bit_in_any_order_and_company(
    tiny_model, tokens, dtype, processor
):
    memory = policy_on(tiny_model, AdapterConfig(rank=2, top_layers=2, tokens=tokens), 1, dtype).network.cache
    texts = [" food" + " north" * n + m for n in range(4) for m in ("", " two", ", home here", " one west", " three")]
    rng, known = np.random.default_rng(0), {}
    for size in (1, 20, 2, 3, 5, 7, 13, 20):
        memory.clear()
        for first in range(0, 20, size):
            company = [texts[i] for i in rng.permutation(20)[first : first + size]]
            recalled = memory.recall(company)
            (block,) = recalled.blocks
            for row, text in enumerate(company):
                read = block.tokens[..., row, : block.lengths[row], :], recalled.entering[row]
                before = known.setdefault(text, read)
                assert all(torch.equal(now, then) for now, then in zip(read, before, strict=True))
    assert len(known) == 20


def test_features_are_the_answer_tokens_hidden_state_below_the_adapters(network, tiny_model):
    plain = AutoModelForCausalLM.from_pretrained(tiny_model)
    features = network.features(TEXTS)
    assert features.shape == (len(TEXTS), network.width)
    for text, row in zip(TEXTS, features, strict=True):
        ids = [*network.instruction_ids, *network.base.tokens(text), network.answer_id]
        states = plain(torch.tensor([ids]), output_hidden_states=True).hidden_states
        torch.testing.assert_close(row, states[network.first_layer][0, -1], **NEAR)


def test_agents_answer_by_the_copy_that_was_published(network):
    bank, everyone = network.bank, np.arange(len(TEXTS))
    before = network.answer(TEXTS, everyone)
    bank.publish()
    bank.values += 0.3
    np.testing.assert_allclose(network.answer(TEXTS, everyone), before, rtol=1e-4, atol=1e-4)
    bank.withdraw()
    assert (np.abs(network.answer(TEXTS, everyone) - before).max(axis=1) > 0.01).all()


def test_answers_do_not_depend_on_how_many_are_computed_together(network):
    texts, adapters = TEXTS * 4, np.array([2, 0, 2, -1, 2] * 4)
    together = network.answer(texts, adapters)
    network.rows_at_once = 4
    np.testing.assert_allclose(network.answer(texts, adapters), together, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("owner", [-1, 2])
def test_only_so_many_texts_are_held_together(network, owner, monkeypatch):
    network.rows_at_once, asked, recall = 4, [], network.cache.recall
    monkeypatch.setattr(network.cache, "recall", lambda texts: asked.append(len(texts)) or recall(texts))
    network.answer(TEXTS * 4, np.full(len(TEXTS) * 4, owner))
    assert max(asked) <= 4


UNEVEN = {(1, 2, 3): (3, 1, 2), (4, 0, 4): (1, 4, 2), (2, 2): (1, 3), (5,): (2,), (3, 1): (2, 2)}
"""Groups, some of which share an adapter, and how many texts each has."""


@pytest.mark.parametrize("groups", UNEVEN)
def test_groups_may_have_more_or_fewer_texts(network, groups):
    counts, everyone = UNEVEN[groups], slice(0, 6)
    own = [(TEXTS * 2)[start : start + count] for start, count in enumerate(counts)]
    with network.bank.gathering(everyone) as gradients:
        together = network.action_logits([t for ts in own for t in ts], torch.tensor(groups), counts=counts)
        together.square().sum().backward()
        found = gradients.clone()
    with network.bank.gathering(everyone) as gradients:
        alone = [network.action_logits(ts, torch.tensor([group])) for group, ts in zip(groups, own, strict=True)]
        for logits in alone:
            logits.square().sum().backward()
        torch.testing.assert_close(together, torch.cat(alone), **NEAR)
        torch.testing.assert_close(found, gradients, rtol=1e-3, atol=1e-4 * float(gradients.abs().max()))
    assert (found.norm(dim=1) > 0).nonzero()[:, 0].tolist() == sorted(set(groups))


@pytest.mark.parametrize("groups", [[4, 0, 5], [1]])
def test_texts_of_about_one_length_may_be_asked_about_together(network, groups, monkeypatch):
    bank, texts, found = network.bank, [*TEXTS, " no food"] * len(groups), []
    for fewest in (1000, 2):
        monkeypatch.setattr(prefix_cache, "FEWEST_ROWS", fewest)
        with bank.gathering(slice(0, 6)) as gradients:
            logits = network.action_logits(texts, torch.tensor(groups))
            logits.square().sum().backward()
            found.append((logits.detach(), gradients.clone()))
    assert len(network.cache.recall(texts[:6]).blocks) == (3 if network.bank.config.tokens == "answer" else 1)
    (one, its_gradient), (other, other_gradient) = found
    torch.testing.assert_close(other, one, **NEAR)
    torch.testing.assert_close(other_gradient, its_gradient, rtol=1e-3, atol=1e-4 * float(its_gradient.abs().max()))


def test_gradients_flow_to_the_adapters_asked(network):
    with network.bank.gathering(slice(0, 6)) as gradients:
        network.action_logits(TEXTS[:4], torch.tensor([5, 2])).sum().backward()
    assert (gradients.norm(dim=1) > 0).tolist() == [False, False, True, False, False, True]


@pytest.mark.parametrize("layers", [1, 4])
def test_any_number_of_layers_can_carry_adapters(tiny_model, layers, tokens):
    config = AdapterConfig(rank=2, alpha=4.0, top_layers=layers, tokens=tokens)
    network = policy_on(tiny_model, config, agents=2).network
    network.bank.values += 0.3 * torch.randn(network.bank.values.shape, generator=torch.Generator().manual_seed(0))
    fast = network.action_logits(TEXTS, torch.tensor([1]))
    for text, logits in zip(TEXTS, fast, strict=True):
        torch.testing.assert_close(logits, network.plain_logits(text, 1), **NEAR)


def test_a_bfloat16_base_answers_nearly_the_same(network, tiny_model):
    half = policy_on(tiny_model, network.bank.config, agents=6, dtype="bfloat16").network
    half.bank.values[:] = network.bank.values
    texts, everyone = TEXTS * 6, torch.arange(6)
    logits, exact = half.action_logits(texts, everyone), network.action_logits(texts, everyone)
    assert logits.dtype == torch.float32
    assert 0 < (logits - exact).abs().max() < 0.15 * exact.abs().max()


class LongAnswer(ForageCodec):
    answer = "go home"


class LongAction(ForageCodec):
    action_words = ("stay", "north", "south west", "east", "west")


@pytest.mark.parametrize(("codec", "word"), [(LongAnswer, "go home"), (LongAction, "south west")])
def test_a_word_of_more_than_one_token_is_refused(network, codec, word):
    with pytest.raises(ValueError, match=rf"word '{word}' is \[.*\] to .*: must be a word of one known token"):
        PolicyNetwork(network.base, network.bank, codec(3))


def test_adapters_on_the_whole_text_answer_otherwise_than_the_same_on_the_answer_token(tiny_model, tiny_policy, tokens):
    network = tiny_policy.network
    (other,) = set(get_args(Tokens)) - {tokens}
    twin = policy_on(tiny_model, replace(network.bank.config, tokens=other), agents=6).network
    twin.bank.values[:] = network.bank.values
    everyone = torch.arange(6)
    torch.testing.assert_close(twin.action_logits(TEXTS, None), network.action_logits(TEXTS, None), **NEAR)
    torch.testing.assert_close(twin.features(TEXTS), network.features(TEXTS), **NEAR)
    assert (twin.action_logits(TEXTS * 6, everyone) - network.action_logits(TEXTS * 6, everyone)).abs().max() > 0.1


ON_TEXT = pytest.mark.parametrize("tokens", ["text"])


@ON_TEXT
def test_a_text_with_the_last_token_of_the_instructions_is_refused(network):
    with pytest.raises(UserError, match=r"text ' no food\\n' or the answer word holds '\\n': must not with"):
        network.action_logits([TEXTS[0], " no food\n"], torch.tensor([1]))
    with pytest.raises(UserError, match=r"must not with adapter.tokens = 'text'"):
        network.plain_logits(" no\n food", None)


class EndsLikeAnAnswer(ForageCodec):
    instructions = " rock go"


class OneToken(ForageCodec):
    instructions = "\n"


@ON_TEXT
@pytest.mark.parametrize(
    ("codec", "complaint"),
    [(EndsLikeAnAnswer, "answer word holds ' go': must not"), (OneToken, "instructions is one token: must be more")],
)
def test_instructions_from_which_adapters_cannot_act_are_refused(network, codec, complaint):
    with pytest.raises(UserError, match=complaint):
        PolicyNetwork(network.base, network.bank, codec(3))


@ON_TEXT
@pytest.mark.parametrize("name", BACKENDS)
def test_no_other_backend_is_opened_for_adapters_on_the_whole_text(network, name):
    with pytest.raises(UserError, match=f"adapter.tokens = 'text': must be 'answer' for backend {name}; only torch"):
        open_backend(name, network)
    assert open_backend("torch", network) is network


@pytest.mark.parametrize("tokens", ["answer"])
def test_on_the_answer_token_alone_instructions_and_texts_are_free(network):
    PolicyNetwork(network.base, network.bank, EndsLikeAnAnswer(3)).action_logits([" no food go"], None)
    network.action_logits([" no food\n"], None)


def test_whether_many_rows_cost_little_more_than_one_depends_on_what_adapters_act_on(network, tokens):
    assert network.is_batched == (tokens == "answer")


def test_a_text_without_tokens_is_refused(network):
    with pytest.raises(UserError, match="text '': must have at least one token"):
        network.action_logits(["", " food"], None)


def test_a_prompt_of_just_the_length_that_the_model_can_see_is_not_refused(network):
    room = network.base.causal_lm.config.max_position_embeddings - len(network.instruction_ids) - 1
    fast = network.action_logits([" food" * room], torch.tensor([2]))[0]
    torch.testing.assert_close(fast, network.plain_logits(" food" * room, 2), **NEAR)
    with pytest.raises(UserError, match="have 257 tokens: must be at most 256"):
        network.action_logits([" food" * (room + 1)], None)
