"""Evolution strategies: a mean adapter moves towards what its samples did better. Pure functions on stacked tensors.

Salimans et al. 2017 (arXiv:1703.03864): members are the mean plus and minus the same noise; the difference of their
fitness weighs the noise. Sarkar et al. 2025 (EGGROLL, arXiv:2511.16652): the noise of a matrix has rank one, and what
was found is divided by its standard deviation. Only B has noise: with A the same for all, a mean of B is a mean of what
adapters do, and a B of zero is no trap.

Symbols: n mirrored pairs, F numbers in an adapter.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

MOST_Z = 2.0
"""Standard deviations of a pair's difference that count at most, so that no lucky pair decides alone."""


def rank_one_noise(shapes: Mapping[str, tuple[int, int]], pairs: int, seed: int) -> Tensor:
    """Noise (n, F): u vᵀ for each B, u ~ N(0, I) of its rows and v ~ N(0, I) of its columns; 0 for each A.

    shapes: of an adapter's tensors in the order of a row. Each number has variance 1.
    """
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for name, (rows, columns) in shapes.items():
        if "lora_A" in name:
            parts.append(torch.zeros(pairs, rows * columns))
        else:
            u, v = (torch.randn(pairs, size, generator=generator) for size in (rows, columns))
            parts.append((u[:, :, None] * v[:, None, :]).view(pairs, -1))
    return torch.cat(parts, dim=1)


def mirrored(mean: Tensor, noise: Tensor, sigma: float) -> Tensor:
    """Members (2n, F): the mean (F,) plus and minus sigma times each noise (n, F), the two of a pair side by side."""
    return mean + sigma * torch.stack([noise, -noise], dim=1).flatten(0, 1)


def standardised(difference: Tensor) -> Tensor:
    """Differences of pairs (n,) divided by their standard deviation about zero, within `MOST_Z`; 0 where all are 0."""
    scale = difference.square().mean().sqrt()
    return (difference / scale).clamp(-MOST_Z, MOST_Z) if scale > 0 else torch.zeros_like(difference)


def direction(noise: Tensor, fitness: Tensor) -> Tensor:
    """Where fitness rises, (F,): the mean noise, weighed by what its pair's difference came to.

    noise: (n, F). fitness: (2n,) of `mirrored` members.
    """
    plus, minus = fitness.view(-1, 2).T
    return standardised(plus - minus) @ noise / len(noise)


def b_mask(shapes: Mapping[str, tuple[int, int]]) -> Tensor:
    """1 where a number of an adapter belongs to a B, else 0, (F,)."""
    return torch.cat(
        [torch.full((rows * columns,), float("lora_B" in name)) for name, (rows, columns) in shapes.items()]
    )


def moved(mean: Tensor, velocity: Tensor, step: float, decay: Tensor) -> Tensor:
    """The mean (F,), drawn to zero by shares `decay` (F,), and moved by `step` along a velocity (F,).

    Without decay the mean drifts where fitness does not change (arXiv:2605.30148, whose decay is towards the first
    mean; here it is towards zero, which is the same for newborns).
    """
    return (1 - decay) * mean + step * velocity
