"""Two adapters into one. Pure functions on tensors by name; inputs are never changed."""

import re
from collections.abc import Callable

import torch

from evolution.genome import Adapter


def mean(first: Adapter, second: Adapter, generator: torch.Generator) -> Adapter:
    """The mean of the factors A and of the factors B, tensor by tensor: the operator of the original idea.

    It is not the mean of what the adapters do: the mean of two products is another thing than the product of two
    means, so two good parents that drifted apart can have a poor child (evolution by this operator alone loses
    norm and diversity). `generator` is not used: the mean leaves nothing to chance.
    """
    return {name: (first[name] + second[name]) / 2 for name in first}


def swap_layers(first: Adapter, second: Adapter, generator: torch.Generator) -> Adapter:
    """Each transformer layer whole from one parent or the other, by a fair coin (uniform crossover on layers).

    A and B of a module stay together, so every product in the child is a product that one parent had.
    """
    layers = sorted({layer_of(name) for name in first})
    coins = torch.rand(len(layers), generator=generator) < 0.5
    from_first = {layer for layer, coin in zip(layers, coins.tolist(), strict=True) if coin}
    return {name: (first if layer_of(name) in from_first else second)[name].clone() for name in first}


CROSSOVERS: dict[str, Callable[[Adapter, Adapter, torch.Generator], Adapter]] = {"mean": mean, "swap": swap_layers}


def layer_of(name: str) -> int:
    """The number of the layer that a tensor belongs to; ValueError if its name has none."""
    found = re.search(r"\.(\d+)\.", name)
    if not found:
        raise ValueError(f"tensor {name!r} names no layer: must contain its number, as in 'layers.22.'")
    return int(found[1])
