"""On the real SmolLM2-135M: the weights, the words, the fast way against the slow, and PEFT."""

from typing import get_args

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from agents.codecs.forage import ForageCodec
from agents.policy import Policy, make_policy
from agents.sums import sha256_of
from agents.types import AdapterConfig, ModelConfig, Tokens
from agents.weights.fetch import MODELS, known_gguf
from envs import WorldConfig

pytestmark = pytest.mark.real

TEXTS = [
    " food two north one east, rock north",
    " food three west",
    " food was south east",
    " no food, home north, rock north",
    " no food",
]


@pytest.fixture(scope="module", params=get_args(Tokens))
def policy(request) -> Policy:
    """Five agents of the default shape, in either mode, whose adapters move the logits by more than one."""
    model, adapter = ModelConfig(dtype="float32"), AdapterConfig(tokens=request.param)
    policy = make_policy(model, adapter, ForageCodec(WorldConfig().view_radius), agents=5, seed=0)
    bank = policy.network.bank
    bank.values += 0.06 * torch.randn(bank.values.shape, generator=torch.Generator().manual_seed(0))
    return policy


def test_the_weights_are_the_ones_that_were_published():
    assert sha256_of(known_gguf("smollm2-135m")) == MODELS["smollm2-135m"].sha256


def test_action_words_are_the_tokens_that_they_should_be(policy):
    assert policy.network.action_ids == [2951, 4081, 4203, 6251, 5846]
    assert policy.network.answer_id == 685


def test_tokens_of_the_parts_are_tokens_of_the_whole(policy):
    base = policy.network.base
    for text in TEXTS:
        whole = base.tokens(ForageCodec.instructions + text + " " + ForageCodec.answer)
        assert [*policy.network.instruction_ids, *base.tokens(text), policy.network.answer_id] == whole


@torch.no_grad()
def test_the_fast_way_gives_what_the_slow_way_gives(policy):
    fast = policy.network.action_logits(TEXTS, torch.arange(5))
    slow = torch.stack([policy.network.plain_logits(text, i) for i, text in enumerate(TEXTS)])
    bare = policy.network.action_logits(TEXTS, None)
    assert (fast - slow).abs().max() < 1e-3
    assert (fast - bare).abs().max() > 1.0


@torch.no_grad()
def test_what_is_read_of_a_text_does_not_depend_on_the_texts_beside_it(policy):
    def read(*batches: list[str]) -> torch.Tensor:
        policy.network.cache.clear()
        return torch.cat([policy.network.features(batch) for batch in batches])

    assert torch.equal(read(TEXTS), read(*([text] for text in TEXTS)))


@torch.no_grad()
def test_a_saved_adapter_gives_the_same_logits_in_peft(policy, tmp_path):
    network = policy.network
    network.save_adapter(3, tmp_path)
    base = AutoModelForCausalLM.from_pretrained(network.base.folder, dtype=torch.float32)
    peft = PeftModel.from_pretrained(base, tmp_path).eval()
    for text in TEXTS:
        ids = torch.tensor([[*network.instruction_ids, *network.base.tokens(text), network.answer_id]])
        theirs = peft(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, -1, network.action_ids]
        assert (theirs - network.action_logits([text], torch.tensor([3]))[0]).abs().max() < 1e-4


def test_one_update_raises_what_was_rewarded_and_leaves_the_base_alone(policy):
    from agents.optimiser import StackedAdam

    network = policy.network
    before = [p.clone() for p in network.base.causal_lm.parameters()]
    optimiser, action, legal = (
        StackedAdam(network.bank),
        torch.ones(5, dtype=torch.long),
        torch.ones(5, 5, dtype=torch.bool),
    )
    log_prob, _ = policy.evaluate(TEXTS, torch.arange(5), action, legal)
    with network.bank.gathering(slice(0, 5)) as gradients:
        (-log_prob).sum().backward()
    optimiser.step(slice(0, 5), gradients, torch.full((5,), 1e-3), 0.5, torch.ones(5, dtype=torch.bool))
    better, _ = policy.evaluate(TEXTS, torch.arange(5), action, legal)
    assert (better > log_prob).all()
    assert all(torch.equal(p, old) for p, old in zip(network.base.causal_lm.parameters(), before, strict=True))
