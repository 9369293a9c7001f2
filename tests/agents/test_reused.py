"""Memory is lent again only when nothing refers to what it was lent for."""

import numpy as np
import pytest
import torch

from agents import reused
from agents.reused import Reused


def where(array: torch.Tensor) -> int:
    return array.untyped_storage().data_ptr()


def held(lender: Reused) -> int:
    return sum(memory.nbytes for memory, _ in lender._lent)


def test_memory_is_used_again_when_the_array_is_gone():
    lender = Reused()
    first = lender.empty(3, 4)
    place = where(first)
    del first
    assert where(lender.empty(2, 2)) == place
    assert where(lender.empty(13)) == place, "there is an eighth more than was asked for"
    assert lender.empty(0).shape == (0,)


def test_arrays_of_several_sizes_find_their_memory_again():
    lender, places = Reused(), []
    for _ in range(3):
        arrays = [lender.empty(size) for size in (100, 400, 200, 300)]
        places.append([where(array) for array in arrays])
        del arrays
        lender.empty(10)  # a small one takes the smallest
    assert places[0] == places[1] == places[2]


@pytest.mark.parametrize("keep", [lambda x: x, lambda x: x[1:, :2], lambda x: x.detach().numpy()[0], lambda x: x.T])
def test_memory_is_not_lent_twice_while_anything_is_in_it(keep):
    lender = Reused()
    kept = keep(lender.empty(3, 4).fill_(7.0))
    others = [lender.empty(3, 4).fill_(1.0) for _ in range(3)]
    assert len({where(x) for x in others}) == 3
    assert np.asarray(kept).min() == 7.0


def test_memory_that_another_thread_lets_go_meanwhile_is_lent_once():
    lender = Reused()
    answers = iter([np.zeros(1), None, None, None])  # there when it is asked for first
    lender._lent = [(np.empty(12, np.float32), lambda: next(answers))]
    first, second, third = (lender.empty(12) for _ in range(3))
    assert len({where(first), where(second), where(third)}) == 3


def test_what_a_backward_needs_is_kept():
    lender = Reused()
    weight = torch.ones(4, requires_grad=True)
    loss = (lender.empty(4).fill_(3.0) * weight).sum()
    lender.empty(4).fill_(100.0)
    loss.backward()
    assert weight.grad.tolist() == [3.0] * 4


def test_arrays_are_aligned_as_those_of_torch():
    lender = Reused()
    arrays = [lender.empty(size) for size in range(1, 200, 7)]
    assert all(where(array) % 64 == 0 for array in arrays)


def test_no_more_is_kept_for_later_than_allowed(monkeypatch):
    monkeypatch.setattr(reused, "MOST_BYTES", 400)
    lender = Reused()
    alive = [lender.empty(size) for size in (10, 40, 20, 90)]
    assert held(lender) >= 4 * 160, "what is in use is in use"
    alive.clear()
    for size in (10, 90, 50, 100, 101, 1000, 3):
        assert lender.empty(size).shape == (size,)
        assert held(lender) <= 400
    array = lender.empty(5)
    lender.clear()
    assert held(lender) > 0
    del array
    lender.clear()
    assert held(lender) == 0
