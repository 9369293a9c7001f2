"""The world: agents forage in a grid, eat what they find, and starve when they do not. Part of Terrarium.

The core is batched: arrays over W worlds x N agents (`ForageBatch`). Its interfaces are PettingZoo's
(`envs.forage_v0`), Gymnasium's (`gymnasium.make("envs:Forage-v0")` and `make_vec`), Stable-Baselines3's
(`envs.sb3`) and the world of one agent (`Habitat`). A leaf of the project: NumPy, and in the interfaces
the library they are for. Knows no text, no model and no learning.

Symbols of all shapes: W worlds, N agents in a world, H rows, B columns ("breadth"), F food items,
A = 5 actions, V = 2 * view_radius + 1 cells along a side of the view, O numbers in an observation.
"""

import gymnasium

from envs.batch import ForageBatch
from envs.generator import HELD_OUT
from envs.solo import Habitat
from envs.types import Action, StepResult, WorldConfig, WorldState

__all__ = ["HELD_OUT", "Action", "ForageBatch", "Habitat", "StepResult", "WorldConfig", "WorldState"]

gymnasium.register(
    id="Forage-v0",
    entry_point="envs.forage_gym:ForageEnv",
    vector_entry_point="envs.forage_vector:ForageVectorEnv",
)
for name, held_out in (("Train", False), ("Test", True)):
    gymnasium.register(
        id=f"BabyAI-Mixed{name}Local-v0",
        entry_point="envs.babyai:BabyAITextEnv",
        kwargs={"held_out": held_out},
    )
