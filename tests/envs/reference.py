"""The rules of the world once more, slow and obvious: one agent and one cell at a time."""

import numpy as np
from hypothesis import strategies as st

from envs import rng
from envs.rng import Stream
from envs.types import WorldConfig, WorldState

STEP_OF = {0: (0, 0), 1: (-1, 0), 2: (1, 0), 3: (0, 1), 4: (0, -1)}


@st.composite
def configs(draw) -> WorldConfig:
    """Small worlds where much happens: little energy, crowds, food that is scarce or everywhere."""
    height, width = draw(st.integers(4, 9)), draw(st.integers(4, 9))
    energy_max = draw(st.sampled_from([5.0, 20.0]))
    return WorldConfig(
        height=height,
        width=width,
        agents=draw(st.integers(1, 6)),
        rocks=draw(st.sampled_from([0.0, 0.1, 0.3])),
        food=draw(st.integers(0, height * width // 4)),
        food_regrow=draw(st.sampled_from([0.0, 0.4, 1.0])),
        view_radius=draw(st.integers(1, 5)),
        energy_max=energy_max,
        energy_start=draw(st.sampled_from([1.0, 3.3, energy_max])),
        food_energy=draw(st.sampled_from([0.0, 2.7, 8.0])),
        cost_step=draw(st.sampled_from([0.0, 0.7, 1.0])),
        home_cost=draw(st.sampled_from([0.0, 0.5, 1.0])),
        max_steps=draw(st.integers(1, 12)),
    )


def is_rock(state: WorldState, w: int, row: int, column: int) -> bool:
    """Is the cell rock, as everything outside the grid is?"""
    height, width = state.rock[w].shape
    return not (0 <= row < height and 0 <= column < width) or bool(state.rock[w, row, column])


def step(config: WorldConfig, state: WorldState, actions: np.ndarray) -> tuple[WorldState, dict]:
    """Return the next state, and reward, died and ate by (world, agent)."""
    new = WorldState(*(array.copy() for array in state))
    reward, died, ate = {}, {}, {}
    for w in range(len(state.seed)):
        living = [i for i in range(config.agents) if state.is_alive[w, i]]
        for i in living:
            _move(new, w, i, int(actions[w, i]))
        eaters = _eaters(new, w, living)
        for i in range(config.agents):
            ate[w, i] = i in eaters
            died[w, i] = i in living and _live(config, new, w, i, ate[w, i])
            lived = config.reward_food * ate[w, i] + config.reward_step + config.reward_death * died[w, i]
            reward[w, i] = np.float32(lived) if i in living else np.float32(0)
        _sprout(config, new, w)
        new.step[w] += 1
    return new, {"reward": reward, "died": died, "ate": ate}


def _move(new: WorldState, w: int, i: int, action: int) -> None:
    row, column = new.position[w, i] + STEP_OF[action]
    if not is_rock(new, w, row, column):
        new.position[w, i] = row, column


def _eaters(new: WorldState, w: int, living: list[int]) -> set[int]:
    eaters = set()
    for row, column in np.argwhere(new.food[w]):
        here = [i for i in living if tuple(new.position[w, i]) == (row, column)]
        if here:
            eaters.add(min(here, key=lambda i: int(rng.bits(new.seed[w], Stream.EAT, new.step[w], i))))
            new.food[w, row, column] = False
    return eaters


def _live(config: WorldConfig, new: WorldState, w: int, i: int, ate: bool) -> bool:
    energy = new.energy[w, i]
    if ate:
        energy = min(energy + np.float32(config.food_energy), np.float32(config.energy_max))
        new.food_eaten[w, i] += 1
    at_home = tuple(new.position[w, i]) == tuple(new.home[w])
    energy = energy - np.float32(config.cost_step * (config.home_cost if at_home else 1.0))
    new.energy[w, i] = max(energy, np.float32(0))
    new.is_alive[w, i] = energy > 0
    new.lifetime[w, i] += 1
    return not new.is_alive[w, i]


def _sprout(config: WorldConfig, new: WorldState, w: int) -> None:
    bare = ~new.rock[w] & ~new.food[w]
    bare[tuple(new.home[w])] = False
    for item in range(config.food - int(new.food[w].sum())):
        if rng.uniform(new.seed[w], Stream.CAST, new.step[w], item) < config.food_regrow:
            cell = int(rng.below(bare.size, new.seed[w], Stream.SPROUT, new.step[w], item))
            place = divmod(cell, config.width)
            if bare[place]:
                new.food[w][place] = True


def observe(config: WorldConfig, state: WorldState, w: int, i: int) -> list[float]:
    """Return what agent `i` of world `w` sees."""
    row, column = state.position[w, i]
    around = range(-config.view_radius, config.view_radius + 1)
    cells = [(row + down, column + right) for down in around for right in around]
    others = {tuple(state.position[w, j]) for j in range(config.agents) if j != i and state.is_alive[w, j]}
    rock = [is_rock(state, w, *cell) for cell in cells]
    on_grid = [0 <= r < config.height and 0 <= c < config.width for r, c in cells]
    food = [inside and state.food[w, r, c] for inside, (r, c) in zip(on_grid, cells, strict=True)]
    home = [cell == tuple(state.home[w]) for cell in cells]
    shared = [cell in others for cell in cells]
    time_left = max(config.max_steps - int(state.step[w]), 0) / config.max_steps
    energy = state.energy[w, i] / np.float32(config.energy_max)
    return [float(x) for x in (*rock, *food, *home, *shared, energy, time_left)]
