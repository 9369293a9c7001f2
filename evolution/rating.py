"""Ratings of players from the results of their matches, on the scale of Elo."""

import numpy as np

ELO_PER_NAT = 400 / np.log(10)
"""Elo's scale: 400 points more are odds of ten to one."""
PRIOR_DRAWS = 1.0
"""Draws against a player of mean strength that are added to each player's results."""

SWEEPS = 500


def bradley_terry(wins: np.ndarray) -> np.ndarray:
    """Ratings (n,) of n players, mean 0, that make the results most likely.

    wins: (n, n), how often row beat column, a draw counted as half a win for each. P(i beats j) is
    s_i / (s_i + s_j) (Bradley & Terry 1952), fitted by minorisation-maximisation (Hunter 2004, "MM algorithms for
    generalized Bradley-Terry models", equation 3). The added draw keeps ratings finite for players
    that never lost, and gives a strength of 1 to those that never played. Unlike Elo's own updates this does not depend
    on the order of the matches.
    """
    wins = np.asarray(wins, float)
    if wins.ndim != 2 or wins.shape[0] != wins.shape[1] or (wins < 0).any() or wins.diagonal().any():
        raise ValueError(f"wins has shape {wins.shape}: must be square, not negative, and 0 on the diagonal")
    games = wins + wins.T
    won = wins.sum(axis=1) + PRIOR_DRAWS / 2
    strength = np.ones(len(wins))
    for _ in range(SWEEPS):
        per_win = (games / (strength[:, None] + strength)).sum(axis=1) + PRIOR_DRAWS / (strength + 1)
        strength = won / per_win
    rating = ELO_PER_NAT * np.log(strength)
    return rating - rating.mean()


def circles(wins: np.ndarray) -> float:
    """Share of triples of players that beat each other in a circle, of all in which each pair has a winner.

    wins: as in `bradley_terry`. A rating cannot show circles (Kendall & Babington Smith 1940). Chance alone gives
    one in four; 0 where there are no such triples.
    """
    beats = wins > wins.T
    decided = beats | beats.T
    circular = np.trace(beats @ beats.astype(int) @ beats) / 3
    triples = np.trace(decided @ decided.astype(int) @ decided) / 6
    return float(circular / triples) if triples else 0.0
