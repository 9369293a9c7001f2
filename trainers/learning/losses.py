"""The losses of policy-gradient learning, per sample. Pure functions; the caller averages over an agent's samples."""

import torch
from torch import Tensor


def ppo_loss(log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """Clipped surrogate of PPO (Schulman et al. 2017, arXiv:1707.06347, equation 7), to be minimised; all (B,)."""
    ratio = (log_prob - old_log_prob).exp()
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)


def reinforce_loss(log_prob: Tensor, advantage: Tensor) -> Tensor:
    """REINFORCE (Williams 1992, section 3) with the critic as baseline, to be minimised; all (B,)."""
    return -log_prob * advantage


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


def approx_kl(log_prob: Tensor, old_log_prob: Tensor) -> Tensor:
    """Estimate of KL(old || new) per sample, never negative: (ratio - 1) - log ratio (Schulman 2020, "k3"); (B,)."""
    log_ratio = log_prob - old_log_prob
    return log_ratio.expm1() - log_ratio


def mean_of_numbers(x: Tensor) -> float:
    """Mean of the finite values: one agent that is no longer a number must not hide the others. 0 if there are none."""
    return float(x[x.isfinite()].mean()) if x.isfinite().any() else 0.0


def explained_variance(predicted: Tensor, target: Tensor) -> float:
    """1 - Var[target - predicted] / Var[target]: 1 is perfect, 0 no better than a constant (or no variance)."""
    spread = target.var(correction=0)
    return float(1 - (target - predicted).var(correction=0) / spread) if spread > 0 else 0.0
