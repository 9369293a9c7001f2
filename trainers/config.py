"""An experiment as one record. YAML files and command lines only override what stands here.

The sections stand beside their users: `env` (`trainers.env_config`), `model` and `adapter` (`agents.types`), `learn`
(`trainers.learning.config`), `evolution` (`evolution.config`), those of variants in `trainers.variants`. Imports no
torch, so that `--help` answers at once.
"""

from dataclasses import dataclass, field

from agents.types import AdapterConfig, ModelConfig, expand_user, require, require_at_least
from evolution.config import EvolutionConfig
from trainers.env_config import EnvConfig
from trainers.learning.config import LearnConfig

SEEDS = 2**32
"""Seeds are below this."""
MOST = 1_000_000_000
"""Of whatever is counted: more is a mistake of writing."""
MAX_HELD_OUT = 1000
"""Held-out worlds that one seed names."""


@dataclass(frozen=True)
class LogConfig:
    """What a run keeps on disk."""

    checkpoints: int = 2
    """How many of the newest checkpoints are kept, beside the best."""
    adapters_every: int = 5
    """Generations between exports of all adapters; the last is always exported."""
    episode_every: int = 5
    """Generations between pictures of an episode in TensorBoard, and between episodes in a held-out world; 0 for
    none."""
    recordings_mb: int = 32
    """Megabytes of recorded episodes that are kept, the newest, for `python -m dashboard`; 0 for none."""

    def __post_init__(self) -> None:
        """Reject values that are out of range."""
        require_at_least(self, "log.", "checkpoints", 1, MOST)
        require_at_least(self, "log.", "adapters_every", 1, MOST)
        require_at_least(self, "log.", "episode_every", 0, MOST, "never")
        require_at_least(self, "log.", "recordings_mb", 0, MOST, "none")


@dataclass(frozen=True)
class TrainConfig:
    """A whole run: PPO and generational evolution."""

    run_dir: str = "runs/forage"
    """Folder of the run; it must be empty or not exist."""
    seed: int = 0
    """Everything random follows from it."""
    generations: int = 20
    """Generations to run, with evolution between them."""
    rollouts_per_generation: int = 1
    """Rollouts that a generation collects and learns from, one after the other."""
    init_from: str = ""
    """Folder of a run whose newest population are the founders, with the adapters and hyperparameters that it passes
    on; empty for newborns. A learn.learning_rate or learn.entropy_coef, given or by default, that differs from that
    run's replaces what was inherited."""
    worlds: int = 1
    """Worlds in which each agent lives at once; a rollout grows with them."""
    held_out_episodes: int = 8
    """Worlds never trained on, in which the first and the last generation are compared with the baselines."""
    env: EnvConfig = field(default_factory=EnvConfig)
    """The world."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """The frozen language model."""
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    """The adapters on it."""
    learn: LearnConfig = field(default_factory=LearnConfig)
    """Learning from a rollout."""
    evolution: EvolutionConfig = field(default_factory=EvolutionConfig)
    """Evolution between generations."""
    log: LogConfig = field(default_factory=LogConfig)
    """What is kept."""

    def __post_init__(self) -> None:
        """Reject values that are out of range, or that do not go together."""
        expand_user(self, "", "run_dir", "init_from")
        require(self.run_dir.strip() != "", "run_dir", self.run_dir, "the path of a folder")
        require(0 <= self.seed < SEEDS, "seed", self.seed, f"between 0 and {SEEDS - 1}")
        for name in ("generations", "rollouts_per_generation", "worlds", "held_out_episodes"):
            require_at_least(self, "", name, 1, MOST)
        episodes = self.held_out_episodes
        require(episodes <= MAX_HELD_OUT, "held_out_episodes", episodes, f"at most {MAX_HELD_OUT}")
        kinds = len(self.env.kinds) if self.env.also else 1
        at_once = {"worlds": self.worlds, "evolution.episodes": self.evolution.episodes}
        shared = (at_once if not self.env.alternate else {}) | {"held_out_episodes": episodes}
        for name, value in shared.items():
            require(value % kinds == 0, name, value, f"a multiple of {kinds}, the presets of env")
        sizes = [size for size in self.breeding_sizes() if size > 1]  # one alone lives on
        if sizes and self.evolution.enabled:
            for name in ("parents", "elites"):
                value, allowed = getattr(self.evolution, name), f"at most the {min(sizes)} agents that breed together"
                require(value <= min(sizes), f"evolution.{name}", value, allowed)

    def breeding_sizes(self) -> list[int]:
        """How many agents breed with each other, for each group that does."""
        return [self.env.agents]
