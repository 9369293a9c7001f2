"""Every row is stepped as if it were alone with a torch.optim.Adam of its own."""

import pytest
import torch

from agents import optimiser as module
from agents.optimiser import StackedAdam, fused_step, has_fused, share_mean

ROWS, NUMBERS, MAX_NORM = 4, 7, 0.5
ALL, EVERYONE = slice(0, ROWS), torch.ones(ROWS, dtype=torch.bool)


class Bank:
    """What the optimiser needs of a bank."""

    def __init__(self):
        self.values = torch.randn(ROWS, NUMBERS, generator=torch.Generator().manual_seed(0))

    def __len__(self):
        return ROWS


class Alone:
    """One row, with torch's Adam and torch's clipping."""

    def __init__(self, row: torch.Tensor, learning_rate: float):
        self.row = row.clone().requires_grad_()
        self.adam = torch.optim.Adam([self.row], learning_rate)

    def step(self, gradient: torch.Tensor) -> float:
        self.row.grad = gradient.clone()
        norm = torch.nn.utils.clip_grad_norm_([self.row], MAX_NORM)
        self.adam.step()
        return float(norm)


@pytest.fixture(params=["fused", "plain"])
def bank(request, monkeypatch) -> Bank:
    """A bank whose rows are stepped by torch's private function, and by public ones."""
    monkeypatch.setattr(module, "has_fused", lambda device: request.param == "fused")
    return Bank()


def gradients(steps: int) -> torch.Tensor:
    """(steps, ROWS, NUMBERS), some beyond the clipping norm and some below it."""
    generator = torch.Generator().manual_seed(1)
    size = torch.rand(steps, ROWS, 1, generator=generator)
    return size * torch.randn(steps, ROWS, NUMBERS, generator=generator)


def test_each_row_moves_as_with_torchs_adam_at_its_own_rate(bank):
    rates = torch.tensor([1e-3, 1e-1, 0.0, 1e-2])
    optimiser, alone = StackedAdam(bank), [Alone(r, float(x)) for r, x in zip(bank.values, rates, strict=True)]
    begin = bank.values.clone()
    for gradient in gradients(30):
        norms = optimiser.step(ALL, gradient.clone(), rates, MAX_NORM, EVERYONE)
        expected = [one.step(g) for one, g in zip(alone, gradient, strict=True)]
        torch.testing.assert_close(norms, torch.tensor(expected))
        torch.testing.assert_close(bank.values, torch.stack([one.row.detach() for one in alone]), rtol=1e-4, atol=1e-5)
    assert torch.equal(bank.values[2], begin[2])
    assert ((bank.values - begin).abs().amax(dim=1)[[0, 1, 3]] > 1e-3).all()


def test_who_rests_keeps_adapter_moments_and_step_count(bank):
    optimiser = StackedAdam(bank)
    alone = Alone(bank.values[1], 0.01)
    for number, gradient in enumerate(gradients(20)):
        is_learning = EVERYONE.clone()
        is_learning[1] = number % 3 != 0
        before = [x[1].clone() for x in (bank.values, optimiser.mean, optimiser.square, optimiser.steps)]
        optimiser.step(ALL, gradient.clone(), torch.full((ROWS,), 0.01), MAX_NORM, is_learning)
        if is_learning[1]:
            alone.step(gradient[1])
        else:
            after = (bank.values, optimiser.mean, optimiser.square, optimiser.steps)
            assert all(torch.equal(x[1], old) for x, old in zip(after, before, strict=True))
        torch.testing.assert_close(bank.values[1], alone.row.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("poison", [torch.nan, torch.inf, -torch.inf])
def test_a_gradient_that_is_not_finite_stops_its_row_and_no_other(bank, poison):
    optimiser, alone = StackedAdam(bank), [Alone(row, 0.01) for row in bank.values]
    first, second, third = gradients(3)
    for number, gradient in enumerate((first, second, third)):
        poisoned = gradient.clone()
        if number == 1:
            poisoned[2, 4] = poison
        norms = optimiser.step(ALL, poisoned, torch.full((ROWS,), 0.01), MAX_NORM, EVERYONE)
        assert norms.isfinite().tolist() == [True, True, number != 1, True]
        for row, one in enumerate(alone):
            if not (number == 1 and row == 2):
                one.step(gradient[row])
        torch.testing.assert_close(bank.values, torch.stack([one.row.detach() for one in alone]), rtol=1e-5, atol=1e-6)


def test_one_who_was_forgotten_begins_like_a_newborn(bank):
    optimiser = StackedAdam(bank)
    rates = torch.full((ROWS,), 0.01)
    for gradient in gradients(5):
        optimiser.step(ALL, gradient.clone(), rates, MAX_NORM, EVERYONE)
    optimiser.forget(3)
    alone, elder = Alone(bank.values[3], 0.01), bank.values[0].clone()
    fresh = Alone(bank.values[0], 0.01)
    for gradient in gradients(4):
        optimiser.step(ALL, gradient.clone(), rates, MAX_NORM, EVERYONE)
        alone.step(gradient[3])
        fresh.step(gradient[0])
    torch.testing.assert_close(bank.values[3], alone.row.detach(), rtol=1e-5, atol=1e-6)
    assert (fresh.row.detach() - bank.values[0]).abs().max() > 1e-3
    assert not torch.equal(elder, bank.values[0])


def test_a_run_of_rows_moves_by_gradients_of_its_own(bank):
    (gradient,), rates = gradients(1), torch.full((ROWS,), 0.01)
    twin, is_learning = Bank(), torch.tensor([True, True, False, True])
    norms = StackedAdam(bank).step(ALL, gradient.clone(), rates, MAX_NORM, is_learning)
    of_some = StackedAdam(twin).step(slice(1, 4), gradient[1:].clone(), rates, MAX_NORM, is_learning)
    assert torch.equal(norms[1:], of_some)
    assert (bank.values != twin.values).any(dim=1).tolist() == [True, False, False, False]


def wrong(row):
    fused_step(row)
    row.values.add_(0.01)


def missing(*_):
    raise ImportError("cannot import name 'adam' from 'torch.optim.adam'")


@pytest.mark.parametrize(("step", "is_good"), [(fused_step, True), (wrong, False), (missing, False)])
def test_torchs_private_step_is_tried_before_it_is_relied_on(monkeypatch, step, is_good):
    monkeypatch.setattr(module, "fused_step", step)
    has_fused.cache_clear()
    assert has_fused(torch.device("cpu")) == is_good
    has_fused.cache_clear()


@pytest.mark.parametrize("moment", ["mean", "square"])
def test_moments_that_are_not_finite_begin_at_zero_and_cost_one_step(bank, moment):
    optimiser, rates = StackedAdam(bank), torch.full((ROWS,), 0.01)
    first, second, third = gradients(3)
    optimiser.step(ALL, first, rates, MAX_NORM, EVERYONE)
    getattr(optimiser, moment)[2, 4] = torch.nan
    before = bank.values.clone()
    assert optimiser.step(slice(0, 2), second[:2].clone(), rates, MAX_NORM, EVERYONE).isfinite().all()
    norms = optimiser.step(slice(2, 4), second[2:].clone(), rates, MAX_NORM, EVERYONE)
    assert norms.isfinite().tolist() == [False, True]
    assert (bank.values != before).any(dim=1).tolist() == [True, True, False, True]
    assert optimiser.steps.tolist() == [2, 2, 0, 2]
    newborn = Alone(bank.values[2], 0.01)
    newborn.step(third[2])
    assert optimiser.step(ALL, third, rates, MAX_NORM, EVERYONE).isfinite().all()
    torch.testing.assert_close(bank.values[2], newborn.row.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rate", [1e30, torch.inf, torch.nan])
def test_a_rate_beyond_all_bounds_moves_nobody(bank, rate):
    before = bank.values.clone()
    norms = StackedAdam(bank).step(ALL, gradients(1)[0], torch.tensor([0.01, rate, 0.01, 0.01]), MAX_NORM, EVERYONE)
    assert norms.isfinite().tolist() == [True, False, True, True]
    assert (bank.values != before).any(dim=1).tolist() == [True, False, True, True]


@pytest.mark.parametrize("rows", [[0, 1, 2], [2, 0], [0, 1, 2, 3]])
@pytest.mark.parametrize("strange", [None, float("nan"), float("inf")])
def test_the_mean_is_of_the_finite_gradients_of_those_who_learn(rows, strange):
    gradients = torch.arange(12.0).view(4, 3) ** 2
    if strange:
        gradients[2, 1] = strange
    sound = [row for row in rows if not (strange and row == 2)]
    mean = gradients[sound].mean(dim=0)
    assert share_mean(gradients, torch.tensor(rows)).tolist() == [row not in sound for row in rows]
    torch.testing.assert_close(gradients, mean.expand(4, 3))


def test_large_finite_gradients_are_finite_though_their_sum_is_not():
    gradients = torch.tensor([[3e38, 3e38, 1.0], [-3e38, -3e38, 3.0]])
    assert not share_mean(gradients, torch.tensor([0, 1])).any()
    assert gradients.tolist() == [[0.0, 0.0, 2.0]] * 2
