"""How to compare few runs honestly, after Agarwal et al. 2021 (arXiv:2108.13264, "rliable").

Scores are (R, K): R runs, each with its own seed, by K tasks. Resampling is stratified: runs are drawn anew within each
task. All functions are deterministic.
"""

# scipy.stats would not do the same. trim_mean leaves out whole scores only, one of five where a quarter is 1.25.
# bootstrap refuses a single run, draws whole rows of tasks, and in another order: with a sample for each task it moves
# the last digit of 11 of the 68 published rows. mannwhitneyu takes 2000 calls where one array operation does.

from collections.abc import Callable, Mapping, Sequence

import numpy as np

RESAMPLES = 2000
ENOUGH = 5
"""Runs below which a bootstrap says too little: its 95 % interval of three runs holds the truth three times in four, of
five nine times in ten."""


def interquartile_mean(scores: np.ndarray) -> float:
    """Mean of the middle half of all scores (R, K), the quarters at either end left out.

    Where a quarter is no whole number of scores, those at the edge count in part, so that all of the middle counts.
    """
    values = np.sort(scores, axis=None)
    cut = len(values) / 4
    edges = np.arange(len(values) + 1)
    weight = np.clip(np.minimum(edges[1:], len(values) - cut) - np.maximum(edges[:-1], cut), 0, 1)
    return float((values * weight).sum() / weight.sum())


def bootstrap(scores: list[np.ndarray], statistic: Callable[..., float], seed: int = 0) -> tuple[float, float]:
    """The 95 % percentile interval of `statistic(*scores)`, each (R, K) resampled on its own, runs within tasks."""
    rng = np.random.default_rng(seed)
    values = [
        statistic(*(np.take_along_axis(s, rng.integers(len(s), size=s.shape), axis=0) for s in scores))
        for _ in range(RESAMPLES)
    ]
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def interval(scores: np.ndarray | Sequence[float]) -> dict[str, float]:
    """Interquartile mean of scores (R, K), or (R,) of one task, its 95 % bootstrap interval, and how many runs it has.

    Of fewer than five runs the interval is the lowest and the highest run, each run's mean over its tasks.
    """
    scores = np.asarray(scores)
    scores = scores.reshape(len(scores), -1)
    if len(scores) >= ENOUGH:
        low, high = bootstrap([scores], interquartile_mean)
    else:
        means = scores.mean(axis=1)
        low, high = float(means.min()), float(means.max())
    return {"iqm": interquartile_mean(scores), "low": low, "high": high, "runs": scores.size}


def format_interval(figure: Mapping[str, float], form: str = ".0%") -> str:
    """An interquartile mean and its interval as text, as in "25% [10%, 90%]"."""
    return f"{figure['iqm']:{form}} [{figure['low']:{form}}, {figure['high']:{form}}]"


def share_better(difference: np.ndarray) -> float:
    """How often the first of a pair is better, ties half; difference: (R, K), of runs in the same worlds."""
    return float(((difference > 0) + 0.5 * (difference == 0)).mean())


def probability_of_improvement(first: np.ndarray, second: np.ndarray) -> float:
    """How often a run of `first` (R, K) beats one of `second` (S, K), ties half; mean over tasks.

    The Mann-Whitney U statistic as a share of all pairs.
    """
    return share_better(first[:, None] - second[None])
