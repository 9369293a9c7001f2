"""Frozen weights multiply as plain ones do, and let gradients through where they must."""

import pytest
import torch
from torch import nn

from agents import frozen
from agents.frozen import FrozenLinear, fastest_dtype, freeze, with_dtype
from agents.types import ModelConfig

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=[False, True], ids=["weight", "bias"])
def linear(request) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(48, 40, bias=request.param)


@pytest.fixture(params=[True, False], ids=["onednn", "plain"])
def onednn(request, monkeypatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: request.param)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("passes_gradients", [False, True])
@pytest.mark.parametrize("shape", [(1, 48), (7, 48), (3, 2, 48)])
def test_it_maps_as_the_linear_module_does(onednn, linear, dtype, passes_gradients, shape):
    x = random(*shape)
    y = FrozenLinear(linear, dtype, passes_gradients)(x)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, linear(x).detach(), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_its_gradient_is_that_of_the_linear_module(onednn, linear, dtype):
    ours, theirs = random(6, 48).requires_grad_(), random(6, 48).requires_grad_()
    weights = random(6, 40)
    (FrozenLinear(linear, dtype, passes_gradients=True)(ours) * weights).sum().backward()
    (linear(theirs) * weights).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


def test_its_weights_take_no_gradient_and_are_counted(linear):
    assert not list(FrozenLinear(linear, torch.float32, passes_gradients=True).parameters())
    assert FrozenLinear(linear, torch.float32, passes_gradients=True).nbytes == 2 * 48 * 40 * 4
    assert FrozenLinear(linear, torch.bfloat16, passes_gradients=False).nbytes == 48 * 40 * 2


def test_a_rows_result_does_not_depend_on_the_rows_beside_it():
    if not torch.backends.mkldnn.is_available():
        pytest.skip("without oneDNN products are torch's own")
    torch.manual_seed(0)
    module = FrozenLinear(nn.Linear(576, 1536, bias=False), torch.float32, passes_gradients=False)
    x = random(200, 576)
    everyone = module(x)
    for rows in (2, 5, 20, 100):
        assert torch.equal(module(x[:rows]), everyone[:rows])


def test_all_linear_modules_of_the_layers_are_frozen_and_no_others():
    layers = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Sequential(nn.Linear(4, 4))) for _ in range(3))
    decoder = nn.ModuleDict({"layers": layers, "head": nn.Linear(4, 4)})
    decoder.layers = layers
    x = random(2, 4)
    before = [layer(x) for layer in layers]
    freeze(decoder, first_with_gradients=2, dtype=torch.float32)
    assert type(decoder["head"]) is nn.Linear
    kinds = [[type(m) for m in layer.modules() if not isinstance(m, nn.Sequential)] for layer in layers]
    assert kinds == [[FrozenLinear, nn.ReLU, FrozenLinear]] * 3
    for layer, y in zip(layers, before, strict=True):
        torch.testing.assert_close(layer(x), y.detach())
    x.requires_grad_()
    assert layers[2](x).requires_grad
    with pytest.raises(RuntimeError):
        layers[1](x).sum().backward()


@pytest.mark.parametrize(("faster", "slower"), [("float32", "bfloat16"), ("bfloat16", "float32")])
def test_the_faster_format_is_chosen(monkeypatch, faster, slower):
    clock = [0.0]

    def product(x, weight, bias):
        clock[0] += 1.0 if x.dtype == getattr(torch, faster) else 2.0

    monkeypatch.setattr(frozen, "product", product)
    monkeypatch.setattr(frozen, "perf_counter", lambda: clock[0])
    assert fastest_dtype.__wrapped__(seconds=60.0) == faster


def test_only_auto_is_replaced():
    assert with_dtype(ModelConfig(dtype="float32")) == ModelConfig(dtype="float32")
    assert with_dtype(ModelConfig(dtype="bfloat16")) == ModelConfig(dtype="bfloat16")
    assert with_dtype(ModelConfig()) == ModelConfig(dtype=fastest_dtype())
