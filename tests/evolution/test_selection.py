"""The fittest come first, and no NaN or tie can upset the order."""

from math import inf, nan
from typing import NamedTuple, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evolution import select_top_k
from evolution.config import Selection
from evolution.selection import SELECTIONS, pair_by_rank, pair_by_tournament, pair_of_top_k


def test_the_config_names_every_selection_there_is():
    assert set(get_args(Selection)) == set(SELECTIONS)


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


def firsts(choose, k: int, pairs: int = 4000) -> np.ndarray:
    """How often each of ten, best first, is the first parent."""
    rng = np.random.default_rng(0)
    chosen = [choose(range(10), k, rng) for _ in range(pairs)]
    assert all(one != other for one, other in chosen)
    return np.bincount([one for one, _ in chosen], minlength=10) / pairs


def test_the_top_are_equally_likely_and_others_never():
    assert firsts(pair_of_top_k, 4) == pytest.approx([0.25] * 4 + [0] * 6, abs=0.03)


def test_a_tournament_is_won_by_the_best_who_takes_part():
    # The best of 3 among 10 is the i-th (from 0) if the other two come from the 9 - i behind it.
    expected = [(9 - i) * (8 - i) / 2 / 120 for i in range(10)]
    assert firsts(pair_by_tournament, 3) == pytest.approx(expected, abs=0.03)
    assert firsts(pair_by_tournament, 1) == pytest.approx([0.1] * 10, abs=0.03)


def test_ranks_fall_evenly():
    assert firsts(pair_by_rank, 4) == pytest.approx([0.4, 0.3, 0.2, 0.1] + [0] * 6, abs=0.03)


@pytest.mark.parametrize("choose", SELECTIONS.values(), ids=SELECTIONS)
def test_a_choice_follows_from_the_generator(choose):
    one, other = (np.random.default_rng(3) for _ in range(2))
    assert [choose(range(6), 3, one) for _ in range(9)] == [choose(range(6), 3, other) for _ in range(9)]
