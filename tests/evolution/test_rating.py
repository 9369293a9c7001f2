"""Ratings are the most likely ones, on Elo's scale, whatever the order of matches; circles are counted."""

import numpy as np
import pytest

from evolution.rating import bradley_terry, circles


def test_ratings_recover_the_strengths_that_made_the_results():
    rng = np.random.default_rng(0)
    true = np.array([-200.0, -50, 0, 80, 170])
    odds = 10 ** ((true[:, None] - true) / 400)
    wins = np.zeros((5, 5))
    for i in range(5):
        for j in range(i):
            wins[i, j] = rng.binomial(4000, odds[i, j] / (1 + odds[i, j]))
            wins[j, i] = 4000 - wins[i, j]
    assert bradley_terry(wins) == pytest.approx(true, abs=12)


def test_ten_to_one_is_four_hundred_points():
    wins = np.array([[0, 100_000], [10_000, 0]])
    strong, weak = bradley_terry(wins)
    assert strong - weak == pytest.approx(400, abs=1)


def test_who_never_lost_and_who_never_played_have_finite_ratings():
    ratings = bradley_terry(np.array([[0, 8, 0], [0, 0, 0], [0, 0, 0.0]]))
    assert np.isfinite(ratings).all()
    assert ratings[0] > ratings[2] > ratings[1]
    assert ratings.mean() == pytest.approx(0)


@pytest.mark.parametrize("wins", [np.ones((2, 3)), np.eye(2), np.array([[0, -1], [0, 0]])])
def test_what_is_no_table_of_wins_is_refused(wins):
    with pytest.raises(ValueError, match="must be square, not negative, and 0 on the diagonal"):
        bradley_terry(wins)


def test_circles_are_told_from_an_order():
    rock_paper_scissors = np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]])
    assert circles(rock_paper_scissors) == 1
    assert circles(np.triu(np.ones((6, 6)), 1)) == 0
    assert circles(np.zeros((3, 3))) == 0, "draws alone have no winner"
    rng = np.random.default_rng(0)
    chance = np.triu(rng.integers(2, size=(60, 60)), 1)
    assert circles(chance + np.tril(1 - chance.T, -1)) == pytest.approx(0.25, abs=0.02)
