"""An experiment as one record. YAML files and command lines only override what stands here.

Never imports torch, so that `--help` answers at once.
"""

from dataclasses import dataclass, field
from math import isfinite

from agents.types import AdapterConfig, ModelConfig, require
from envs.types import WorldConfig

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
class LearnConfig:
    """How agents learn within a life."""

    algorithm: str = "ppo"
    """ppo, reinforce, or none (evolution only)."""
    learning_rate: float = 2e-3
    """Adam's step size for a founder's adapter; it is inherited and mutates."""
    entropy_coef: float = 0.03
    """Weight of the entropy bonus for a founder; it is inherited and mutates."""
    discount: float = 0.95
    """Gamma: worth of a reward one step later."""
    gae_lambda: float = 0.9
    """Lambda of generalised advantage estimation."""
    epochs: int = 2
    """Passes of PPO over a life's experience; REINFORCE makes one."""
    minibatch: int = 32
    """Samples per agent in a minibatch."""
    clip: float = 0.2
    """PPO's bound on the probability ratio, 1 - clip to 1 + clip."""
    max_kl: float = 0.05
    """An adapter whose policy has moved further than this from the one that acted is reined in, and rests."""
    max_grad_norm: float = 0.5
    """Bound on the gradient norm of each adapter."""
    critic_learning_rate: float = 1e-3
    """Adam's step size for the critic."""
    critic_epochs: int = 8
    """Passes of the critic over a life's experience."""

    def __post_init__(self) -> None:
        """Reject what cannot be."""
        require(
            self.algorithm in ("ppo", "reinforce", "none"), "learn.algorithm", self.algorithm, "ppo, reinforce or none"
        )
        _positive(self, "learn", "learning_rate", "epochs", "minibatch", "clip", "max_kl", "max_grad_norm")
        _positive(self, "learn", "critic_learning_rate", "critic_epochs")
        _share(self, "learn", "discount", "gae_lambda")
        require(
            isfinite(self.entropy_coef) and self.entropy_coef >= 0, "learn.entropy_coef", self.entropy_coef, "0 or more"
        )


@dataclass(frozen=True)
class EvolutionConfig:
    """How a generation becomes the next."""

    enabled: bool = True
    """false: the founders live on and only learn."""
    parents: int = 5
    """How many of the fittest may breed."""
    elites: int = 5
    """How many of the fittest live on."""
    crossover: str = "swap"
    """mean (of the factors, the original idea) or swap (whole layers)."""
    mutation_rate: float = 0.05
    """Noise on a child's tensors, relative to their size."""
    hyperparameter_factor: float = 1.25
    """A child's learning rate and entropy coefficient change by this factor, up, down or not; 1 fixes them."""
    episodes: int = 8
    """Worlds, common to all agents, in which fitness is measured."""

    def __post_init__(self) -> None:
        """Reject what cannot be."""
        require(self.crossover in ("mean", "swap"), "evolution.crossover", self.crossover, "mean or swap")
        require(self.parents >= 2, "evolution.parents", self.parents, "2 or more")
        require(self.elites >= 0, "evolution.elites", self.elites, "0 or more")
        require(self.episodes >= 1, "evolution.episodes", self.episodes, "1 or more")
        require(
            isfinite(self.mutation_rate) and self.mutation_rate >= 0,
            "evolution.mutation_rate",
            self.mutation_rate,
            "0 or more",
        )
        require(
            isfinite(self.hyperparameter_factor) and self.hyperparameter_factor >= 1,
            "evolution.hyperparameter_factor",
            self.hyperparameter_factor,
            "1 or more",
        )


@dataclass(frozen=True)
class LogConfig:
    """What a run keeps on disk."""

    checkpoints: int = 2
    """How many of the newest checkpoints are kept, beside the best."""
    adapters_every: int = 5
    """Generations between exports of all adapters; the last is always exported."""
    episode_every: int = 5
    """Generations between pictures of an episode in TensorBoard; 0 for none."""

    def __post_init__(self) -> None:
        """Reject what cannot be."""
        require(self.checkpoints >= 1, "log.checkpoints", self.checkpoints, "1 or more")
        require(self.adapters_every >= 1, "log.adapters_every", self.adapters_every, "1 or more")
        require(self.episode_every >= 0, "log.episode_every", self.episode_every, "0 (never) or more")


@dataclass(frozen=True)
class TrainConfig:
    """A whole run."""

    run_dir: str = "runs/forage"
    """Folder of the run; it must be empty or not exist."""
    seed: int = 0
    """Everything random follows from it."""
    generations: int = 12
    """Lives to live, with evolution between them."""
    worlds: int = 1
    """Worlds in which each agent lives at once; a life's experience grows with them."""
    held_out_episodes: int = 8
    """Worlds never trained on, in which the first and the last generation are compared with the yardsticks."""
    env: WorldConfig = field(default_factory=WorldConfig)
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
        require(self.run_dir.strip() != "", "run_dir", self.run_dir, "the path of a folder")
        require(0 <= self.seed < SEEDS, "seed", self.seed, f"between 0 and {SEEDS - 1}")
        for name in ("generations", "worlds", "held_out_episodes"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        episodes = self.held_out_episodes
        require(episodes <= MAX_HELD_OUT, "held_out_episodes", episodes, f"at most {MAX_HELD_OUT}")
        for name in ("parents", "elites"):
            value = getattr(self.evolution, name)
            require(value <= self.env.agents, f"evolution.{name}", value, f"at most env.agents = {self.env.agents}")
