"""What foreign worlds have in common: copies that follow from a seed, keep quiet, and are closed in the end.

Many environments draw their layout when they are made, or from generators that `reset(seed=...)` does not reach. So a
copy is made and begun within `Chance`, and made anew for each seed where making it was a matter of chance.
"""

import io
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stdout
from functools import lru_cache
from typing import Any

import numpy as np

from envs.extras import EXTRAS, missing
from envs.generator import HELD_OUT

_ENTROPY: Any = np.random.bit_generator
"""Its `randbits` is what NumPy asks for the seed of a generator that nobody seeds (NumPy 1.26 to 2.4)."""
_NOISE = "Sampling rejected"
"""How MiniGrid says, hundreds of times, that it draws another layout."""


def fitting(seed: int) -> int:
    """Return the seed that a foreign world gets for one of ours: below 2**32, as NumPy's old generator wants it.

    Seeds below 2**32 stay as they are, and held-out ones held out.
    """
    return seed if seed < HELD_OUT else HELD_OUT + seed % HELD_OUT


@lru_cache(maxsize=4)  # all agents of a world have the same seed
def _states(seed: int) -> tuple:
    return random.Random(seed).getstate(), np.random.RandomState(seed).get_state()


class Chance:
    """The chance that nobody seeded: Python's and NumPy's global generators, and the entropy of NumPy's new ones.

    Within `with chance:` all of it follows from a seed, and goes on where the last block ended; outside it is as ever.
    """

    def __init__(self, seed: int) -> None:
        """seed: below 2**32."""
        entropy = random.Random(seed)
        self._has_drawn_entropy = False

        def randbits(bits: int) -> int:
            self._has_drawn_entropy = True
            return entropy.getrandbits(bits)

        self._state: tuple = (*_states(seed), randbits)
        self._begun = self._told()

    def __enter__(self) -> "Chance":
        self._swap()
        return self

    def __exit__(self, *error: object) -> None:
        self._swap()

    @property
    def was_used(self) -> bool:
        """Whether anything was drawn; to be asked outside of a block."""
        return self._has_drawn_entropy or self._told() != self._begun

    def _swap(self) -> None:
        others = random.getstate(), np.random.get_state(), _ENTROPY.randbits
        pythons, numpys, _ENTROPY.randbits = self._state
        random.setstate(pythons)
        np.random.set_state(numpys)
        self._state = others

    def _told(self) -> tuple:
        pythons, (_, key, position, *_), _ = self._state
        return pythons, key.tobytes(), position


@contextmanager
def aside() -> Iterator[None]:
    """Within the block, what is printed is held back and then goes to standard error.

    Standard output is the program's own: a table, or one JSON object. MiniGrid's notes on layouts that it rejects are
    dropped, as they would bury the progress; nothing else is lost.
    """
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            yield
    finally:
        for line in printed.getvalue().splitlines():
            if not line.startswith(_NOISE):
                print(line, file=sys.stderr)


def said_of(error: ImportError, module: str) -> str:
    """Return a sentence about why `module` cannot be imported: it is not there, or a package that it needs is not."""
    name = error.name if isinstance(error, ModuleNotFoundError) else None
    if not name:
        return " ".join(str(error).split())
    is_itself = f"{module}.".startswith(f"{name}.")
    return f"there is no module {name}" if is_itself and name not in EXTRAS else missing(name)


class ForeignWorld:
    """W worlds of N agents, who sit in copies of an environment, a few seats to a copy."""

    def __init__(self, make: Callable[[], Any], seats: int, agents: int, max_steps: int, *, renews: bool) -> None:
        """make: makes a copy. seats: agents in one. renews: begin a new episode where one ended, until `max_steps`."""
        self.agents, self.max_steps, self._renews = agents, max_steps, renews
        self.roles = ("agent",) * agents
        self._make, self._seats = make, seats
        self._tables = -(-agents // seats)  # copies that make one world
        self._copies: list[Any] = []  # table by table of each world
        self._is_random = False  # whether making a copy was a matter of chance
        self._chance = Chance(0)  # of the steps
        self._space: Any = None  # Discrete
        self._is_playing = np.zeros((0, agents), bool)
        self._open = np.zeros((0, agents, 0), bool)  # (W, tables * seats, A)

    @property
    def is_playing(self) -> np.ndarray:
        """Who acts in the next step, (W, N) bool."""
        return self._is_playing

    def legal(self) -> np.ndarray:
        """Return the actions that the world says are open now, (W, N, A) bool; all of them where it says nothing."""
        return self._open[:, : self.agents]

    def copies(self) -> list[Any]:
        """Return the environment in which each agent is, M = W * N: agent by agent of each world."""
        worlds = range(len(self._is_playing))
        return [self._copies[w * self._tables + n // self._seats] for w in worlds for n in range(self.agents)]

    def figures(self) -> dict[str, np.ndarray]:
        """Return nothing: of these worlds only the reward is known."""
        return {}

    def close(self) -> None:
        """Close all copies; `reset` makes new ones."""
        with aside(), ExitStack() as stack:
            while self._copies:
                stack.callback(self._copies.pop().close)

    def _begin(self, place: int, seed: int) -> tuple[Any, Any, Any]:
        """Begin an episode of a copy, made by the same chance where that matters; return it, and what `reset` gave."""
        is_new = self._is_random or place == len(self._copies)
        with aside():
            if is_new and place < len(self._copies):
                self._copies.pop(place).close()
            if is_new:
                with Chance(seed) as chance:
                    self._copies.insert(place, self._make())
                self._is_random |= chance.was_used
            with Chance(seed):
                return self._copies[place], *self._copies[place].reset(seed=seed)


def open_actions(actions: int, observation: Any, told: Mapping[str, Any]) -> np.ndarray:
    """Return (A,) bool, what `action_mask` in an info or an observation says; all True without one.

    Raises ValueError where it has not one entry for each action.
    """
    mask = told.get("action_mask")
    if mask is None and isinstance(observation, Mapping):
        mask = observation.get("action_mask")
    if mask is None:
        return np.ones(actions, bool)
    is_open = np.array(mask, bool)
    if is_open.shape != (actions,):
        raise ValueError(f"its action_mask has the shape {is_open.shape}: must be ({actions},), one for each action")
    return is_open
