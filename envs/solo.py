"""One agent alone in a world, for the loop `observe(position)`, decide, `act(position, action)`.

The agent's energy belongs to the caller, so nobody dies here and there is no end; everything else is the
same world under the same rules (`envs.dynamics`).
"""

from dataclasses import replace

import numpy as np

from envs.batch import ForageBatch
from envs.observe import observe
from envs.types import WorldConfig, WorldState


class Habitat:
    """A world with one agent, whose energy is kept by the caller."""

    def __init__(self, config: WorldConfig | None = None, seed: int = 0) -> None:
        """Make the world of `seed`. Of the config, `agents`, `cost_step` and `max_steps` have no effect."""
        self.config = replace(config or WorldConfig(), agents=1, cost_step=0.0)
        self._world = ForageBatch(self.config)
        self._world.reset([seed])
        row, column = self._world.state().position[0, 0]
        self._birthplace = int(row), int(column)

    def start(self) -> tuple[int, int]:
        """Return the (row, column) where an agent is born."""
        return self._birthplace

    def observe(self, position: tuple[int, int], energy: float | None = None) -> np.ndarray:
        """Return what an agent at `position` sees, (O,) float32; the time left always reads 1.

        energy: the agent's own, 0 to energy_max; without it the observation reads full.
        Raises ValueError where the position is not a free cell.
        """
        state = self._state_at(position)
        state.step[:] = 0
        state.energy[:] = self.config.energy_max if energy is None else energy
        np.clip(state.energy, 0, self.config.energy_max, out=state.energy)
        return observe(self.config, state)[0, 0]

    def act(self, position: tuple[int, int], action: int) -> tuple[tuple[int, int], float, float]:
        """Step the world; return the new (row, column), the reward, and the energy gained by eating.

        Raises ValueError where the position is not a free cell or the action does not exist.
        """
        state = self._state_at(position)
        state.energy[:] = self.config.energy_max
        self._world.set_state(state)
        _, result = self._world.step(np.array([[action]]))
        row, column = self._world.state().position[0, 0]
        gained = self.config.food_energy * float(result.ate[0, 0])
        return (int(row), int(column)), float(result.reward[0, 0]), gained

    def _state_at(self, position: tuple[int, int]) -> WorldState:
        state = self._world.state()
        row, column = position
        size = self.config.height, self.config.width
        if not (0 <= row < size[0] and 0 <= column < size[1]) or state.rock[0, row, column]:
            raise ValueError(f"position = {position}: must be a free cell of the {size[0]} x {size[1]} grid")
        state.position[:] = position
        return state
