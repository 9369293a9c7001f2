"""A walk of one agent through a world drawn by hand; transformers' own layers; makes `gguf_files` importable."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from agents import policy as policy_module
from agents import policy_network, reading
from agents.codecs.forage import ForageCodec
from agents.codecs.forage_map import REACH, ForageMap
from agents.weights import base_model
from envs import Action, ForageBatch, WorldConfig

sys.path.insert(0, str(Path(__file__).parent))

BORN = np.array([-1])
Cells = list[tuple[int, int]]


@pytest.fixture
def theirs_only(monkeypatch) -> None:
    """Let every model be opened and computed by transformers."""
    for module in (policy_module, policy_network, reading):
        monkeypatch.setattr(module, "is_known", lambda decoder: False)
    monkeypatch.setattr(base_model, "known_config", lambda folder: None)


class Walk:
    """A world of free cells but for the given ones, and an agent in it that remembers."""

    def __init__(
        self,
        position: tuple[int, int],
        home: tuple[int, int],
        food: Cells,
        rock: Cells,
        view_radius: int,
        night_length: int,
        height: int,
        width: int,
    ):
        self.codec = ForageCodec(view_radius)
        self._world = ForageBatch(
            WorldConfig(
                height=height,
                width=width,
                agents=1,
                rocks=0.0,
                food=0,
                cost_step=0.0,
                max_steps=10_000,
                view_radius=view_radius,
                day_length=10,
                night_length=night_length,
            )
        )
        self._world.reset([0])
        state = self._world.state()
        state.rock[:] = state.food[:] = False
        for cell in food:
            state.food[0][cell] = True
        for cell in rock:
            state.rock[0][cell] = True
        state.home[:], state.position[:] = home, position
        self.observation = self._world.set_state(state)[0]  # (1, O)
        self.memory: ForageMap = self.codec.remember(None, self.observation, BORN)

    def go(self, *actions: Action) -> "Walk":
        for action in actions:
            observation, _ = self._world.step([[int(action)]])
            self.observation = observation[0]
            self.memory = self.codec.remember(self.memory, self.observation, np.array([int(action)]))
        return self

    def vanish_food(self) -> "Walk":
        state = self._world.state()
        state.food[:] = False
        self._world.set_state(state)
        return self

    @property
    def food(self) -> list[list[int]]:
        """Where it remembers food, as rows south and columns east of itself."""
        return (np.argwhere(self.memory.food[0]) - REACH).tolist()

    @property
    def home(self) -> list[list[int]]:
        """The same of home: one place or none."""
        return (np.argwhere(self.memory.home[0]) - REACH).tolist()

    @property
    def text(self) -> str:
        return self.codec.encode(self.observation, self.memory)[0]


@pytest.fixture
def walk() -> Callable[..., Walk]:
    """Make a walk: the agent stands at (7, 7), home out of sight in a corner, nothing else in the world.

    A day has ten steps, if there are nights.
    """

    def begin(
        position=(7, 7), home=(14, 14), food=(), rock=(), view_radius=3, night_length=0, height=15, width=15
    ) -> Walk:
        return Walk(position, home, food, rock, view_radius, night_length, height, width)

    return begin
