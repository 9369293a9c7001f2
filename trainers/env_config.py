"""The section `env`: which world. Imports no torch."""

from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal

from agents.types import require, require_word
from envs.bots.planner import MAX_CELLS
from envs.presets import PRESETS
from envs.types import WorldConfig

OnError = Literal["stop", "restart"]
MAX_TIMEOUT = 86_400
"""Seconds."""


@dataclass(frozen=True)
class EnvConfig(WorldConfig):
    """The world: which one, and, where it is the forage world, everything about it."""

    id: str = "forage"
    """forage; a Gymnasium id, as FrozenLake-v1; or a PettingZoo module, as mpe2.simple_spread_v3."""
    preset: str = "meadow"
    """A forage world by name: meadow, maze, famine, night or rivals. Other env keys then change it."""
    also: list[str] = field(default_factory=list, hash=False)
    """More presets to live in, as [maze, night]; worlds and episodes are shared out evenly."""
    alternate: bool = False
    """Whether a generation lives in one of these presets alone, and the next one in the next."""
    by_role: bool = True
    """Where agents of a PettingZoo world differ in role (in their spaces, or in their names but for a number at the
    end), fitness is compared, and agents breed, within a role; parents and elites are shared out by size. false: all
    are compared with all."""
    shared_layouts: bool = True
    """Whether agents learn in the same layouts, in a Gymnasium world that draws them; false: each in its own, from
    which all see more with learn.pool. Fitness is always measured in the same."""
    codec: str = ""
    """package.module:Class that puts the world into words; empty for the one that comes with it."""
    options: dict[str, Any] = field(default_factory=dict, hash=False)
    """Arguments with which a world that is not forage is made, as {is_slippery: false}."""
    on_error: OnError = "stop"
    """What is done where a world that is not forage fails in a run: stop, the run ends with a sentence and its last
    checkpoint; restart, that copy of the world is made anew, and its episode counts as cut off before the step."""
    step_timeout: float = 0.0
    """Seconds that a copy of a world that is not forage may take for a step or a reset, else it has failed; 0 for no
    limit. Making a copy, and importing its package, may take longer."""

    def __post_init__(self) -> None:
        """Reject values that are out of range, and settings of the forage world where it is another one."""
        require(self.id.strip() != "", "env.id", self.id, "forage, a Gymnasium id or a PettingZoo module")
        require(self.preset in PRESETS, "env.preset", self.preset, f"one of {', '.join(PRESETS)}")
        require(self.codec.count(":") == (self.codec != ""), "env.codec", self.codec, "empty or package.module:Class")
        names = [self.preset, *self.also]
        is_fine = set(names) <= set(PRESETS) and len(set(names)) == len(names)
        require(is_fine, "env.also", self.also, f"a list of some of {', '.join(PRESETS)}, each once, env.preset not")
        require(not self.alternate or bool(self.also), "env.alternate", self.alternate, "false without env.also")
        require_word(self, "env", "on_error", OnError)
        limit = self.step_timeout
        require(0 <= limit <= MAX_TIMEOUT, "env.step_timeout", limit, f"0 for no limit, or at most {MAX_TIMEOUT}")
        require(self.by_role or self.is_team, "env.by_role", False, "true except in a PettingZoo world")
        is_gym = not (self.is_forage or self.is_team)
        require(self.shared_layouts or is_gym, "env.shared_layouts", False, "true except in a Gymnasium world")
        if self.is_forage:
            super().__post_init__()
            require(not self.options, "env.options", self.options, "empty; the forage world has keys of its own")
            for key, value in (("on_error", "stop"), ("step_timeout", 0)):
                own = getattr(self, key)
                require(own == value, f"env.{key}", own, f"left out: {self.id} is our own, and does not fail so")
            return
        require(self.preset == "meadow", "env.preset", self.preset, f"left out: it is no preset of {self.id}")
        require(not self.also, "env.also", self.also, f"left out: they are no presets of {self.id}")
        default = WorldConfig(agents=1)
        for key in (f.name for f in fields(WorldConfig) if f.name not in ("agents", "max_steps")):
            value = getattr(self, key)
            require(value == getattr(default, key), f"env.{key}", value, f"left out: {self.id} has env.options instead")
        WorldConfig(height=256, width=256, agents=self.agents, max_steps=self.max_steps)  # has the bounds of these

    @property
    def is_forage(self) -> bool:
        """Whether this is our own world."""
        return self.id == "forage"

    @property
    def title(self) -> str:
        """The presets, or the id of another world."""
        return ", ".join(self.kinds) if self.is_forage else self.id

    @property
    def kinds(self) -> dict[str, "EnvConfig"]:
        """The forage worlds to live in, by the names of their presets; the first is this one."""
        alone = replace(self, also=[], alternate=False)
        return {self.preset: alone} | {name: self.of_preset(name) for name in self.also}

    def of_preset(self, name: str) -> "EnvConfig":
        """Another preset's world for the same agents: with as many, who see as far and live as long."""
        same = ("id", "codec", "agents", "view_radius", "max_steps")
        return EnvConfig(**asdict(PRESETS[name]) | {key: getattr(self, key) for key in same} | {"preset": name})

    def other_preset(self, name: str) -> "EnvConfig":
        """As `of_preset`; UserError where there is none of that name, or agents that live in another world."""
        require(self.is_forage, "preset", name, f"left out: these agents live in {self.id}")
        require(name in PRESETS, "preset", name, f"one of {', '.join(PRESETS)}")
        return self.of_preset(name)

    @property
    def baselines(self) -> list[str]:
        """Who plays the same worlds for comparison (`envs.bots`); the planner only where worlds are small."""
        if not self.is_forage:
            return ["random"]
        is_planned = all(kind.height * kind.width <= MAX_CELLS for kind in self.kinds.values())
        return ["random", "greedy", "forager", *(["planner"] if is_planned else [])]

    @property
    def is_team(self) -> bool:
        """Whether the id is that of a PettingZoo module: dotted names, as no Gymnasium id has them."""
        return all(part.isidentifier() for part in self.id.split(".")) and "." in self.id
