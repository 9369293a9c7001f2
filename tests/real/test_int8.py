"""SmolLM2-135M with its trunk in 8 bits chooses nearly as it does in float32, in texts of a real world."""

import pytest
import torch

from agents.codecs.forage import ForageCodec
from agents.policy import Policy, make_policy
from agents.types import AdapterConfig, ModelConfig
from agents.weights.products import has_exact_int8
from benchmarks.conformance import forage_texts
from envs import WorldConfig

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not has_exact_int8(), reason="8-bit products are not exact on this processor"),
]


def policy_with(trunk: str) -> Policy:
    """Three agents whose adapters move the logits by more than one."""
    model = ModelConfig(dtype="float32", trunk=trunk)
    policy = make_policy(model, AdapterConfig(), ForageCodec(WorldConfig().view_radius), agents=3, seed=0)
    bank = policy.network.bank
    bank.values += 0.06 * torch.randn(bank.values.shape, generator=torch.Generator().manual_seed(0))
    return policy


def divergence(exact: torch.Tensor, rounded: torch.Tensor) -> float:
    """Mean KL (Kullback-Leibler divergence) of action distributions, from logits (B, A)."""
    p, q = exact.double().log_softmax(1), rounded.double().log_softmax(1)
    return float((p.exp() * (p - q)).sum(1).mean())


@torch.no_grad()
def test_the_action_distribution_hardly_moves():
    texts = forage_texts(200)
    exact, rounded = (policy_with(trunk).network for trunk in ("same", "int8"))
    for adapters in (None, *(torch.tensor([i]) for i in range(3))):
        kl = divergence(exact.action_logits(texts, adapters), rounded.action_logits(texts, adapters))
        assert 1e-6 < kl < 0.005


@torch.no_grad()
def test_the_texts_beside_a_text_do_not_matter():
    network = policy_with("int8").network
    texts, agent = forage_texts(20), torch.tensor([1])
    together = network.action_logits(texts, agent)
    network.cache.clear()
    for text in reversed(texts):
        network.cache.recall([text])
    assert torch.equal(network.action_logits(texts, agent), together)
