"""Advantages, on numbers worked out by hand."""

import numpy as np

from trainers.advantage import gae


def column(*numbers):
    return np.array(numbers, np.float32)[:, None]


def test_one_step_bootstraps_from_the_last_value():
    advantage = gae(column(1.0), column(0.5), np.float32([2.0]), column(0) > 0, discount=0.9, gae_lambda=0.8)
    np.testing.assert_allclose(advantage, [[1.0 + 0.9 * 2.0 - 0.5]])


def test_death_is_terminal_and_cuts_off_what_comes_after():
    died = column(0, 1) > 0
    advantage = gae(column(0.0, -1.0), column(0.3, 0.2), np.float32([99.0]), died, discount=0.5, gae_lambda=0.5)
    last = -1.0 - 0.2
    first = 0.0 + 0.5 * 0.2 - 0.3 + 0.5 * 0.5 * last
    np.testing.assert_allclose(advantage[:, 0], [first, last], rtol=1e-6)


def test_lambda_one_gives_the_discounted_return_minus_the_value():
    rng = np.random.default_rng(0)
    reward, value = rng.normal(size=(2, 6, 3)).astype(np.float32)
    last_value = rng.normal(size=3).astype(np.float32)
    advantage = gae(reward, value, last_value, np.zeros((6, 3), bool), discount=0.9, gae_lambda=1.0)
    returns = sum(0.9**t * reward[t] for t in range(6)) + 0.9**6 * last_value
    np.testing.assert_allclose(advantage[0], returns - value[0], rtol=1e-4, atol=1e-5)


def test_agents_do_not_influence_each_other():
    rng = np.random.default_rng(1)
    reward, value = rng.normal(size=(2, 5, 4)).astype(np.float32)
    died, last = rng.random((5, 4)) < 0.3, rng.normal(size=4).astype(np.float32)
    together = gae(reward, value, last, died, 0.95, 0.9)
    alone = [gae(reward[:, [i]], value[:, [i]], last[[i]], died[:, [i]], 0.95, 0.9)[:, 0] for i in range(4)]
    np.testing.assert_array_equal(together, np.stack(alone, axis=1))
