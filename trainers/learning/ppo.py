"""Proximal policy optimisation (Schulman et al. 2017, arXiv:1707.06347), the default."""

import torch
from torch import Tensor

from trainers.learning.learner import Evaluated, Learner


class PPO(Learner):
    """Several epochs of the clipped surrogate."""

    @property
    def epochs(self) -> int:
        """As `learn.epochs` says."""
        return self.config.epochs

    def loss(self, rows: Evaluated) -> Tensor:
        """The clipped surrogate, (B,)."""
        return ppo_loss(rows.log_prob, rows.old_log_prob, rows.advantage, self.config.clip)


def ppo_loss(log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """Clipped surrogate of PPO (Schulman et al. 2017, arXiv:1707.06347, equation 7), to be minimised; all (B,)."""
    ratio = (log_prob - old_log_prob).exp()
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)
