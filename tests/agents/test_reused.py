"""Memory is lent again only when nothing refers to what it was lent for."""

import numpy as np
import pytest
import torch

from agents import reused
from agents.reused import Reused


def where(array: torch.Tensor) -> int:
    return array.untyped_storage().data_ptr()


def test_memory_is_used_again_when_the_array_is_gone():
    lender = Reused()
    first = lender.empty(3, 4)
    place = where(first)
    del first
    assert where(lender.empty(2, 2)) == place
    assert where(lender.empty(15)) == place, "there is a quarter more than was asked for"
    assert lender.empty(0).shape == (0,)


@pytest.mark.parametrize("keep", [lambda x: x, lambda x: x[1:, :2], lambda x: x.detach().numpy()[0], lambda x: x.T])
def test_memory_is_not_lent_twice_while_anything_is_in_it(keep):
    lender = Reused()
    kept = keep(lender.empty(3, 4).fill_(7.0))
    others = [lender.empty(3, 4).fill_(1.0) for _ in range(3)]
    assert len({where(x) for x in others}) == 3
    assert np.asarray(kept).min() == 7.0


def test_what_a_backward_needs_is_kept():
    lender = Reused()
    weight = torch.ones(4, requires_grad=True)
    loss = (lender.empty(4).fill_(3.0) * weight).sum()
    lender.empty(4).fill_(100.0)
    loss.backward()
    assert weight.grad.tolist() == [3.0] * 4


def test_little_is_held_at_once_and_nothing_of_what_is_large(monkeypatch):
    monkeypatch.setattr(reused, "MOST_BYTES", 400)
    lender = Reused()
    for size in (10, 90, 50, 100, 101, 1000, 3):
        assert lender.empty(size).shape == (size,)
        assert sum(memory.nbytes for memory, _ in lender._lent) <= 400
