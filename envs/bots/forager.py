"""A bot that uses what an agent could know: it keeps a map of what it has seen, and heeds the rules of its world.

Each rule it heeds can be taken from it, which is how one sees whether a rule matters (`benchmarks.bots`).
Loops over nothing but the wave of a shortest path; still a baseline, not made for speed.
"""

import numpy as np

from envs.dynamics import cell_index, legal_actions
from envs.observe import Observation, observe, unpack
from envs.paths import UNREACHED, distances
from envs.types import MOVES, Action, WorldConfig, WorldState, is_night, phase_left

RULES = ("memory", "rocks", "night", "home")
"""What a forager can heed. Without memory it knows only what is in view; without rocks it plans as if there were none;
without night it forages in the dark; without home it waits for the morning wherever it is."""

STALE = 12
"""Steps after which a place where food grew is worth another look."""

_NEVER = -(2**15)


class Forager:
    """A bot that walks to the nearest food it knows of, else to where food may have grown since it looked.

    It comes home before dark, and stays there until morning. Begins anew in worlds at step 0.
    """

    def __init__(self, config: WorldConfig, seed: int = 0, heeds: tuple[str, ...] = RULES) -> None:
        """Begin without a map. Raises ValueError for rules that are none of `RULES`."""
        wrong = set(heeds) - set(RULES)
        if wrong:
            raise ValueError(f"heeds = {heeds!r}: must be some of {', '.join(RULES)}")
        self.config, self.heeds = config, frozenset(heeds)
        self._rng = np.random.default_rng(seed)
        self._map: _Map | None = None

    def __call__(self, state: WorldState) -> np.ndarray:
        """Return actions (W, N); STAY for the dead."""
        seen = unpack(observe(self.config, state), self.config.view_radius)
        if self._map is None or len(self._map.looked) != len(state.seed):
            self._map = _Map(self.config, len(state.seed))
        self._map.forget(np.ones_like(state.seed, bool) if "memory" not in self.heeds else state.step == 0)
        self._map.look(state, seen)
        legal = legal_actions(state)
        actions, is_lost = self._way(state, self._goals(state), legal)
        wander = self._random(legal)
        return np.where(state.is_alive, np.where(is_lost, wander, actions), Action.STAY)

    def _goals(self, state: WorldState) -> np.ndarray:
        # -> (W, N, H, B): where each agent would like to be
        memory = self._map
        assert memory is not None
        age = state.step[:, None, None, None] - memory.looked
        goals = memory.food & ~memory.taken
        for further in (memory.food, memory.rich & (age > STALE), age > np.maximum(_oldest(age) - 1, STALE)):
            none_yet = ~goals.any((2, 3), keepdims=True)
            goals |= none_yet & further
        return goals

    def _way(self, state: WorldState, goals: np.ndarray, legal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # -> actions (W, N), and who knows no way (W, N)
        memory = self._map
        assert memory is not None
        is_free = ~memory.rock if "rocks" in self.heeds else np.ones_like(memory.rock)
        to_home = _distances(is_free, memory.home)  # (W, N, H, B)
        must_rest = self._must_rest(state, _at(to_home, state.position))
        distance = np.where(must_rest[..., None, None], to_home, _distances(is_free, goals))
        around = state.position[:, :, None] + MOVES  # (W, N, A, 2)
        size = state.rock.shape[1:]
        is_inside = ((around >= 0) & (around < size)).all(-1)
        left = np.where(is_inside, _at(distance, np.clip(around, 0, np.subtract(size, 1))), UNREACHED).astype(float)
        here = left[..., Action.STAY]
        best = (left + self._rng.random(left.shape) / 2).argmin(-1)
        best = np.where(here == 0, Action.STAY, best)
        is_blocked = ~np.take_along_axis(legal, best[..., None], axis=-1)[..., 0]
        is_lost = (here == UNREACHED) | is_blocked
        if "home" not in self.heeds:
            return np.where(must_rest, Action.STAY, best), is_lost & ~must_rest
        return best, is_lost

    def _must_rest(self, state: WorldState, to_home: np.ndarray) -> np.ndarray:
        # to_home: (W, N) steps. -> (W, N)
        if not self.config.night_length or "night" not in self.heeds:
            return np.zeros(to_home.shape, bool)
        is_dark = np.broadcast_to(is_night(self.config, state.step)[:, None], to_home.shape)
        if "home" not in self.heeds:
            return is_dark
        return is_dark | ((to_home >= phase_left(self.config, state.step)[:, None] - 1) & (to_home < UNREACHED))

    def _random(self, legal: np.ndarray) -> np.ndarray:
        wish = np.where(legal, self._rng.random(legal.shape), -1.0)
        wish[..., Action.STAY] = -0.5
        return wish.argmax(-1)


class _Map:
    """What each agent has seen, (W, N, H, B) each; by the world's rows and columns, which path integration gives it."""

    def __init__(self, config: WorldConfig, worlds: int) -> None:
        shape = (worlds, config.agents, config.height, config.width)
        self.looked = np.full(shape, _NEVER, np.int32)  # step of the last look
        self.rock, self.food, self.home, self.rich, self.taken = (np.zeros(shape, bool) for _ in range(5))

    def forget(self, which: np.ndarray) -> None:
        """Begin anew in some worlds (W,)."""
        self.looked[which] = _NEVER
        for plane in (self.rock, self.food, self.home, self.rich):
            plane[which] = False

    def look(self, state: WorldState, seen: Observation) -> None:
        """Write down what is in view."""
        radius = seen.rock.shape[-1] // 2
        around = np.arange(-radius, radius + 1)
        row = state.position[..., 0, None, None] + around[:, None]
        column = state.position[..., 1, None, None] + around  # (W, N, V, V)
        row, column = np.broadcast_arrays(row, column)
        size = self.looked.shape[2:]
        there = (row >= 0) & (row < size[0]) & (column >= 0) & (column < size[1])
        world, agent, _, _ = there.nonzero()
        cell = world, agent, row[there], column[there]
        self.looked[cell] = state.step[world]
        self.rock[cell], self.food[cell], self.home[cell] = seen.rock[there], seen.food[there], seen.home[there]
        self.rich |= self.food
        self.taken[:] = False
        self.taken[cell] = _taken(seen)[there]


def _oldest(age: np.ndarray) -> np.ndarray:
    return age.max((2, 3), keepdims=True)


def _distances(is_free: np.ndarray, goals: np.ndarray) -> np.ndarray:
    # (W, N, H, B) each. What nobody has seen counts as free: all free cells are connected, so there is a way
    shape = is_free.shape
    flat = (-1, *shape[2:])
    return distances(is_free.reshape(flat), (goals & is_free).reshape(flat)).reshape(shape)


def _at(planes: np.ndarray, place: np.ndarray) -> np.ndarray:
    # planes: (W, N, H, B), place: (W, N, ..., 2). -> (W, N, ...)
    worlds, agents, height, width = planes.shape
    grid = (worlds * agents, height, width)
    index = cell_index(grid, place.reshape(worlds * agents, *place.shape[2:]))
    return planes.reshape(-1)[index].reshape(place.shape[:-1])


def _taken(seen: Observation) -> np.ndarray:
    # -> (W, N, V, V): cells of the view to which another agent has fewer steps, as the crow walks
    others = (seen.kin | seen.rivals).reshape(-1, *seen.rock.shape[2:])
    theirs = distances(np.ones_like(others), others).reshape(seen.rock.shape)
    steps = np.abs(np.arange(others.shape[1]) - others.shape[1] // 2)
    return theirs < steps[:, None] + steps
