"""Small random changes, so that children are not only mixtures of what was there."""

from collections.abc import Mapping
from math import isfinite

import torch

from evolution.genome import Adapter

NOISE_FLOOR = 0.01
"""Least scale of a tensor's noise. B is zero at birth: noise relative to its size alone would leave it zero."""


def add_noise(adapter: Adapter, rate: float, generator: torch.Generator) -> Adapter:
    """Add to each tensor Gaussian noise of standard deviation rate * max(its root mean square, NOISE_FLOOR).

    rate: 0 changes nothing. Raises ValueError if it is negative.
    """
    if not (isfinite(rate) and rate >= 0):
        raise ValueError(f"mutation_rate = {rate!r}: must be finite and 0 or more")
    changed = {}
    for name, tensor in adapter.items():
        scale = rate * max(float(tensor.square().mean().sqrt()), NOISE_FLOOR)
        changed[name] = tensor + scale * torch.randn(tensor.shape, generator=generator)
    return changed


def mutate_hyperparameters(values: Mapping[str, float], factor: float, generator: torch.Generator) -> dict[str, float]:
    """Multiply each value by `factor`, by 1 / `factor` or by 1, at equal odds (as population-based training does,
    Jaderberg et al. 2017, arXiv:1711.09846); 1.25 is usual, 1 changes nothing."""
    if not (isfinite(factor) and factor >= 1):
        raise ValueError(f"hyperparameter_factor = {factor!r}: must be finite and 1 or more")
    choices = torch.randint(-1, 2, (len(values),), generator=generator).tolist()
    return {name: value * factor**choice for (name, value), choice in zip(values.items(), choices, strict=True)}
