"""Several kinds of forage world side by side: who lives in all of them learns what they have in common."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from envs.types import WorldConfig, WorldState
from envs.worlds.world import ForageWorld, Step


def weave(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Rows (W / K, ...) of each of K kinds by turns, (W, ...): row i is of kind i mod K."""
    return np.stack(parts, axis=1).reshape(-1, *parts[0].shape[1:])


class MixedWorld:
    """W forage worlds of K kinds, W a multiple of K: world i is of kind i mod K. An episode is a life."""

    def __init__(self, configs: Sequence[WorldConfig]) -> None:
        """The kinds must agree in `agents`, `view_radius` and `max_steps`; ValueError where they do not."""
        for name in ("agents", "view_radius", "max_steps"):
            values = [getattr(config, name) for config in configs]
            if len(set(values)) > 1:
                raise ValueError(f"{name} = {values}: must be the same in all worlds that are mixed")
        self._kinds = [ForageWorld(config) for config in configs]
        first = self._kinds[0]
        self.agents, self.max_steps, self.roles = first.agents, first.max_steps, first.roles

    def reset(self, seeds: ArrayLike) -> np.ndarray:
        """Begin one world per seed (W,); return the observations (W, N, O)."""
        seeds = np.asarray(seeds)
        count = len(self._kinds)
        if len(seeds) % count:
            raise ValueError(f"{len(seeds)} worlds: must be a multiple of {count}, the kinds that are mixed")
        return weave([kind.reset(seeds[i::count]) for i, kind in enumerate(self._kinds)])

    def step(self, actions: np.ndarray) -> Step:
        """Do what each agent (W, N) chose."""
        count = len(self._kinds)
        steps = [kind.step(actions[i::count]) for i, kind in enumerate(self._kinds)]
        return Step(*map(weave, zip(*steps, strict=True)))

    def figures(self) -> dict[str, np.ndarray]:
        """Food eaten (items) and energy left."""
        figures = [kind.figures() for kind in self._kinds]
        return {name: weave([figure[name] for figure in figures]) for name in figures[0]}

    def close(self) -> None:
        """Do nothing: there is no window, file or process."""

    def positions(self) -> np.ndarray:
        """Where each agent is, (W, N, 2) rows and columns; the dead stay where they died."""
        return weave([kind.positions() for kind in self._kinds])

    def state(self) -> WorldState:
        """Return a copy of the whole state of the worlds of the first kind, to be looked at."""
        return self._kinds[0].state()
