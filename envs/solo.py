"""One agent alone in a world, for the loop `observe(position)`, decide, `act(position, action)`.

The agent's energy belongs to the caller, so nobody dies here and there is no end; everything else is the
same world under the same rules (`envs.dynamics`). Its days and nights pass with the steps; what each step
costs, `cost` says.
"""

from dataclasses import replace

import numpy as np

from envs.batch import ForageBatch
from envs.observe import observe, unpack
from envs.types import WorldConfig, WorldState, is_night


class Habitat:
    """A world with one agent, of population 0, whose energy is kept by the caller."""

    def __init__(self, config: WorldConfig | None = None, seed: int = 0) -> None:
        """Make the world of `seed`. Of the config, `agents`, `energy_start` and `max_steps` have no effect."""
        config = config or WorldConfig()
        self.config = replace(config, agents=1, cost_step=0.0)
        self._cost_by_day = config.cost_step
        self._cost_at_night = config.cost_step * config.night_cost
        self._was_night = False
        self._world = ForageBatch(self.config)
        self._world.reset([seed])
        state = self._world.state()
        self._birthplace = _cell(state.position[0, 0])
        self._home = _cell(state.home[0, 0])

    def start(self) -> tuple[int, int]:
        """Return the (row, column) where an agent is born."""
        return self._birthplace

    def observe(self, position: tuple[int, int], energy: float | None = None) -> np.ndarray:
        """Return what an agent at `position` sees, (O,) float32; the time left always reads 1.

        energy: the agent's own, 0 to energy_max; without it the observation reads full.
        Raises ValueError where the position is not a free cell.
        """
        state = self._state_at(position)
        state.energy[:] = self.config.energy_max if energy is None else energy
        np.clip(state.energy, 0, self.config.energy_max, out=state.energy)
        seen = observe(self.config, state)[0]  # (1, O)
        unpack(seen, self.config.view_radius).time_left[:] = 1  # a view
        return seen[0]

    def act(self, position: tuple[int, int], action: int) -> tuple[tuple[int, int], float, float]:
        """Step the world; return the new (row, column), the reward, and the energy gained by eating.

        Raises ValueError where the position is not a free cell or the action does not exist.
        """
        state = self._state_at(position)
        state.energy[:] = self.config.energy_max
        self._world.set_state(state)
        _, result = self._world.step(np.array([[action]]))
        self._was_night = bool(is_night(self.config, state.step)[0])
        gained = self.config.food_energy * float(result.ate[0, 0])
        return _cell(self._world.state().position[0, 0]), float(result.reward[0, 0]), gained

    def cost(self, position: tuple[int, int]) -> float:
        """Return the energy that the last step cost an agent who is at `position` after it; the caller pays it.

        That is `cost_step`, and at night away from home `night_cost` times as much.
        """
        is_out = self._was_night and tuple(position) != self._home
        return self._cost_at_night if is_out else self._cost_by_day

    def _state_at(self, position: tuple[int, int]) -> WorldState:
        state = self._world.state()
        row, column = position
        size = self.config.height, self.config.width
        if not (0 <= row < size[0] and 0 <= column < size[1]) or state.rock[0, row, column]:
            raise ValueError(f"position = {position}: must be a free cell of the {size[0]} x {size[1]} grid")
        state.position[:] = position
        return state


def _cell(place: np.ndarray) -> tuple[int, int]:
    row, column = place
    return int(row), int(column)
