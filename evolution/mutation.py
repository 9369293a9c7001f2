"""Mutation: small random changes of adapters and hyperparameters. Pure functions; inputs are never changed."""

from collections.abc import Callable, Mapping
from math import inf, isfinite, log

import torch

from evolution.config import EvolutionConfig, Mutation
from evolution.genome import Adapter

Divergence = Callable[[Adapter, Adapter], float]
"""How differently two adapters behave, as the mean KL of their actions on texts that agents have read."""

NOISE_FLOOR = 0.01
"""Least size that noise is relative to. A founder's B is zero: noise relative to its size alone would leave it zero."""

MOST = 1e6
"""Of a hyperparameter: generations on end may not make it infinite."""

FIRST_SCALE, CLOSE, TRIES = 0.05, 1.5, 8
"""Of the search for safe noise: its first scale, the factor within which a result is close enough, its most steps."""


def add_noise(adapter: Adapter, std: float, generator: torch.Generator) -> Adapter:
    """Add to each tensor Gaussian noise of standard deviation std * max(its root mean square, NOISE_FLOOR).

    std: 0 changes nothing. Raises ValueError if it is negative or not finite.
    """
    if not (isfinite(std) and std >= 0):
        raise ValueError(f"mutation_std = {std!r}: must be finite and 0 or more")
    changed = {}
    for name, tensor in adapter.items():
        scale = std * max(float(tensor.square().mean().sqrt()), NOISE_FLOOR)
        changed[name] = tensor + scale * torch.randn(tensor.shape, generator=generator)
    return changed


def add_safe_noise(adapter: Adapter, target: float, generator: torch.Generator, divergence: Divergence) -> Adapter:
    """Add noise as `add_noise` does, scaled until behaviour changes by about `target`.

    Safe mutation by rescaling (Lehman et al. 2018, arXiv:1712.06563, SM-R): how far weights can move without harm
    differs between adapters by orders of magnitude; how far behaviour can move does not. The search assumes that
    divergence grows with the square of the scale, as it does near zero. It ends within a factor of `CLOSE` of the
    target, or with the closest of `TRIES` tries; with the adapter unchanged if divergence is finite in none of them.
    Raises ValueError if `target` is negative or not finite.
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


def mutate_by_noise(
    adapter: Adapter, settings: EvolutionConfig, generator: torch.Generator, divergence: Divergence | None
) -> Adapter:
    """Add noise of `settings.mutation_std`; `divergence` is not used."""
    return add_noise(adapter, settings.mutation_std, generator)


def mutate_safely(
    adapter: Adapter, settings: EvolutionConfig, generator: torch.Generator, divergence: Divergence | None
) -> Adapter:
    """Add noise that changes behaviour by `settings.mutation_kl`; ValueError without a divergence."""
    if divergence is None:
        raise ValueError("evolution.mutation = 'safe': must come with a divergence, which tells two behaviours apart")
    return add_safe_noise(adapter, settings.mutation_kl, generator, divergence)


MUTATIONS: dict[Mutation, Callable[[Adapter, EvolutionConfig, torch.Generator, Divergence | None], Adapter]] = {
    "noise": mutate_by_noise,
    "safe": mutate_safely,
}
"""How a child's adapter mutates, by name."""


def mutate_hyperparameters(values: Mapping[str, float], factor: float, generator: torch.Generator) -> dict[str, float]:
    """Multiply each value by `factor`, by 1 / `factor` or by 1, with equal probability (as population-based training
    does, Jaderberg et al. 2017, arXiv:1711.09846), up to `MOST`; 1.25 is usual, 1 changes nothing."""
    if not (isfinite(factor) and factor >= 1):
        raise ValueError(f"hyperparameter_factor = {factor!r}: must be finite and 1 or more")
    choices = torch.randint(-1, 2, (len(values),), generator=generator).tolist()
    return {
        name: min(value * factor**choice, MOST) for (name, value), choice in zip(values.items(), choices, strict=True)
    }
