"""Products of frozen weights are right whatever this processor and this torch can do: operations are taken away."""

import pytest
import torch

from agents.weights import products
from agents.weights.products import (
    computed_in,
    fastest_dtype,
    has_exact_int8,
    has_packed,
    pack,
    plain_product,
    product,
    shortcoming,
    unpack,
)

FORMATS = [torch.float32, torch.bfloat16]


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def exact(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    y = x.double() @ weight.double().T
    return y if bias is None else y + bias.double()


@pytest.mark.parametrize("bias", [None, random(40)], ids=["plain", "bias"])
@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("shape", [(1, 64), (7, 64), (3, 2, 64)])
def test_a_product_is_rounded_once_and_has_the_format_of_its_operand(processor, dtype, shape, bias):
    x, weight = random(*shape).to(dtype), random(40, 64).to(dtype)
    bias = None if bias is None else bias.to(dtype)
    near = 1e-5 if dtype == torch.float32 else 2**-8  # half a step of bfloat16, which has 8 bits, and what sums lose
    for y in (product(x, pack(weight), bias), plain_product(x, weight, bias)):
        assert y.dtype == dtype
        torch.testing.assert_close(y.double(), exact(x, weight, bias), rtol=near, atol=2e-5)


@pytest.mark.parametrize("dtype", FORMATS)
def test_what_was_packed_can_be_unpacked(processor, dtype):
    weight = random(40, 64).to(dtype)
    assert torch.equal(unpack(pack(weight)).to(dtype), weight)


def test_what_is_missing_is_said_and_what_is_there_is_not(processor):
    for dtype in FORMATS:
        assert (shortcoming(dtype) is None) == has_packed(dtype)
        assert computed_in(dtype) == (dtype if has_packed(dtype) else torch.float32)
    if processor != "as it is":
        assert "no fast bfloat16 product" in shortcoming(torch.bfloat16)
    if processor not in ("as it is", "no bfloat16"):
        assert "no packed products" in shortcoming(torch.float32)


def test_nothing_is_measured_where_bfloat16_has_no_product(processor, monkeypatch):
    monkeypatch.setattr(products, "perf_counter", lambda: pytest.fail("measured"))
    if has_packed(torch.bfloat16):
        with pytest.raises(pytest.fail.Exception):
            fastest_dtype.__wrapped__()
    else:
        assert fastest_dtype.__wrapped__() == "float32"


@pytest.mark.parametrize(("faster", "slower"), [("float32", "bfloat16"), ("bfloat16", "float32")])
def test_the_faster_format_is_chosen_where_there_are_two(monkeypatch, faster, slower):
    clock = [0.0]

    def timed_product(x, weight, bias):
        clock[0] += 1.0 if x.dtype == getattr(torch, faster) else 2.0

    monkeypatch.setattr(products, "has_packed", lambda dtype: True)
    monkeypatch.setattr(products, "pack", lambda weight: weight)
    monkeypatch.setattr(products, "product", timed_product)
    monkeypatch.setattr(products, "perf_counter", lambda: clock[0])
    assert fastest_dtype.__wrapped__(seconds=60.0) == faster


def overflowing(x, weight):
    return torch.full((2, 32), 32.0 * 32767)


def missing(*_):
    raise AttributeError("no such operation")


@pytest.mark.parametrize("taken", [overflowing, missing])
def test_eight_bit_sums_that_overflow_or_are_missing_are_noticed(monkeypatch, taken):
    monkeypatch.setattr(products, "int8_product", taken)
    assert not has_exact_int8.__wrapped__()
