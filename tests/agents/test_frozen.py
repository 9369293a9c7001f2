"""Frozen weights multiply as plain ones do, and let gradients through where they must."""

import pytest
import torch
from torch import nn

from agents.weights.compact_writer import eight_bit
from agents.weights.frozen import (
    BlockLinear,
    FrozenLinear,
    HalfLinear,
    PackedLinear,
    freeze,
    product_dtype,
)
from agents.weights.products import has_packed

FORMS = {"packed": 1e-5, "half": 1e-2, "blocks": 2e-2}
"""How a weight may be held, and how near its products come."""


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=[False, True], ids=["weight", "bias"])
def linear(request) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(64, 40, bias=request.param)


def frozen_in(form: str, linear: nn.Linear, dtype: torch.dtype) -> FrozenLinear:
    weight, bias = linear.weight, linear.bias
    if form == "packed":
        return PackedLinear(weight, bias, dtype, passes_gradients=True)
    return HalfLinear(weight, bias, dtype) if form == "half" else BlockLinear([eight_bit(weight)], bias, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [(1, 64), (7, 64), (3, 2, 64)])
def test_it_maps_as_the_linear_module_does(processor, linear, dtype, form, shape):
    x = random(*shape)
    y = frozen_in(form, linear, dtype)(x)
    assert y.dtype == torch.float32
    near = FORMS[form] if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(y, linear(x).detach(), rtol=near, atol=near)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("form", FORMS)
def test_its_gradient_is_that_of_the_linear_module(processor, linear, dtype, form):
    ours, theirs = random(6, 64).requires_grad_(), random(6, 64).requires_grad_()
    weights = random(6, 40)
    (frozen_in(form, linear, dtype)(ours) * weights).sum().backward()
    (linear(theirs) * weights).sum().backward()
    near = FORMS[form] if dtype == torch.float32 else 3e-2
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=near, atol=near)


@pytest.mark.parametrize("form", FORMS)
def test_its_weights_take_no_gradient(linear, form):
    assert not list(frozen_in(form, linear, torch.float32).parameters())


def test_a_rows_result_does_not_depend_on_the_rows_beside_it():
    same = torch.equal if has_packed(torch.float32) else torch.allclose  # plain products are torch's own
    torch.manual_seed(0)
    module = PackedLinear(torch.randn(1536, 576), None, torch.float32, passes_gradients=False)
    x = random(200, 576)
    everyone = module(x)
    for rows in (2, 5, 20, 100):
        assert same(module(x[:rows]), everyone[:rows])


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        block = [(nn.Linear(64, 64), nn.ReLU(), nn.Sequential(nn.Linear(64, 64))) for _ in range(3)]
        self.layers = nn.ModuleList(nn.Sequential(*modules) for modules in block)
        self.head = nn.Linear(64, 64)


@pytest.mark.parametrize("is_compact", [False, True])
def test_all_linear_modules_of_the_layers_are_frozen_and_no_others(is_compact):
    decoder, x = Decoder(), random(2, 64)
    before = [layer(x).detach() for layer in decoder.layers]
    linears = {
        f"layers.{n}.{path}": layer.get_submodule(path)
        for n, layer in enumerate(decoder.layers)
        for path in ("0", "2.0")
    }
    blocks = {path: eight_bit(linear.weight) for path, linear in linears.items()} if is_compact else {}
    freeze(decoder, blocks, first_with_gradients=2, dtype=torch.float32)
    assert type(decoder.head) is nn.Linear
    kinds = [[type(m) for m in layer.modules() if not isinstance(m, nn.Sequential)] for layer in decoder.layers]
    low, top = (BlockLinear, HalfLinear) if is_compact else (PackedLinear, PackedLinear)
    assert kinds == [[low, nn.ReLU, low]] * 2 + [[top, nn.ReLU, top]]
    for layer, y in zip(decoder.layers, before, strict=True):
        torch.testing.assert_close(layer(x), y, rtol=0.02, atol=0.02)


def test_no_gradient_is_lost_in_silence(linear):
    x = random(2, 64).requires_grad_()
    y = PackedLinear(linear.weight, linear.bias, torch.float32, passes_gradients=False)(x)
    with pytest.raises(RuntimeError, match="no gradient passes"):
        y.sum().backward()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_decoder_knows_in_what_it_multiplies(dtype):
    decoder = Decoder()
    assert product_dtype(decoder) == "float32"
    freeze(decoder, {}, first_with_gradients=2, dtype=getattr(torch, dtype))
    assert product_dtype(decoder) == dtype
