"""Distillation: the targets of a teacher take the place of the advantage (Hinton et al. 2015, arXiv:1503.02531)."""

import numpy as np
import torch
from torch import Tensor

from trainers.learning.learner import Evaluated, Experience, Learner


class Distil(Learner):
    """Several epochs towards a teacher's targets, which `trainers.variants.distillation` brings."""

    @property
    def epochs(self) -> int:
        """As `learn.epochs` says."""
        return self.config.epochs

    def loss(self, rows: Evaluated) -> Tensor:
        """KL of the agents' actions from the teacher's, (B,)."""
        assert rows.targets
        return distil_loss(rows.logits, rows.targets.probabilities, rows.targets.temperature, rows.legal)

    def learn(self, experience: Experience, rng: np.random.Generator) -> dict[str, float]:
        """Improve all adapters, and log also the KL of students from their teacher.

        Samples of which the teacher says nothing, whose targets are all 0, are left out.
        """
        assert experience.targets
        is_taught = (experience.targets.probabilities.sum(1) > 0).numpy().reshape(experience.is_alive.shape)
        figures = super().learn(experience._replace(is_alive=experience.is_alive & is_taught), rng)
        return figures | {"teacher_kl": figures["policy_loss"] / experience.targets.temperature**2}


def distil_loss(logits: Tensor, target: Tensor, temperature: float, legal: Tensor | None = None) -> Tensor:
    """KL(target || softmax(logits / temperature)) times temperature squared, which keeps gradients as large (B,).

    Hinton et al. 2015, arXiv:1503.02531, section 2. logits, target: (B, A); target: probabilities at that temperature.
    legal: (B, A) bool, to which both are confined; the target must be 0 elsewhere.
    """
    scaled = logits / temperature
    if legal is not None:
        scaled = scaled.masked_fill(~legal, -torch.inf)
    log_probs = scaled.log_softmax(dim=1).masked_fill(target == 0, 0.0)
    return temperature**2 * (torch.xlogy(target, target) - target * log_probs).sum(dim=1)
