"""What foreign worlds have in common: copies that follow from a seed, keep quiet, and are closed in the end.

Many environments draw their layout when they are made, or from generators that `reset(seed=...)` does not reach. So a
copy is made and begun within `Chance`, and made anew for each seed where making it was a matter of chance.

Others wrote these worlds, so what they do and give is checked (`envs.worlds.faults`). A copy that misbehaves ends the
run with a WorldFault, or is made anew.
"""

import io
import logging
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, redirect_stdout
from copy import deepcopy
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from envs.extras import EXTRAS, missing
from envs.generator import HELD_OUT
from envs.worlds.faults import WorldFault, asked, form, is_sound, mapping, raised, two
from envs.worlds.time_limit import TookTooLong, time_limit

log = logging.getLogger("terrarium")

_ENTROPY: Any = np.random.bit_generator
"""Its `randbits` is what NumPy asks for the seed of a generator that nobody seeds (NumPy 1.26 to 2.4)."""
_NOISE = "Sampling rejected"
"""How MiniGrid says, hundreds of times, that it draws another layout."""
MOST_IN_A_ROW = 5
"""How often a copy is made anew in one rollout without a good step between; then the run ends."""


def fitting(seed: int) -> int:
    """Return the seed that a foreign world gets for one of ours: below 2**32, as NumPy's old generator wants it.

    Seeds below 2**32 stay as they are, and held-out ones held out.
    """
    return seed if seed < HELD_OUT else HELD_OUT + seed % HELD_OUT


def derived(seed: int, *numbers: int) -> int:
    """Return the seed that follows from a fitting one and from numbers; held out if that is."""
    drawn = np.random.SeedSequence([seed, *numbers]).generate_state(1)[0]
    return int(drawn) % HELD_OUT + (HELD_OUT if seed >= HELD_OUT else 0)


@lru_cache(maxsize=4)  # all agents of a world may have the same seed
def _states(seed: int) -> tuple:
    return random.Random(seed).getstate(), np.random.RandomState(seed).get_state()


class Chance:
    """The chance that nobody seeded: Python's and NumPy's global generators, and the entropy of NumPy's new ones.

    Within `with chance:` all of it follows from a seed, and goes on where the last block ended; outside it is as ever.
    """

    def __init__(self, seed: int) -> None:
        """seed: below 2**32."""
        self._has_drawn_entropy = self._is_open = False
        self._state = self._drawn_from(seed)
        self._begun = self._told()

    def __enter__(self) -> "Chance":
        self._swap()
        self._is_open = True
        return self

    def __exit__(self, *error: object) -> None:
        self._is_open = False
        self._swap()

    def begin_anew(self, seed: int) -> None:
        """From here on all follows from another seed, whatever was drawn before; within a block or not."""
        self._swap_if_open()
        self._state = self._drawn_from(seed)
        self._swap_if_open()

    @property
    def was_used(self) -> bool:
        """Whether anything was drawn; to be asked outside of a block."""
        return self._has_drawn_entropy or self._told() != self._begun

    def _drawn_from(self, seed: int) -> tuple:
        entropy = random.Random(seed)

        def randbits(bits: int) -> int:
            self._has_drawn_entropy = True
            return entropy.getrandbits(bits)

        return *_states(seed), randbits

    def _swap_if_open(self) -> None:
        if self._is_open:
            self._swap()

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


class Conduct(NamedTuple):
    """What is done about a copy that misbehaves."""

    restarts: bool = False  # it is made anew; else the run ends
    step_timeout: float = 0.0  # seconds that it may take for a step, a reset or to close; 0: no limit


class ForeignWorld:
    """W worlds of N agents, who sit in copies of an environment, a few seats to a copy.

    A place is the number of a copy: table by table of each world.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[], Any],
        seats: int,
        agents: int,
        max_steps: int,
        *,
        renews: bool,
        conduct: Conduct | None = None,
    ) -> None:
        """name: of the environment. make: makes a copy. seats: agents in one.

        renews: begin a new episode where one ended, until `max_steps`. conduct: by default the run ends.
        """
        self.agents, self.max_steps, self._renews = agents, max_steps, renews
        self.roles = ("agent",) * agents
        self.restarts = 0
        """How often a copy was made anew so far."""
        self._name, self._make, self._seats, self._conduct = name, make, seats, conduct or Conduct()
        self._tables = -(-agents // seats)  # copies that make one world
        self._copies: list[Any] = []  # table by table of each world
        self._is_random = False  # whether making a copy was a matter of chance
        self._chance = Chance(0)  # of the steps
        self._space: Any = None  # Discrete
        self._seeds: list[int] = []  # of each world
        self._steps = 0  # in this rollout, the one under way included
        self._in_a_row: Counter[int] = Counter()  # by place, how often it was made anew since its last good step
        self._forms: dict[int, dict[str, Any]] = {}  # by place and agent, the form of its observations this episode
        self._is_playing = np.zeros((0, agents), bool)
        self._is_void = np.zeros((0, agents), bool)
        self._open = np.zeros((0, agents, 0), bool)  # (W, tables * seats, A)

    @property
    def is_playing(self) -> np.ndarray:
        """Who acts in the next step, (W, N) bool."""
        return self._is_playing

    @property
    def is_void(self) -> np.ndarray:
        """For whom the last step came to nothing, (W, N) bool: its copy failed in it, and was made anew."""
        return self._is_void

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
                stack.callback(self._close, self._copies.pop())

    def _start(self, seeds: list[int]) -> None:
        """A rollout begins."""
        self._seeds, self._steps, self._chance = seeds, 0, Chance(seeds[0])
        self._in_a_row.clear()

    def _looked(self, place: int, seen: Any, info: Any) -> Any:
        """What a copy gave in a step or a reset, checked and copied: as a subclass has use for it."""
        raise NotImplementedError

    def _begin(self, place: int, seed: int) -> Any:
        """Begin an episode of a copy, made by the same chance where that matters; return what `_looked` does."""
        try:
            return self._begun(place, seed, is_new=self._is_random or place == len(self._copies))
        except WorldFault as fault:
            return self._begin_anew(place, fault)

    def _begun(self, place: int, seed: int, *, is_new: bool) -> Any:
        with aside():
            if is_new:
                self._copies += [None] * (place == len(self._copies))
                self._close(self._copies[place])
                self._copies[place] = None
                with Chance(seed) as chance, asked(self._where(place), "making it"):
                    self._copies[place] = self._make()
                self._is_random |= chance.was_used
            with Chance(seed):
                return self._reset(place, seed=seed)

    def _renewed(self, place: int) -> Any:
        """Begin the next episode of a copy in the middle of a rollout; return what `_looked` does."""
        try:
            return self._reset(place)
        except WorldFault as fault:
            return self._begin_anew(place, fault)

    def _reset(self, place: int, **seed: int) -> Any:
        """Begin an episode of a copy, whose observations may have another form than before."""
        self._forms[place] = {}
        with self._asked(place, "reset"):
            return self._looked(place, *two(self._copies[place].reset(**seed)))

    def _begin_anew(self, place: int, fault: WorldFault) -> Any:
        """Make a copy anew that failed, and begin; raise the fault if that is not wanted, or has not helped."""
        while self._conduct.restarts and self._in_a_row[place] < MOST_IN_A_ROW:
            self._in_a_row[place] += 1
            self.restarts += 1
            _note_once(self._name, str(fault))
            seed = self._next_seed(place)
            self._chance.begin_anew(seed)  # what the failed call has drawn may depend on the clock
            try:
                return self._begun(place, seed, is_new=True)
            except WorldFault as again:
                fault = again
        tried = f"; it was made anew {MOST_IN_A_ROW} times in a row" if self._conduct.restarts else ""
        raise type(fault)(f"{fault}{tried}") from fault

    def _next_seed(self, place: int) -> int:
        """A seed from the copy's own stream, which follows from its world's seed; held out if that is."""
        return derived(self._seeds[place // self._tables], place, self._steps, self._in_a_row[place])

    def _asked(self, place: int, what: str) -> AbstractContextManager[None]:
        """Within the block a copy is called, within its time; what is wrong becomes a WorldFault that says where."""
        return asked(self._where(place), what, self._conduct.step_timeout)

    def _where(self, place: int) -> str:
        world, table = divmod(place, self._tables)
        first, last = table * self._seats, min((table + 1) * self._seats, self.agents) - 1
        who = f"agent {first}" if first == last else f"agents {first} to {last}"
        when = f"step {self._steps}" if self._steps else "the reset before step 1"
        return f"{self._name}, copy {place} (world {world} of seed {self._seeds[world]}, {who}), in {when}"

    def _kept(self, place: int, agent: str, space: Any, observation: Any) -> Any:
        """A copy of an observation, as an environment may write into what it gave; WorldFault if it is none of its."""
        found, of = form(observation, space), f" of {agent}" if agent else ""
        known = self._forms[place].setdefault(agent, found)
        if found != known:
            raise WorldFault(f"the observation{of} is {found}: must be {known}, as it was at first")
        if not is_sound(observation, space):
            allowed = "must hold no NaN, and no infinity where its space has a bound"
            raise WorldFault(f"the observation{of} is {observation!r}: {allowed}")
        try:
            return deepcopy(observation)
        except Exception as error:
            raise WorldFault(f"the observation{of} cannot be copied: its copy {raised(error)}") from error

    def _close(self, copy: Any) -> None:
        if copy is not None:
            close(copy, self._name, self._conduct.step_timeout)


def close(copy: Any, name: str, seconds: float) -> None:
    """Close a copy of a world within so many seconds (0: no limit); where that fails, it is said, and no more."""
    too_long = f"{name}: close took longer than env.step_timeout = {seconds:g} s"
    try:
        with time_limit(seconds, too_long):
            copy.close()
    except TookTooLong:
        log.warning(f"note: {too_long}")
    except (Exception, SystemExit) as error:
        log.warning(f"note: {name}: close {raised(error)}")


_NOTED: set[str] = set()
"""Environments of which it was said that copies are made anew."""


def _note_once(name: str, fault: str) -> None:
    if name in _NOTED:
        return
    _NOTED.add(name)
    log.warning(f"note: {fault}; this copy is made anew, env_restarts counts how often that happens")


def open_actions(actions: int, observation: Any, told: Mapping[str, Any]) -> np.ndarray:
    """Return (A,) bool, what `action_mask` in an info or an observation says; all True without one.

    Raises WorldFault where it has not one entry for each action.
    """
    mask = mapping(told, "info").get("action_mask")
    if mask is None and isinstance(observation, Mapping):
        mask = observation.get("action_mask")
    if mask is None:
        return np.ones(actions, bool)
    is_open = np.array(mask, bool)
    if is_open.shape != (actions,):
        raise WorldFault(f"its action_mask has the shape {is_open.shape}: must be ({actions},), one for each action")
    return is_open
