"""Generalised advantage estimation, on numbers worked out by hand."""

import numpy as np
import pytest

from trainers.rollout import Trajectory, gae


def column(*numbers):
    return np.array(numbers, np.float32)[:, None]


def advantages(reward, value, bootstrap_value, is_terminal, is_truncated, discount, gae_lambda):
    """Those of a trajectory of which nothing else matters; all (T, M)."""
    columns = dict.fromkeys(Trajectory._fields) | {"reward": reward, "value": value, "bootstrap_value": bootstrap_value}
    t = Trajectory(**columns | {"is_terminal": is_terminal, "is_truncated": is_truncated})
    return gae(t, discount, gae_lambda)


def test_a_truncated_episode_bootstraps_from_the_value_of_what_is_seen_then():
    advantage = advantages(column(1.0), column(0.5), column(2.0), column(0) > 0, column(1) > 0, 0.9, 0.8)
    np.testing.assert_allclose(advantage, [[1.0 + 0.9 * 2.0 - 0.5]])


def test_death_is_terminal_and_nothing_comes_after():
    died = column(0, 1) > 0
    never = np.zeros_like(died)
    advantage = advantages(column(0.0, -1.0), column(0.3, 0.2), column(99.0, 99.0), died, never, 0.5, 0.5)
    last = -1.0 - 0.2
    first = 0.0 + 0.5 * 0.2 - 0.3 + 0.5 * 0.5 * last
    np.testing.assert_allclose(advantage[:, 0], [first, last], rtol=1e-6)


@pytest.mark.parametrize("way", ["terminal", "truncated"])
def test_nothing_flows_from_one_episode_into_the_one_before(way):
    ends = column(0, 1, 0, 1) > 0
    terminal, truncated = (ends, ends & False) if way == "terminal" else (ends & False, ends)
    reward, value, bootstrap_value = column(1.0, 2.0, 3.0, 4.0), column(0.1, 0.2, 0.3, 0.4), column(0.0, 5.0, 0.0, 7.0)
    both = advantages(reward, value, bootstrap_value, terminal, truncated, 0.9, 0.8)
    first = advantages(reward[:2], value[:2], bootstrap_value[:2], terminal[:2], truncated[:2], 0.9, 0.8)
    np.testing.assert_array_equal(both[:2], first)


def test_lambda_one_gives_the_discounted_return_minus_the_value():
    rng = np.random.default_rng(0)
    reward, value, bootstrap_value = rng.normal(size=(3, 6, 3)).astype(np.float32)
    never, at_last = np.zeros((6, 3), bool), np.zeros((6, 3), bool)
    at_last[-1] = True
    advantage = advantages(reward, value, bootstrap_value, never, at_last, discount=0.9, gae_lambda=1.0)
    returns = sum(0.9**t * reward[t] for t in range(6)) + 0.9**6 * bootstrap_value[-1]
    np.testing.assert_allclose(advantage[0], returns - value[0], rtol=1e-4, atol=1e-5)


def test_agents_do_not_influence_each_other():
    rng = np.random.default_rng(1)
    arrays = [*rng.normal(size=(3, 5, 4)).astype(np.float32), *(rng.random((2, 5, 4)) < 0.3)]
    arrays[4] &= ~arrays[3]
    together = advantages(*arrays, 0.95, 0.9)
    alone = [advantages(*(array[:, [i]] for array in arrays), 0.95, 0.9)[:, 0] for i in range(4)]
    np.testing.assert_array_equal(together, np.stack(alone, axis=1))
