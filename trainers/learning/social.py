"""Social learning: agents take over what others do better, within a life.

After every step an agent looks at who is near it. If another has earned more so far in this life, what that one read
and did lately becomes an example to it. After the life it imitates its examples, as `trainers.learning.imitation` has
it. That is the strategy "copy the successful" of Laland 2004 ("Social learning strategies", Learning & Behavior 32);
the other rules are its controls. What is copied is what the model read and did, not how it looked from outside: no
agent has to learn to see the world with another's eyes (as in Ndousse et al. 2021, arXiv:2010.00581).

Symbols: T steps, W worlds, N agents in a world, M = W * N; agent n of every world carries adapter n.
"""

import numpy as np

from trainers.learning.imitation import Examples
from trainers.rollout import Trajectory

NOBODY = -1


def models(
    position: np.ndarray, trajectory: Trajectory, rule: str, radius: int, rng: np.random.Generator
) -> np.ndarray:
    """Whom each of M imitates after each step: slots (T, M), `NOBODY` where there is nobody to learn from.

    position: (T, W, N, 2), where each is after the step. radius: how far it sees, in cells each way. rule: neighbour,
    the one near it that has earned most, if more than itself; shuffled, the same; best, the one in its world that has
    earned most, if more than itself; anyone, somebody else in its world who lives.
    """
    steps, worlds, agents = position.shape[:3]
    earned = trajectory.reward.cumsum(axis=0).reshape(steps, worlds, agents)
    alive = trajectory.is_alive.reshape(steps, worlds, agents)
    chosen = [_models(*moment, rule, radius, rng) for moment in zip(position, earned, alive, strict=True)]
    return np.stack(chosen).reshape(steps, -1)


def _models(
    position: np.ndarray, earned: np.ndarray, alive: np.ndarray, rule: str, radius: int, rng: np.random.Generator
) -> np.ndarray:
    """The same of one step, (W, N); position: (W, N, 2), earned and alive: (W, N)."""
    worlds, agents = earned.shape
    is_open = alive[:, :, None] & alive[:, None, :] & ~np.eye(agents, dtype=bool)  # (W, N, N): who looks, and at whom
    if rule == "anyone":
        worth = rng.random(is_open.shape)
    else:
        worth = np.broadcast_to(earned[:, None], is_open.shape)
        is_open &= worth > earned[:, :, None]
        if rule != "best":
            is_open &= np.abs(position[:, :, None] - position[:, None]).max(axis=-1) <= radius
    best = np.where(is_open, worth, -np.inf).argmax(axis=-1) + agents * np.arange(worlds)[:, None]
    return np.where(is_open.any(axis=-1), best, NOBODY)


def pools(model: np.ndarray, is_alive: np.ndarray, window: int, agents: int) -> list[np.ndarray]:
    """For each of N agents the steps of others that it has seen, by number in the flattened trajectory.

    model: (T, M), as from `models`. is_alive: (T, M). window: of the last how many steps of another one learns.
    """
    steps, everyone = model.shape
    seen = np.zeros((agents, steps * everyone), bool)
    at, who = np.nonzero(model != NOBODY)
    for back in range(window):
        then = at - back
        rows = then >= 0
        seen[who[rows] % agents, then[rows] * everyone + model[at[rows], who[rows]]] = True
    return [np.flatnonzero(row) for row in seen & is_alive.reshape(-1)]


def shuffled(examples: Examples, is_alive: np.ndarray, rng: np.random.Generator) -> Examples:
    """The same with actions dealt out anew: of what was learned only that others were imitated is left.

    is_alive: (S,) bool, where somebody acted. What would not be allowed is replaced by chance, evenly over what is.
    """
    action = examples.action.copy()
    action[is_alive] = rng.permutation(action[is_alive])
    draw = np.where(examples.legal, rng.random(examples.legal.shape), -1.0).argmax(axis=1)
    is_legal = np.take_along_axis(examples.legal, action[:, None].astype(np.int64), axis=1)[:, 0]
    return examples._replace(action=np.where(is_legal, action, draw))
