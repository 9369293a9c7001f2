"""Small random changes, so that children are not only mixtures of what was there."""

from collections.abc import Callable, Mapping
from math import inf, isfinite, log

import torch

from evolution.genome import Adapter

NOISE_FLOOR = 0.01
"""Least scale of a tensor's noise. B is zero at birth: noise relative to its size alone would leave it zero."""

FIRST_SCALE, CLOSE, TRIES = 0.05, 1.5, 8
"""Of the search for safe noise: where it begins, how near is near enough, and when it ends."""


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


def add_safe_noise(
    adapter: Adapter, target: float, generator: torch.Generator, divergence: Callable[[Adapter, Adapter], float]
) -> Adapter:
    """Noise as in `add_noise`, scaled until behaviour changes by about `target`.

    Safe mutation by rescaling (Lehman et al. 2018, arXiv:1712.06563, SM-R): how far weights may move without harm
    differs between adapters by orders of magnitude, how far behaviour may move does not.
    divergence: of two adapters' behaviours, such as the mean KL of their actions on texts that were met; it grows with
    the square of the scale near zero, which is what the search goes by. It ends within a factor of 1.5, or with the
    nearest of 8 tries; with the adapter itself if behaviour is not finite in any.
    """
    if not (isfinite(target) and target >= 0):
        raise ValueError(f"mutation_kl = {target!r}: must be finite and 0 or more")
    moved = add_noise(adapter, 1.0, generator)
    noise = {name: moved[name] - adapter[name] for name in adapter}
    scale, nearest, distance = FIRST_SCALE, dict(adapter), inf
    for _ in range(TRIES if target else 0):
        changed = {name: adapter[name] + scale * noise[name] for name in adapter}
        found = divergence(adapter, changed)
        ratio = target / max(found, 1e-12) if isfinite(found) else 0.0
        if ratio and abs(log(ratio)) < distance:
            nearest, distance = changed, abs(log(ratio))
        if distance < log(CLOSE):
            break
        scale *= min(max(ratio**0.5, 0.1), 10.0)
    return nearest


def mutate_hyperparameters(values: Mapping[str, float], factor: float, generator: torch.Generator) -> dict[str, float]:
    """Multiply each value by `factor`, by 1 / `factor` or by 1, at equal odds (as population-based training does,
    Jaderberg et al. 2017, arXiv:1711.09846); 1.25 is usual, 1 changes nothing."""
    if not (isfinite(factor) and factor >= 1):
        raise ValueError(f"hyperparameter_factor = {factor!r}: must be finite and 1 or more")
    choices = torch.randint(-1, 2, (len(values),), generator=generator).tolist()
    return {name: value * factor**choice for (name, value), choice in zip(values.items(), choices, strict=True)}
