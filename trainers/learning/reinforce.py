"""REINFORCE (Williams 1992, section 3) with the critic as baseline: whole returns, one epoch."""

from torch import Tensor

from trainers.learning.learner import Evaluated, Learner


class Reinforce(Learner):
    """One epoch of the policy gradient."""

    @property
    def epochs(self) -> int:
        """One: after a step the samples are no longer the policy's own."""
        return 1

    @property
    def gae_lambda(self) -> float:
        """1: whole returns."""
        return 1.0

    def loss(self, rows: Evaluated) -> Tensor:
        """The policy gradient, (B,)."""
        return -rows.log_prob * rows.advantage
