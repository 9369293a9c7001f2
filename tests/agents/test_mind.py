"""Answers from memory equal answers computed anew, whatever else is in the batch or in the memory."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from agents.forage_codec import ForageCodec
from agents.mind import Mind
from agents.policy import make_policy
from agents.types import AdapterConfig, ModelConfig

TEXTS = [
    " food two north one east, rock north",
    " no food",
    " food here",
    " no food, home south west, rock west",
    " food was north west",
]
NEAR = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture
def mind(tiny_policy) -> Mind:
    return tiny_policy.mind


def another(mind: Mind, text_memory_mb: int = 1) -> Mind:
    """A mind with the same base and adapters that has read nothing yet."""
    return Mind(mind.base, mind.bank, ForageCodec(3), text_memory_mb)


def test_fast_logits_equal_plain_logits_for_every_agent(mind):
    groups = torch.tensor([4, 0, 5, 2, 1, 3])
    fast = mind.action_logits(TEXTS * 6, groups).view(6, len(TEXTS), 5)
    for agent, answers in zip(groups.tolist(), fast, strict=True):
        for text, logits in zip(TEXTS, answers, strict=True):
            torch.testing.assert_close(logits, mind.plain_logits(text, agent), **NEAR)
    assert (fast[0] - fast[1]).abs().max() > 0.1


def test_fast_and_plain_logits_of_the_bare_base_equal_those_of_plain_transformers(mind, tiny_model):
    plain = AutoModelForCausalLM.from_pretrained(tiny_model)
    fast = mind.action_logits(TEXTS, None)
    for text, logits in zip(TEXTS, fast, strict=True):
        ids = [*mind.instruction_ids, *mind.base.tokens(text), mind.answer_id]
        expected = plain(torch.tensor([ids])).logits[0, -1, mind.action_ids]
        torch.testing.assert_close(logits, expected, **NEAR)
        torch.testing.assert_close(mind.plain_logits(text, None), expected, **NEAR)


def test_a_batch_equals_a_loop(mind):
    together = mind.action_logits(TEXTS, torch.tensor([2]))
    alone = torch.cat([mind.action_logits([text], torch.tensor([2])) for text in TEXTS])
    torch.testing.assert_close(together, alone, **NEAR)


def test_reading_a_text_beside_longer_ones_changes_nothing(mind):
    together = mind.action_logits(TEXTS, torch.tensor([3]))
    for text, logits in zip(TEXTS, together, strict=True):
        torch.testing.assert_close(another(mind).action_logits([text], torch.tensor([3]))[0], logits, **NEAR)
        torch.testing.assert_close(another(mind).features([text]), mind.features([text]), **NEAR)


def test_the_order_of_texts_does_not_matter(mind):
    forth = mind.action_logits(TEXTS, torch.tensor([1]))
    back = another(mind).action_logits(TEXTS[::-1], torch.tensor([1]))
    torch.testing.assert_close(forth, back.flip(0), **NEAR)
    assert (forth - back).abs().max() > 0.01


def test_answers_do_not_depend_on_what_was_remembered(mind):
    forgetful = another(mind, text_memory_mb=0)
    for texts in (TEXTS[:2], TEXTS[1:4], TEXTS[:1], TEXTS[3:], TEXTS[:1] * 2):
        fresh = another(mind).action_logits(texts, torch.tensor([5]))
        torch.testing.assert_close(forgetful.action_logits(texts, torch.tensor([5])), fresh, **NEAR)
    assert forgetful.memory.take_misses() > len(TEXTS)


def test_instructions_and_texts_are_read_once_and_only_the_answer_token_is_computed_again(mind):
    first, last = [], []
    layers = mind.base.decoder.layers
    layers[0].register_forward_pre_hook(lambda _, args: first.append(tuple(args[0].shape[:2])))
    layers[-1].register_forward_pre_hook(lambda _, args: last.append(tuple(args[0].shape[:2])))
    for agents in ([0], [1], None):
        mind.action_logits(TEXTS, None if agents is None else torch.tensor(agents))
    longest = max(len(mind.base.tokens(text)) for text in TEXTS) + 1
    assert first == [(5, longest)]
    assert last == [(5, longest), (5, 1), (5, 1), (5, 1)]


def test_features_are_the_answer_tokens_hidden_state_below_the_adapters(mind, tiny_model):
    plain = AutoModelForCausalLM.from_pretrained(tiny_model)
    features = mind.features(TEXTS)
    assert features.shape == (len(TEXTS), mind.width)
    for text, row in zip(TEXTS, features, strict=True):
        ids = [*mind.instruction_ids, *mind.base.tokens(text), mind.answer_id]
        states = plain(torch.tensor([ids]), output_hidden_states=True).hidden_states
        torch.testing.assert_close(row, states[mind.first_layer][0, -1], **NEAR)


def test_gradients_flow_to_the_adapters_asked(mind):
    mind.action_logits(TEXTS[:4], torch.tensor([5, 2])).sum().backward()
    assert (mind.bank.gradients.norm(dim=1) > 0).tolist() == [False, False, True, False, False, True]


@pytest.mark.parametrize("layers", [1, 4])
def test_any_number_of_layers_can_carry_adapters(tiny_model, layers):
    config = AdapterConfig(rank=2, alpha=4.0, top_layers=layers)
    mind = make_policy(
        ModelConfig(name=str(tiny_model), dtype="float32"), config, ForageCodec(3), agents=2, seed=0
    ).mind
    mind.bank.values += 0.3 * torch.randn(mind.bank.values.shape, generator=torch.Generator().manual_seed(0))
    fast = mind.action_logits(TEXTS, torch.tensor([1]))
    for text, logits in zip(TEXTS, fast, strict=True):
        torch.testing.assert_close(logits, mind.plain_logits(text, 1), **NEAR)


def test_a_bfloat16_base_answers_nearly_the_same(mind, tiny_model):
    model = ModelConfig(name=str(tiny_model), dtype="bfloat16")
    half = make_policy(model, mind.bank.config, ForageCodec(3), agents=6, seed=0).mind
    half.bank.values[:] = mind.bank.values
    texts, everyone = TEXTS * 6, torch.arange(6)
    logits, exact = half.action_logits(texts, everyone), mind.action_logits(texts, everyone)
    assert logits.dtype == torch.float32
    assert 0 < (logits - exact).abs().max() < 0.1 * exact.abs().max()


class LongAnswer(ForageCodec):
    answer = "go home"


class LongAction(ForageCodec):
    action_words = ("stay", "north", "south west", "east", "west")


@pytest.mark.parametrize(("codec", "word"), [(LongAnswer, "go home"), (LongAction, "south west")])
def test_a_word_of_more_than_one_token_is_refused(mind, codec, word):
    with pytest.raises(ValueError, match=rf"word '{word}' is \[.*\] to .*: must be a word of one known token"):
        Mind(mind.base, mind.bank, codec(3))
