"""Crossover: one adapter from two. Pure functions on tensors by name; inputs are never changed."""

import re
from collections.abc import Callable

import torch

from evolution.config import Crossover
from evolution.genome import Adapter, factors, product_norm

MOST_STRETCH = 2.0
"""The most by which a merge is scaled up. The mean of two orthogonal products of equal norm is shorter than they are by
the root of 2; cutting its rank to half leaves half of its square, which is another root of 2."""


def mean(first: Adapter, second: Adapter, generator: torch.Generator) -> Adapter:
    """The mean of the factors A and of the factors B, tensor by tensor: the operator of the original idea.

    It is not the mean of what the adapters do: the mean of two products B A differs from the product of the means, so
    two good parents that drifted apart can have a poor child (evolution by this operator alone loses norm and
    diversity). `generator` is not used.
    """
    return {name: (first[name] + second[name]) / 2 for name in first}


def uniform_layers(first: Adapter, second: Adapter, generator: torch.Generator) -> Adapter:
    """Uniform crossover on transformer layers: each comes whole from one parent or the other, with equal probability.

    A and B of a module stay together, so every product B A in the child is one of a parent's.
    """
    layers = sorted({layer_of(name) for name in first})
    coins = torch.rand(len(layers), generator=generator) < 0.5
    from_first = {layer for layer, coin in zip(layers, coins.tolist(), strict=True) if coin}
    return {name: (first if layer_of(name) in from_first else second)[name].clone() for name in first}


def uniform_components(first: Adapter, second: Adapter, generator: torch.Generator) -> Adapter:
    """Uniform crossover on rank-1 components (a row of A with its column of B): each comes from either parent.

    Components of the same index have the same origin (all founders have equal A), so either can replace the other.
    """
    child = {}
    for a_name, b_name in factors(first):
        from_first = torch.rand(len(first[a_name]), generator=generator) < 0.5  # (r,)
        child[a_name] = torch.where(from_first[:, None], first[a_name], second[a_name])
        child[b_name] = torch.where(from_first, first[b_name], second[b_name])
    return child


def merge_products(first: Adapter, second: Adapter, generator: torch.Generator) -> Adapter:
    """The mean of what the two do, (B1 A1 + B2 A2) / 2, cut to rank r by SVD, its norm the mean of the parents'.

    The best approximation of that rank (Eckart & Young 1936). A mean is shorter than the two products, so norms would
    shrink from one generation to the next: the norm is restored, by a factor of at most `MOST_STRETCH`, which is what
    parents with nothing in common need. Parents that are each other's opposite leave only noise, which stays small.
    The rows of A are orthogonal, and as long as the parents' rows are (root mean square), since learning rates are
    meant for that size. `generator` is not used.
    """
    child = {}
    for a_name, b_name in factors(first):
        a1, a2, b1, b2 = first[a_name], second[a_name], first[b_name], second[b_name]
        rank, row = len(a1), torch.cat([a1, a2]).square().sum(1).mean().sqrt()
        left, right = torch.cat([b1, b2], dim=1) / 2, torch.cat([a1, a2]).T  # (D_out, 2r), (D_in, 2r)
        (q_left, r_left), (q_right, r_right) = torch.linalg.qr(left), torch.linalg.qr(right)
        u, values, v = torch.linalg.svd(r_left @ r_right.T)
        u, values, v = u[:, :rank], values[:rank], v[:rank]
        norm = (product_norm(a1, b1) + product_norm(a2, b2)) / 2
        values = values * (norm / values.norm().clamp(min=1e-12)).clamp(max=MOST_STRETCH)
        child[a_name] = row * (v @ q_right.T)
        child[b_name] = (q_left @ u) * (values / row)
    return child


def clone(first: Adapter, second: Adapter, generator: torch.Generator) -> Adapter:
    """A copy of the first parent: asexual reproduction, in which all change comes from mutation."""
    return {name: tensor.clone() for name, tensor in first.items()}


CROSSOVERS: dict[Crossover, Callable[[Adapter, Adapter, torch.Generator], Adapter]] = {
    "mean": mean,
    "uniform_layers": uniform_layers,
    "uniform_components": uniform_components,
    "merge": merge_products,
    "clone": clone,
}
"""How a child's adapter is made of its parents', by name."""


def layer_of(name: str) -> int:
    """The number of the layer that a tensor belongs to; ValueError if its name has none."""
    found = re.search(r"\.(\d+)\.", name)
    if not found:
        raise ValueError(f"tensor {name!r} names no layer: must contain its number, as in 'layers.22.'")
    return int(found[1])
