"""The trunk in 8 bits: near enough, the same for a row whoever is beside it, and only where it should be."""

import pytest
import torch
from torch import nn

from agents.adapted import BatchedLoRALinear
from agents.codecs.forage import ForageCodec
from agents.policy import Policy, make_policy
from agents.types import AdapterConfig, ModelConfig, UserError
from agents.weights import int8
from agents.weights.base_model import load_base_model
from agents.weights.frozen import FrozenLinear, freeze
from agents.weights.int8 import Int8Linear
from agents.weights.products import has_exact_int8

TEXTS = [" food two north one east, rock north", " no food", " food here", " no food, home south west, rock west"]

needs_products = pytest.mark.skipif(not has_exact_int8(), reason="8-bit products are not exact on this processor")


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@needs_products
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("shape", [(1, 48), (7, 48), (3, 2, 48), (5, 45)])
def test_it_maps_nearly_as_the_linear_module_does(has_bias, shape):
    torch.manual_seed(0)
    linear = nn.Linear(shape[-1], 39, bias=has_bias).requires_grad_(False)
    x = random(*shape) + 0.5
    y, expected = Int8Linear(linear.weight, linear.bias)(x), linear(x)
    assert (y.dtype, y.shape) == (torch.float32, expected.shape)
    assert (y - expected).norm() < 0.02 * expected.norm()


@needs_products
def test_what_eight_bits_can_hold_is_exact():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randint(-127, 128, (8, 20), generator=generator).float()
    x = torch.randint(0, 256, (30, 20), generator=generator).float() - 100.0
    weight[:, 0], x[:, 0], x[:, 1] = 127.0, -100.0, 155.0
    assert torch.equal(Int8Linear(weight, None)(x), x @ weight.T)


@needs_products
def test_rows_without_any_difference_are_no_trouble():
    weight = random(8, 20)
    x = torch.tensor([0.0, 3.0, -2.0])[:, None].expand(3, 20)
    torch.testing.assert_close(Int8Linear(weight, None)(x), x @ weight.T, rtol=0.0, atol=0.5)
    assert torch.equal(Int8Linear(torch.zeros(8, 20), None)(x), torch.zeros(3, 8))


@needs_products
def test_a_rows_result_does_not_depend_on_the_rows_beside_it():
    module = Int8Linear(random(1536, 576), None)
    x = random(200, 576)
    x[-1] *= 1000.0
    everyone = module(x)
    for rows in (1, 2, 5, 20, 100):
        assert torch.equal(module(x[:rows]), everyone[:rows])


@needs_products
def test_a_gradient_is_refused():
    with pytest.raises(RuntimeError, match="no gradient"):
        Int8Linear(random(8, 20), None)(random(3, 20).requires_grad_())


def tiny(model, trunk: str, storage: str = "full") -> Policy:
    settings = ModelConfig(name=str(model), dtype="float32", trunk=trunk, weight_storage=storage)
    policy = make_policy(settings, AdapterConfig(rank=2, alpha=4.0, top_layers=2), ForageCodec(3), agents=3, seed=0)
    policy.network.bank.values += 0.3 * random(*policy.network.bank.values.shape)
    return policy


def test_compact_weights_have_few_bits_of_its_own(tiny_model):
    with pytest.raises(UserError, match=r"model.trunk = 'int8': must be same with weight_storage = compact"):
        tiny(tiny_model, "int8", "compact")


@needs_products
def test_only_the_layers_below_the_adapters_are_in_eight_bits(tiny_model):
    layers = tiny(tiny_model, "int8").network.base.decoder.layers
    for layer in layers[:2]:
        assert sum(isinstance(m, Int8Linear) for m in layer.modules()) == 4, "q, k and v in one, and gate and up"
        assert not any(isinstance(m, FrozenLinear) for m in layer.modules())
    for layer in layers[2:]:
        assert not any(isinstance(m, Int8Linear) for m in layer.modules())
        assert sum(isinstance(m, BatchedLoRALinear) for m in layer.modules()) == 4


@needs_products
def test_instructions_are_read_without_it_and_texts_with_it(tiny_model):
    exact, rounded = tiny(tiny_model, "same").network, tiny(tiny_model, "int8").network
    for ours, theirs in zip(rounded.reader.instructions, exact.reader.instructions, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    a, b = (network.action_logits(TEXTS, torch.tensor([2, 0])).detach() for network in (exact, rounded))
    assert not torch.equal(a, b)
    assert (a - b).abs().max() < 0.05 * a.abs().max()


@needs_products
def test_adapters_learn_above_it(tiny_model):
    network = tiny(tiny_model, "int8").network
    with network.bank.gathering(slice(0, 3)) as gradients:
        network.action_logits(TEXTS[:3], torch.arange(3)).log_softmax(1)[:, 1].sum().backward()
    assert (gradients.abs().sum(dim=1) > 0).all()


@needs_products
def test_dense_weights_are_those_that_were_frozen(tiny_model):
    base = load_base_model(ModelConfig(name=str(tiny_model)))
    before = {name: m.weight.clone() for name, m in base.decoder.layers.named_modules() if isinstance(m, nn.Linear)}
    freeze(base.decoder, {}, 2, torch.float32)
    assert len(before) == 28
    for name, weight in before.items():
        assert torch.equal(base.decoder.layers.get_submodule(name).weight().float(), weight)


def test_a_processor_without_exact_products_is_refused(monkeypatch, tiny_model):
    monkeypatch.setattr(int8, "has_exact_int8", lambda: False)
    with pytest.raises(UserError, match=r"model\.trunk = 'int8': must be 'same'"):
        tiny(tiny_model, "int8")


@needs_products
def test_what_is_read_is_the_same_to_the_last_bit_in_any_company(tiny_model):
    memory = tiny(tiny_model, "int8").network.cache
    texts = [" food" + " north" * n + m for n in range(4) for m in ("", " two", ", home here", " one west", " three")]
    known = {}
    for size in (1, 20, 3, 7):
        memory.clear()
        for first in range(0, 20, size):
            company = texts[first : first + size]
            recalled = memory.recall(company)
            (block,) = recalled.blocks
            for row, text in enumerate(company):
                read = block.tokens[..., row, : block.lengths[row], :], recalled.entering[row]
                before = known.setdefault(text, read)
                assert all(torch.equal(now, then) for now, then in zip(read, before, strict=True))
