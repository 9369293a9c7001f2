"""An experiment as one record. YAML files and command lines only override what stands here.

Never imports torch, so that `--help` answers at once.
"""

from dataclasses import asdict, dataclass, field, fields, replace
from math import isfinite
from typing import Any

from agents.types import AdapterConfig, ModelConfig, expand_user, require
from envs.bots.planner import MAX_CELLS
from envs.presets import PRESETS
from envs.types import WorldConfig, members
from evolution.config import EvolutionConfig as BreedingConfig

SEEDS = 2**32
"""Seeds are below this."""
MAX_HELD_OUT = 1000
"""Held-out worlds that one seed names."""


def _positive(section: object, prefix: str, *names: str) -> None:
    for name in names:
        value = getattr(section, name)
        require(isfinite(value) and value > 0, f"{prefix}.{name}", value, "finite and above 0")


def _share(section: object, prefix: str, *names: str) -> None:
    for name in names:
        require(0 <= getattr(section, name) <= 1, f"{prefix}.{name}", getattr(section, name), "between 0 and 1")


@dataclass(frozen=True)
class EnvConfig(WorldConfig):
    """The world: which one, and, where it is the forage world, everything about it."""

    id: str = "forage"
    """forage; a Gymnasium id, as FrozenLake-v1; or a PettingZoo module, as mpe2.simple_spread_v3."""
    preset: str = "meadow"
    """A forage world by name: meadow, maze, famine, night or rivals. Other env keys then change it."""
    also: list[str] = field(default_factory=list, hash=False)
    """More presets to live in, as [maze, night]; worlds and episodes are shared out evenly."""
    by_turns: bool = False
    """Whether a generation lives in one of these presets alone, and the next one in the next."""
    by_role: bool = True
    """Where agents of a PettingZoo world differ in role (in their spaces, or in their names but for a number at the
    end), fitness is compared, and agents breed, within a role; parents and elites are shared out by size. false: all
    are compared with all."""
    codec: str = ""
    """package.module:Class that puts the world into words; empty for the one that comes with it."""
    options: dict[str, Any] = field(default_factory=dict, hash=False)
    """Arguments with which a world that is not forage is made, as {is_slippery: false}."""

    def __post_init__(self) -> None:
        """Reject what cannot be; and settings of the forage world for another one, which would do nothing."""
        require(self.id.strip() != "", "env.id", self.id, "forage, a Gymnasium id or a PettingZoo module")
        require(self.preset in PRESETS, "env.preset", self.preset, f"one of {', '.join(PRESETS)}")
        require(self.codec.count(":") == (self.codec != ""), "env.codec", self.codec, "empty or package.module:Class")
        names = [self.preset, *self.also]
        is_fine = set(names) <= set(PRESETS) and len(set(names)) == len(names)
        require(is_fine, "env.also", self.also, f"a list of some of {', '.join(PRESETS)}, each once, env.preset not")
        require(not self.by_turns or bool(self.also), "env.by_turns", self.by_turns, "false without env.also")
        require(self.by_role or self.is_team, "env.by_role", False, "true except in a PettingZoo world")
        if self.is_forage:
            super().__post_init__()
            require(not self.options, "env.options", self.options, "empty; the forage world has keys of its own")
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
    def kinds(self) -> dict[str, "EnvConfig"]:
        """The forage worlds to live in, by the names of their presets; the first is this one."""
        alone = replace(self, also=[], by_turns=False)
        return {self.preset: alone} | {name: self.of_preset(name) for name in self.also}

    def of_preset(self, name: str) -> "EnvConfig":
        """Another preset's world for the same agents: with as many, who see as far and live as long."""
        same = ("id", "codec", "agents", "view_radius", "max_steps")
        return EnvConfig(**asdict(PRESETS[name]) | {key: getattr(self, key) for key in same} | {"preset": name})

    @property
    def is_team(self) -> bool:
        """Whether the id is that of a PettingZoo module: dotted names, as no Gymnasium id has them."""
        return all(part.isidentifier() for part in self.id.split(".")) and "." in self.id


ALGORITHMS = ("ppo", "reinforce", "online", "distil", "none")
PLANNER = "planner"
"""A teacher that is no run."""
SOCIAL = ("nobody", "neighbour", "best", "anyone", "shuffled")


@dataclass(frozen=True)
class LearnConfig:
    """How agents learn within a life."""

    algorithm: str = "ppo"
    """ppo, reinforce, online (an update after every action), distil (do as a teacher says) or none (evolution only)."""
    teacher: str = ""
    """With distil, who says of each text that was met what should be done: planner, or the folder of a run, whose
    fittest agent does."""
    temperature: float = 1.0
    """With distil, how soft the distributions of teacher and student are made before they are compared."""
    trains: str = "adapters"
    """What learns: adapters, or with distil model, all weights of the model, which all agents then share."""
    learning_rate: float = 2e-3
    """Adam's step size for a founder's adapter; it is inherited and mutates."""
    entropy_coef: float = 0.01
    """Weight of the entropy bonus for a founder; it is inherited and mutates."""
    discount: float = 0.95
    """Gamma: worth of a reward one step later."""
    gae_lambda: float = 0.9
    """Lambda of generalised advantage estimation, and of online traces; REINFORCE takes whole returns, which is 1."""
    epochs: int = 2
    """Passes of PPO over a life's experience; REINFORCE makes one."""
    minibatch: int = 64
    """Samples per agent in a minibatch; where the model learns, texts in one."""
    replay: int = 0
    """Steps of its former lives that each agent learns from again, by imitating what went well; 0 for none."""
    social: str = "nobody"
    """Whom agents imitate within a life: nobody; neighbour, the one near it that has earned most, if more than itself;
    or, as controls, best (the same of all in its world), anyone, shuffled (as neighbour, actions dealt out anew)."""
    social_window: int = 8
    """How many of the latest steps of another are imitated."""
    trace: int = 4
    """Decisions to which a reward is credited, where learning is online."""
    background: bool = False
    """Learn online in a thread while agents act on by a copy of their adapters; no such run can be repeated exactly."""
    clip: float = 0.2
    """PPO's bound on the probability ratio, 1 - clip to 1 + clip."""
    max_kl: float = 0.15
    """An adapter whose policy has moved further than this from the one that acted is reined in, and rests."""
    max_grad_norm: float = 0.5
    """Bound on the gradient norm of each adapter, or of the model."""
    critic_learning_rate: float = 1e-3
    """Adam's step size for the critic."""
    critic_epochs: int = 8
    """Passes of the critic over a life's experience."""

    def __post_init__(self) -> None:
        """Reject what cannot be."""
        expand_user(self, "learn.", "teacher")
        require(self.algorithm in ALGORITHMS, "learn.algorithm", self.algorithm, f"one of {', '.join(ALGORITHMS)}")
        self._check_teaching()
        require(self.social in SOCIAL, "learn.social", self.social, f"one of {', '.join(SOCIAL)}")
        is_silent = self.social == "nobody" or self.algorithm != "none"
        require(is_silent, "learn.social", self.social, "nobody with learn.algorithm = none")
        _positive(self, "learn", "trace", "social_window", "learning_rate", "epochs", "minibatch")
        _positive(self, "learn", "clip", "max_kl", "max_grad_norm")
        _positive(self, "learn", "critic_learning_rate", "critic_epochs")
        _share(self, "learn", "discount", "gae_lambda")
        require(not self.background or self.algorithm == "online", "learn.background", True, "false unless online")
        require(self.replay >= 0, "learn.replay", self.replay, "0 (none) or more")
        learns = self.algorithm != "none"
        require(not self.replay or learns, "learn.replay", self.replay, "0 with learn.algorithm = none")
        require(
            isfinite(self.entropy_coef) and self.entropy_coef >= 0, "learn.entropy_coef", self.entropy_coef, "0 or more"
        )

    def _check_teaching(self) -> None:
        distils, allowed = self.algorithm == "distil", "left out unless learn.algorithm = distil"
        told = f"{PLANNER} or the folder of a run with learn.algorithm = distil" if distils else allowed
        require(bool(self.teacher.strip()) == distils, "learn.teacher", self.teacher, told)
        require(self.trains in ("adapters", "model"), "learn.trains", self.trains, "adapters or model")
        require(distils or self.trains == "adapters", "learn.trains", self.trains, f"adapters, or {allowed}")
        _positive(self, "learn", "temperature")
        require(distils or self.temperature == 1, "learn.temperature", self.temperature, allowed)
        is_plain = self.teacher != PLANNER or self.temperature == 1
        require(is_plain, "learn.temperature", self.temperature, "1 with the planner, which has no doubts to soften")


INHERITANCE = ("lamarckian", "baldwinian", "darwinian", "reptile")


@dataclass(frozen=True)
class EvolutionConfig(BreedingConfig):
    """How a generation becomes the next."""

    births_in_life: bool = False
    """Whether the place of who starves in the middle of a life is taken by a child of two of the fittest living."""
    inheritance: str = "lamarckian"
    """lamarckian: children inherit what their parents learned. baldwinian: what their parents were born with, and all
    begin anew each generation; learning decides who breeds. darwinian: where nobody learns. reptile: nobody breeds, and
    all begin anew each generation where the last one ended up on average."""
    reptile_step: float = 1.0
    """How far the beginning moves to that end, where inheritance is reptile: 1 is all the way."""
    apart: bool = False
    """Whether each population of the world breeds only within itself; parents and elites are then those of each. Their
    champions of all generations play against each other, and are rated."""
    hall_episodes: int = 0
    """Of the worlds in which fitness is measured, how many are shared with past champions of the other populations."""

    def __post_init__(self) -> None:
        """Reject what cannot be."""
        super().__post_init__()
        inheritance, step = self.inheritance, self.reptile_step
        require(inheritance in INHERITANCE, "evolution.inheritance", inheritance, f"one of {', '.join(INHERITANCE)}")
        require(0 < step <= 1, "evolution.reptile_step", step, "above 0 and at most 1")
        hall, most = self.hall_episodes, self.episodes
        require(0 <= hall <= most, "evolution.hall_episodes", hall, f"between 0 and evolution.episodes = {most}")
        require(not hall or self.apart, "evolution.hall_episodes", hall, "0 without evolution.apart")


@dataclass(frozen=True)
class LogConfig:
    """What a run keeps on disk."""

    checkpoints: int = 2
    """How many of the newest checkpoints are kept, beside the best."""
    adapters_every: int = 5
    """Generations between exports of all adapters; the last is always exported."""
    episode_every: int = 5
    """Generations between pictures of an episode in TensorBoard, and between lives in a held-out world; 0 for none."""
    recordings_mb: int = 32
    """Megabytes of recorded lives that are kept, the newest, for `python -m dashboard`; 0 for none."""

    def __post_init__(self) -> None:
        """Reject what cannot be."""
        require(self.checkpoints >= 1, "log.checkpoints", self.checkpoints, "1 or more")
        require(self.adapters_every >= 1, "log.adapters_every", self.adapters_every, "1 or more")
        require(self.episode_every >= 0, "log.episode_every", self.episode_every, "0 (never) or more")
        require(self.recordings_mb >= 0, "log.recordings_mb", self.recordings_mb, "0 (none) or more")


@dataclass(frozen=True)
class TrainConfig:
    """A whole run."""

    run_dir: str = "runs/forage"
    """Folder of the run; it must be empty or not exist."""
    seed: int = 0
    """Everything random follows from it."""
    generations: int = 20
    """Generations to run, with evolution between them."""
    lives: int = 1
    """Lives that a generation lives and learns from, one after the other."""
    founders: str = ""
    """Folder of a run whose newest population are the founders, with the adapters and hyperparameters that it passes
    on; empty for newborns."""
    worlds: int = 1
    """Worlds in which each agent lives at once; a life's experience grows with them."""
    held_out_episodes: int = 8
    """Worlds never trained on, in which the first and the last generation are compared with the yardsticks."""
    env: EnvConfig = field(default_factory=EnvConfig)
    """The world."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """The frozen language model."""
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    """The adapters on it."""
    learn: LearnConfig = field(default_factory=LearnConfig)
    """Learning within a life."""
    evolution: EvolutionConfig = field(default_factory=EvolutionConfig)
    """Evolution between lives."""
    log: LogConfig = field(default_factory=LogConfig)
    """What is kept."""

    def __post_init__(self) -> None:
        """Reject what cannot be."""
        expand_user(self, "", "run_dir", "founders")
        require(self.run_dir.strip() != "", "run_dir", self.run_dir, "the path of a folder")
        require(0 <= self.seed < SEEDS, "seed", self.seed, f"between 0 and {SEEDS - 1}")
        for name in ("generations", "lives", "worlds", "held_out_episodes"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        episodes = self.held_out_episodes
        require(episodes <= MAX_HELD_OUT, "held_out_episodes", episodes, f"at most {MAX_HELD_OUT}")
        kinds = len(self.env.kinds) if self.env.also else 1
        at_once = {"worlds": self.worlds, "evolution.episodes": self.evolution.episodes}
        shared = (at_once if not self.env.by_turns else {}) | {"held_out_episodes": episodes}
        for name, value in shared.items():
            require(value % kinds == 0, name, value, f"a multiple of {kinds}, the presets of env")
        if self.evolution.births_in_life:
            require(self.env.is_forage, "env.id", self.env.id, "forage with evolution.births_in_life")
            require(self.lives == 1, "lives", self.lives, "1 with evolution.births_in_life")
            require(self.worlds == 1, "worlds", self.worlds, "1 with evolution.births_in_life: a slot is one life")
            learns, selection = self.learn.algorithm, self.evolution.selection
            require(learns != "online", "learn.algorithm", learns, "another with evolution.births_in_life")
            require(self.evolution.enabled, "evolution.enabled", False, "true with evolution.births_in_life")
            allowed = "truncation with evolution.births_in_life"
            require(selection == "truncation", "evolution.selection", selection, allowed)
        if self.learn.social != "nobody":
            require(self.env.is_forage, "env.id", self.env.id, "forage with learn.social")
            require(not self.evolution.births_in_life, "evolution.births_in_life", True, "false with learn.social")
        if self.evolution.inheritance == "darwinian":
            learns = self.learn.algorithm
            require(learns == "none", "learn.algorithm", learns, "none with evolution.inheritance = darwinian")
        if self.learn.trains == "model":
            self._check_whole_model()
        if self.learn.teacher == PLANNER:
            require(self.env.is_forage, "env.id", self.env.id, "forage with learn.teacher = planner")
            require(not self.env.also, "env.also", self.env.also, "empty with learn.teacher = planner")
            cells, told = self.env.height * self.env.width, f"at most {MAX_CELLS} with learn.teacher = planner"
            require(cells <= MAX_CELLS, "env.height * env.width", cells, told)
        if self.evolution.inheritance in ("baldwinian", "reptile"):
            told = f"with evolution.inheritance = {self.evolution.inheritance}"
            require(self.evolution.enabled, "evolution.enabled", False, f"true {told}")
            forgets = f"0 {told} and lives = 1, since all begin anew after every life"
            require(not self.learn.replay or self.lives > 1, "learn.replay", self.learn.replay, forgets)
        if self.evolution.inheritance == "reptile":
            learns = self.learn.algorithm
            require(learns != "none", "learn.algorithm", learns, "another with evolution.inheritance = reptile")
            for name in ("births_in_life", "apart"):
                value = getattr(self.evolution, name)
                require(not value, f"evolution.{name}", value, "false with evolution.inheritance = reptile")
        self._check_breeding()

    def _check_breeding(self) -> None:
        sizes, allowed = [self.env.agents], f"at most env.agents = {self.env.agents}"
        if self.evolution.apart:
            populations, sizes = self.env.populations, [len(range(self.env.agents)[own]) for own in members(self.env)]
            require(populations > 1, "env.populations", populations, "2 or more with evolution.apart")
            require(not self.env.also, "env.also", self.env.also, "empty with evolution.apart")
            require(self.evolution.enabled, "evolution.enabled", False, "true with evolution.apart")
            require(self.learn.social == "nobody", "learn.social", self.learn.social, "nobody with evolution.apart")
            require(not self.evolution.births_in_life, "evolution.births_in_life", True, "false with evolution.apart")
        sizes = [size for size in sizes if size > 1]  # one alone lives on
        if sizes and self.evolution.enabled and self.evolution.inheritance != "reptile":  # otherwise nobody breeds
            if self.evolution.apart:
                allowed = f"at most the {min(sizes)} agents of a population"
            for name in ("parents", "elites"):
                value = getattr(self.evolution, name)
                require(value <= min(sizes), f"evolution.{name}", value, allowed)

    def _check_whole_model(self) -> None:
        told = "with learn.trains = model"
        require(not self.evolution.enabled, "evolution.enabled", True, f"false {told}")
        require(self.learn.social == "nobody", "learn.social", self.learn.social, f"nobody {told}")
        require(not self.learn.replay, "learn.replay", self.learn.replay, f"0 {told}")
        require(not self.founders, "founders", self.founders, f"empty {told}: they bring adapters")
        require(self.model.memory == "full", "model.memory", self.model.memory, f"full {told}")
        require(self.model.trunk == "same", "model.trunk", self.model.trunk, f"same {told}")
