"""Social learning: agents imitate what others do better, within a rollout.

After every step an agent looks at who is near it. If another has earned more so far in this rollout, what that one read
and did lately becomes an example to it. After the rollout it imitates its examples (`trainers.learning.imitation`).
That is the strategy "copy the successful" of Laland 2004 ("Social learning strategies", Learning & Behavior 32); the
other rules are its controls. What is copied is what the model read and did, not how it looked from outside: no agent
has to learn to see the world with another's eyes (as in Ndousse et al. 2021, arXiv:2010.00581).

Symbols: T steps, W worlds, N agents in a world, M = W * N; agent n of every world carries adapter n.
"""

from pathlib import Path
from typing import ClassVar

import numpy as np
from torch import Tensor

from envs.worlds.world import Pictured, World
from trainers.config import TrainConfig
from trainers.learning.imitation import Demonstrations, Examples, examples_of
from trainers.population import Population
from trainers.records.tags import Tag
from trainers.rollout import Observed, Observer, Rollout, Trajectory
from trainers.stages import Generation, Run
from trainers.variants.social_config import SocialConfig
from trainers.variants.variant import Variant

NOBODY = -1


class Social(Variant):
    """Watches who is near whom, and gives each agent the steps of others to imitate."""

    tags: ClassVar[dict[str, Tag]] = {
        "social/examples": Tag("examples_mean", "Steps of others that an agent saw in a rollout and may imitate, mean.")
    }

    settings: SocialConfig

    def __init__(self, settings: SocialConfig, config: TrainConfig, population: Population, run_dir: Path):
        super().__init__(settings, config, population, run_dir)
        self._positions = Positions()
        self._seen: list[np.ndarray] = []

    def observers(self, run: Run, generation: Generation) -> list[Observer]:
        """Where everybody is."""
        return [self._positions]

    def demonstrations(self, run: Run, rollout: Rollout, returns: Tensor) -> list[Demonstrations]:
        """Of each agent the steps of others that it saw."""
        t, rng, agents = rollout.trajectory, self.population.streams["learner"], len(self.population.genomes)
        model = models(np.array(self._positions.positions), t, self.settings.imitate, self.config.env.view_radius, rng)
        self._seen = pools(model, t.is_alive, self.settings.window, agents)
        examples = examples_of(self.population.policy, t, returns.numpy())
        if self.settings.imitate == "shuffled":
            examples = shuffled(examples, t.is_alive.reshape(-1), rng)
        return [(examples, self._seen)]

    def after_learning(self, rollout: Rollout, returns: Tensor) -> dict[str, float]:
        """How many steps each saw."""
        return {"examples_mean": float(np.mean(list(map(len, self._seen))))}


class Positions(Observer):
    """Where each agent was after each step, (W, N, 2)."""

    def start(self, world: World) -> None:
        """A rollout begins."""
        self.positions: list[np.ndarray] = []

    def step(self, seen: Observed) -> None:
        """A step is done."""
        assert isinstance(seen.world, Pictured)
        self.positions.append(seen.world.positions())


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
    chosen = [_models(*step, rule, radius, rng) for step in zip(position, earned, alive, strict=True)]
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
