"""How agents learn from a rollout. Never imports torch."""

from dataclasses import dataclass
from typing import Literal

from agents.types import require, require_above_0, require_at_least, require_word

ALGORITHMS = {
    "ppo": "ppo.PPO",
    "reinforce": "reinforce.Reinforce",
    "online": "online.Online",
    "distil": "distil.Distil",
    "none": "learner.Learner",
}
"""What `learn.algorithm` may be, and the class in `trainers.learning` that does it. A new one is a file and a line."""

Advantage = Literal["gae", "group"]

MOST = {
    "learning_rate": 1,
    "critic_learning_rate": 1,
    "epochs": 1000,
    "critic_epochs": 1000,
    "minibatch": 65_536,
    "trace": 1000,
    "clip": 100,
    "max_kl": 1_000_000_000,
    "max_grad_norm": 1_000_000_000,
}
"""Up to where numbers make sense; a bound is switched off by a large one."""


@dataclass(frozen=True)
class LearnConfig:
    """How agents learn from a rollout."""

    algorithm: str = "ppo"
    """ppo, reinforce, online (an update after every action), distil (imitate the teacher that the section distillation
    names) or none (evolution only)."""
    learning_rate: float = 2e-3
    """Adam's step size for the adapter of a founder; it is inherited and mutates."""
    anneal_to: float = 1.0
    """Share of an adapter's learning rate that is left in the last generation of `generations`; it falls evenly from
    the first on, so a run that is resumed must keep its number of generations. 1: it stays as it is."""
    entropy_coef: float = 0.01
    """Weight of the entropy bonus for a founder; it is inherited and mutates."""
    discount: float = 0.95
    """Gamma: the worth of a reward one step later."""
    gae_lambda: float = 0.9
    """Lambda of generalised advantage estimation, and of online traces; REINFORCE takes whole returns, which is 1."""
    advantage: Advantage = "gae"
    """gae: what each step of an agent came to, against the critic's estimate. group: what all agents' steps with the
    same text and action came to, against all with that text; for worlds in which texts come again."""
    epochs: int = 2
    """Passes of PPO over a rollout; REINFORCE makes one."""
    pool: bool = False
    """Whether all adapters follow the mean of their gradients, so that everybody learns from what each has met, also
    where they imitate; a newcomer then goes on with Adam's moments of its slot. Else each follows its own. With
    ppo, reinforce and distil."""
    minibatch: int = 64
    """Samples per agent in a minibatch; texts in one where distillation trains the model."""
    trace: int = 4
    """Decisions to which a reward is credited, where learning is online."""
    background: bool = False
    """Learn online in a thread while agents act by a copy of their adapters; no such run can be repeated exactly."""
    clip: float = 0.2
    """PPO's bound on the probability ratio, 1 - clip to 1 + clip."""
    max_kl: float = 0.15
    """Trust region: an adapter whose policy has moved further than this from the one that acted is moved back to it,
    and stops learning until the next rollout."""
    max_grad_norm: float = 0.5
    """Bound on the gradient norm of each adapter, or of the model."""
    critic_learning_rate: float = 1e-3
    """Adam's step size for the critic."""
    critic_epochs: int = 8
    """Passes of the critic over a rollout."""

    def __post_init__(self) -> None:
        """Reject values that are out of range."""
        require(self.algorithm in ALGORITHMS, "learn.algorithm", self.algorithm, f"one of {', '.join(ALGORITHMS)}")
        require_word(self, "learn", "advantage", Advantage)
        for name, most in MOST.items():
            require_above_0(self, "learn.", name, most)
        require_above_0(self, "learn.", "anneal_to", 1)
        is_learning = self.algorithm != "none" or self.anneal_to == 1
        require(is_learning, "learn.anneal_to", self.anneal_to, "1 with learn.algorithm = none")
        for name in ("discount", "gae_lambda"):
            require(0 <= getattr(self, name) <= 1, f"learn.{name}", getattr(self, name), "between 0 and 1")
        require(not self.background or self.algorithm == "online", "learn.background", True, "false unless online")
        is_pooled = self.pool and self.algorithm not in ("ppo", "reinforce", "distil")
        require(not is_pooled, "learn.pool", True, f"false with learn.algorithm = {self.algorithm}")
        is_compared = self.algorithm in ("ppo", "reinforce") or self.advantage == "gae"
        require(is_compared, "learn.advantage", self.advantage, f"gae with learn.algorithm = {self.algorithm}")
        require_at_least(self, "learn.", "entropy_coef", 0, 1000)
