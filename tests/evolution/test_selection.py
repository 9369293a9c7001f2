"""The fittest come first, and no NaN or tie can upset the order."""

from math import inf, nan
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evolution import select_top_k


class One(NamedTuple):
    id: int
    fitness: float


def ids(agents: list[One], k: int) -> list[int]:
    return [one.id for one in select_top_k(agents, k)]


def test_the_fittest_come_first():
    agents = [One(i, fitness) for i, fitness in enumerate((0.5, -2.0, 7.0, 3.0))]
    assert ids(agents, 4) == [2, 3, 0, 1]
    assert ids(agents, 2) == [2, 3]


def test_ties_go_to_the_older_wherever_it_stands():
    assert ids([One(9, 1.0), One(4, 1.0), One(6, 2.0), One(5, 1.0)], 3) == [6, 4, 5]


def test_nan_is_worse_than_anything_and_ties_with_nan():
    agents = [One(3, nan), One(2, -inf), One(1, nan), One(0, -5.0)]
    assert ids(agents, 4) == [0, 2, 1, 3]


@given(st.lists(st.floats(), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_the_order_of_the_population_does_not_matter_and_nobody_chosen_is_less_fit_than_one_left(fitness, random):
    agents = [One(i, f) for i, f in enumerate(fitness)]
    shuffled = random.sample(agents, len(agents))
    k = 1 + len(agents) // 2
    chosen = select_top_k(agents, k)
    assert [a.id for a in select_top_k(shuffled, k)] == [a.id for a in chosen]
    left = [a.fitness for a in agents if a not in chosen]
    assert not any(a.fitness < f for a in chosen for f in left)


@pytest.mark.parametrize("k", [0, -1, 4])
def test_an_impossible_k_is_refused(k):
    with pytest.raises(ValueError, match=rf"k = {k}: must be between 1 and the 3 agents"):
        select_top_k([One(i, 0.0) for i in range(3)], k)


def test_five_are_chosen_unless_told_otherwise():
    assert len(select_top_k([One(i, 0.0) for i in range(9)])) == 5
