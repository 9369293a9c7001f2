"""Many worlds at once: the interface of the world for training and evaluation."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from envs import dynamics
from envs.generator import generate, give_birth
from envs.observe import observe
from envs.state import checked
from envs.types import Action, StepResult, WorldConfig, WorldState


class ForageBatch:
    """W worlds of N agents that step together. Worlds never influence each other.

    Worlds are not reset on their own: `StepResult.is_truncated` says when an episode is over.
    """

    def __init__(self, config: WorldConfig | None = None) -> None:
        """Remember the config (the default one without an argument). `reset` makes the worlds."""
        self.config = config or WorldConfig()
        self._state: WorldState | None = None

    def reset(self, seeds: ArrayLike) -> np.ndarray:
        """Begin one world per seed; return the observations (W, N, O) float32.

        seeds: (W,) whole numbers, below `HELD_OUT` for training. Raises ValueError as `generate` does.
        """
        self._state = generate(self.config, seeds)
        return observe(self.config, self._state)

    def step(self, actions: ArrayLike) -> tuple[np.ndarray, StepResult]:
        """Step all worlds; return the observations (W, N, O) float32 after it, and what it gave.

        actions: (W, N) integers, values of `Action`; those of the dead are ignored.
        Raises ValueError for another shape or dtype, and for a living agent's action that does not exist.
        """
        state = self._begun()
        self._state, result = dynamics.step(self.config, state, _checked_actions(state, actions))
        return observe(self.config, self._state), result

    def give_birth(self, is_born: ArrayLike) -> np.ndarray:
        """Put new agents, near their homes, into the slots where `is_born` (W, N) is true; return the observations."""
        state = self._begun()
        chosen = np.asarray(is_born)
        if chosen.dtype != bool or chosen.shape != state.is_alive.shape:
            raise ValueError(f"is_born is {chosen.dtype} {chosen.shape}: must be bool {state.is_alive.shape}")
        self._state = give_birth(self.config, state, chosen)
        return observe(self.config, self._state)

    def legal(self) -> np.ndarray:
        """Return (W, N, A) bool: actions that do not run into rock or off the grid."""
        return dynamics.legal_actions(self._begun())

    def state(self) -> WorldState:
        """Return a copy of the whole state."""
        return WorldState(*(array.copy() for array in self._begun()))

    def set_state(self, state: WorldState) -> np.ndarray:
        """Go on from a copy of `state`, exactly; return its observations (W, N, O).

        Raises ValueError where it does not fit the config.
        """
        self._state = checked(self.config, state)
        return observe(self.config, self._state)

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return a copy of the whole state as plain arrays by name, fit for `np.savez`."""
        return self.state()._asdict()

    def load_state_dict(self, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """Go on from what `state_dict` gave; return the observations (W, N, O).

        Raises ValueError where names are missing or unknown, or an array does not fit the config.
        """
        wrong = set(arrays) ^ set(WorldState._fields)
        if wrong:
            raise ValueError(f"missing or unknown in the state: {', '.join(sorted(wrong))}")
        return self.set_state(WorldState(**arrays))

    def _begun(self) -> WorldState:
        if self._state is None:
            raise RuntimeError("the worlds have not begun: call reset(seeds) first")
        return self._state


def _checked_actions(state: WorldState, actions: ArrayLike) -> np.ndarray:
    array = np.asarray(actions)
    if array.dtype.kind not in "iu" or array.shape != state.is_alive.shape:
        raise ValueError(f"actions are {array.dtype} {array.shape}: must be integers of shape {state.is_alive.shape}")
    if array.astype(np.int64).view(np.uint64).max() < len(Action):  # below 0 is huge there: one pass, for speed
        return array
    is_wrong = state.is_alive & ((array < 0) | (array >= len(Action)))
    if is_wrong.any():
        world, agent = np.argwhere(is_wrong)[0]
        raise ValueError(f"actions[{world}, {agent}] = {array[world, agent]}: must be between 0 and {len(Action) - 1}")
    return array
