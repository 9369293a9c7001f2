"""The rules of the world once more, slow and obvious: one agent and one cell at a time.

Also the random worlds on which the tests compare them with the fast ones. `HYPOTHESIS_EXAMPLES=1000 pytest tests/envs`
searches for longer, and at random; without it the examples are the same in every run.
"""

import os
from collections import deque

import numpy as np
from hypothesis import reject, settings
from hypothesis import strategies as st

from envs import rng
from envs.generator import ATTEMPTS, generate
from envs.rng import Stream
from envs.types import WorldConfig, WorldState

Cell = tuple[int, int]
STEP_OF = {0: (0, 0), 1: (-1, 0), 2: (1, 0), 3: (0, 1), 4: (0, -1)}
EXAMPLES = int(os.environ.get("HYPOTHESIS_EXAMPLES", "0"))

settings.register_profile("worlds", deadline=None, max_examples=EXAMPLES or 80, derandomize=not EXAMPLES)
worlds = settings.get_profile("worlds")

# A meadow in which every field is given, for tests that must not notice when a default is tuned
PLAIN = WorldConfig(
    height=20,
    width=20,
    agents=20,
    populations=1,
    rocks=0.15,
    walls=0,
    food=40,
    food_regrow=1.0,
    patches=0,
    patch_radius=2,
    view_radius=3,
    energy_start=80.0,
    energy_max=100.0,
    food_energy=8.0,
    cost_step=1.0,
    day_length=40,
    night_length=0,
    night_cost=1.0,
    max_steps=128,
    reward_food=1.0,
    reward_step=-0.02,
    reward_death=-1.0,
)


@st.composite
def configs(draw) -> WorldConfig:
    """Small worlds where much happens: little energy, crowds, short days, food that is scarce or everywhere."""
    height, width = draw(st.integers(4, 9)), draw(st.integers(4, 9))
    walls = draw(st.sampled_from([0, 0, 2, 3, 16]))
    patches, patch_radius = draw(st.sampled_from([0, 0, 1, 3])), draw(st.integers(0, 3))
    room = height * width // (8 if walls else 4)
    if patches:
        room = min(room, 1 + patch_radius**2)
    energy_max = draw(st.sampled_from([5.0, 20.0]))
    return WorldConfig(
        height=height,
        width=width,
        agents=draw(st.integers(1, 8)),
        populations=draw(st.integers(1, 4)),
        rocks=draw(st.sampled_from([0.0, 0.1, 0.3])),
        walls=walls,
        food=draw(st.integers(0, room)),
        food_regrow=draw(st.sampled_from([0.0, 0.4, 1.0])),
        patches=patches,
        patch_radius=patch_radius,
        view_radius=draw(st.sampled_from([1, 1, 2, 3, 5])),
        energy_max=energy_max,
        energy_start=draw(st.sampled_from([1.0, 3.3, energy_max])),
        food_energy=draw(st.sampled_from([0.0, 2.7, 8.0])),
        cost_step=draw(st.sampled_from([0.0, 0.7, 1.0])),
        day_length=draw(st.integers(1, 5)),
        night_length=draw(st.integers(0, 4)),
        night_cost=draw(st.sampled_from([1.0, 1.7, 6.0])),
        max_steps=draw(st.integers(1, 12)),
        reward_food=draw(st.sampled_from([1.0, 0.3])),
        reward_step=draw(st.sampled_from([-0.02, 0.0])),
        reward_death=draw(st.sampled_from([-1.0, 0.0])),
    )


def begin(config: WorldConfig, seeds: list[int]) -> WorldState:
    """Return the first state of the worlds of `seeds`; pass over configs that fit into no layout."""
    try:
        return generate(config, seeds)
    except ValueError:
        reject()


def population(config: WorldConfig, i: int) -> int:
    """Return the population of agent `i`: the agents in order, cut into Q parts as equal as can be."""
    return i * config.populations // config.agents


def home_of(config: WorldConfig, state: WorldState, w: int, i: int) -> Cell:
    """Return the home of agent `i`."""
    return cell_of(state.home[w, population(config, i)])


def cell_of(place: np.ndarray) -> Cell:
    """Return a (row, column) of plain integers."""
    row, column = place
    return int(row), int(column)


def is_rock(state: WorldState, w: int, row: int, column: int) -> bool:
    """Is the cell rock, as everything outside the grid is?"""
    height, width = state.rock[w].shape
    return not (0 <= row < height and 0 <= column < width) or bool(state.rock[w, row, column])


def is_night(config: WorldConfig, now: int) -> bool:
    """Is it night at the step `now`? Count the days and nights down, one after the other."""
    while now >= config.day_length + config.night_length:
        now -= config.day_length + config.night_length
    return now >= config.day_length


def phase_left(config: WorldConfig, now: int) -> int:
    """Return the steps for which it stays as it is, day or night: go on until it is not."""
    if config.night_length == 0:  # one day follows the other
        return config.day_length - now % config.day_length
    later = now
    while is_night(config, later) == is_night(config, now):
        later += 1
    return later - now


def apart(a: Cell, b: Cell) -> int:
    """Return the distance of two cells in the squares that an agent sees."""
    return max(abs(a[0] - b[0]), abs(a[1] - b[1]))


def reachable(rock: np.ndarray, start: Cell) -> set[Cell]:
    """Return the cells (of rock, (H, B)) to which one can walk from `start`."""
    if rock[start]:
        return set()
    found, queue = {start}, deque([start])
    while queue:
        row, column = queue.popleft()
        for cell in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
            if 0 <= cell[0] < rock.shape[0] and 0 <= cell[1] < rock.shape[1] and not rock[cell] and cell not in found:
                found.add(cell)
                queue.append(cell)
    return found


def fertile(config: WorldConfig, rock: np.ndarray, homes: list[Cell], patches: list[Cell]) -> list[Cell]:
    """Return the cells where food may lie: no rock, nobody's home, in a patch if there are patches."""
    return [
        cell
        for cell in np.ndindex(rock.shape)
        if not rock[cell]
        and cell not in homes
        and (not patches or any(apart(cell, patch) <= config.patch_radius for patch in patches))
    ]


def fertile_of(config: WorldConfig, state: WorldState, w: int) -> list[Cell]:
    """Return the cells of world `w` where food may lie."""
    places = ([cell_of(place) for place in array[w]] for array in (state.home, state.patch))
    return fertile(config, state.rock[w], *places)


def near_home(config: WorldConfig, state: WorldState, w: int, i: int) -> list[Cell]:
    """Return the cells where agent `i` can be born: free, and such that its home is in view."""
    home = home_of(config, state, w, i)
    cells = np.ndindex(state.rock[w].shape)
    return [cell for cell in cells if not state.rock[w][cell] and apart(cell, home) <= config.view_radius]


# The first state


def first_state(config: WorldConfig, seed: int) -> WorldState:
    """Return the first state of one world: the first layout that has room for the food and connects the homes."""
    for attempt in range(ATTEMPTS):
        rock, homes, patches = layout(config, seed, attempt)
        ground = fertile(config, rock, homes, patches)
        if len(ground) >= config.food and not any(rock[home] for home in homes):
            break
    else:
        raise ValueError("no room")
    key = {(r, c): rng.uniform(seed, Stream.FOOD, attempt, r * config.width + c) for r, c in ground}
    food = np.zeros_like(rock)
    for cell in sorted(ground, key=lambda cell: key[cell])[: config.food]:
        food[cell] = True
    state = WorldState(
        seed=np.array([seed], np.uint64),
        step=np.zeros(1, np.int32),
        rock=rock[None],
        food=food[None],
        patch=np.array(patches, np.int64).reshape(1, config.patches, 2),
        home=np.array(homes, np.int64)[None],
        position=np.zeros((1, config.agents, 2), np.int64),
        energy=np.full((1, config.agents), config.energy_start, np.float32),
        is_alive=np.ones((1, config.agents), bool),
        food_eaten=np.zeros((1, config.agents), np.int32),
        lifetime=np.zeros((1, config.agents), np.int32),
    )
    for i in range(config.agents):
        state.position[0, i] = _birthplace(config, state, 0, i, Stream.BIRTH, attempt)
    return state


def layout(config: WorldConfig, seed: int, attempt: int) -> tuple[np.ndarray, list[Cell], list[Cell]]:
    """Return rock (H, B), homes and patches of an attempt, whatever it is worth."""
    rock = np.zeros((config.height, config.width), bool)
    for number, cell in enumerate(np.ndindex(rock.shape)):
        rock[cell] = rng.uniform(seed, Stream.ROCK, attempt, number) < config.rocks
    for number, pillar in enumerate(pillars(config)):
        down, right = STEP_OF[1 + int(rng.below(4, seed, Stream.WALL, attempt, number))]
        for brick in range(config.walls):
            row, column = pillar[0] + brick * down, pillar[1] + brick * right
            if row < config.height and column < config.width:
                rock[row, column] = True
    homes = []
    for q in range(config.populations):
        first, end = strip(config, q)
        row = int(rng.below(config.height, seed, Stream.HOME, attempt, 2 * q))
        homes.append((row, first + int(rng.below(end - first, seed, Stream.HOME, attempt, 2 * q + 1))))
    patches = []
    for k in range(config.patches):
        row = int(rng.below(config.height, seed, Stream.PATCH, attempt, 2 * k))
        patches.append((row, int(rng.below(config.width, seed, Stream.PATCH, attempt, 2 * k + 1))))
    for cell in np.ndindex(rock.shape):
        if any(apart(cell, home) <= 1 for home in homes):
            rock[cell] = False
    connected = reachable(rock, homes[0])
    for cell in np.ndindex(rock.shape):
        if cell not in connected:
            rock[cell] = True
    return rock, homes, patches


def strip(config: WorldConfig, q: int) -> tuple[int, int]:
    """Return the first column in which the home of population `q` can be, and the first beyond."""
    return q * config.width // config.populations, (q + 1) * config.width // config.populations


def pillars(config: WorldConfig) -> list[Cell]:
    """Return every cell with a pillar of the maze, row by row."""
    if not config.walls:
        return []
    cells = np.ndindex(config.height, config.width)
    return [(r, c) for r, c in cells if (r + 1) % config.walls == 0 and (c + 1) % config.walls == 0]


def _birthplace(config: WorldConfig, state: WorldState, w: int, i: int, stream: Stream, counter: int) -> Cell:
    cells = near_home(config, state, w, i)
    return cells[int(rng.below(len(cells), state.seed[w], stream, counter, i))]


def give_birth(config: WorldConfig, state: WorldState, is_born: np.ndarray) -> WorldState:
    """Return the state with a new agent in each slot (w, i) for which `is_born` says so."""
    new = WorldState(*(array.copy() for array in state))
    for w, i in np.argwhere(is_born):
        new.position[w, i] = _birthplace(config, state, w, i, Stream.NEWBORN, int(state.step[w]))
        new.energy[w, i] = config.energy_start
        new.is_alive[w, i] = True
        new.food_eaten[w, i] = new.lifetime[w, i] = 0
    return new


# A step


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


def is_legal(state: WorldState, w: int, i: int, action: int) -> bool:
    """Can agent `i` do it, without running into rock or off the grid?"""
    return action == 0 or not is_rock(state, w, *cell_of(state.position[w, i] + STEP_OF[action]))


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
    is_home = cell_of(new.position[w, i]) == home_of(config, new, w, i)
    is_dear = is_night(config, int(new.step[w])) and not is_home
    energy = energy - np.float32(config.cost_step * config.night_cost if is_dear else config.cost_step)
    new.energy[w, i] = max(energy, np.float32(0))
    new.is_alive[w, i] = energy > 0
    new.lifetime[w, i] += 1
    return not new.is_alive[w, i]


def _sprout(config: WorldConfig, new: WorldState, w: int) -> None:
    homes = [cell_of(home) for home in new.home[w]]
    if config.patches:  # every cell of every patch, those off the grid and those of two patches too
        around = range(-config.patch_radius, config.patch_radius + 1)
        places = [(r + down, c + right) for r, c in new.patch[w] for down in around for right in around]
    else:
        places = list(np.ndindex(new.rock[w].shape))
    for item in range(config.food - int(new.food[w].sum())):
        if rng.uniform(new.seed[w], Stream.CAST, new.step[w], item) < config.food_regrow:
            place = places[int(rng.below(len(places), new.seed[w], Stream.SPROUT, new.step[w], item))]
            if not is_rock(new, w, *place) and place not in homes:
                new.food[w][place] = True  # on a cell that is not bare, nothing changes


# What is seen


def observe(config: WorldConfig, state: WorldState, w: int, i: int) -> list[float]:
    """Return what agent `i` of world `w` sees."""
    row, column = cell_of(state.position[w, i])
    around = range(-config.view_radius, config.view_radius + 1)
    cells = [(row + down, column + right) for down in around for right in around]
    kin, rivals = set(), set()
    for j in range(config.agents):
        if j != i and state.is_alive[w, j]:
            is_kin = population(config, j) == population(config, i)
            (kin if is_kin else rivals).add(cell_of(state.position[w, j]))
    food_cells = {cell_of(cell) for cell in np.argwhere(state.food[w])}
    now = int(state.step[w])
    night = is_night(config, now)
    numbers = (
        state.energy[w, i] / np.float32(config.energy_max),
        max(config.max_steps - now, 0) / config.max_steps,
        night,
        phase_left(config, now) / (config.night_length if night else config.day_length) if config.night_length else 1,
    )
    planes = (
        [is_rock(state, w, *cell) for cell in cells],
        [cell in food_cells for cell in cells],
        [cell == home_of(config, state, w, i) for cell in cells],
        [cell in kin for cell in cells],
        [cell in rivals for cell in cells],
    )
    return [float(x) for plane in (*planes, numbers) for x in plane]
