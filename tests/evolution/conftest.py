"""Adapters made by hand."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from evolution import Genome

MODULES = {"layers.22.self_attn.q_proj": (5, 7), "layers.22.mlp.down_proj": (7, 4), "layers.3.self_attn.q_proj": (5, 7)}
RANK = 3


@pytest.fixture
def adapter() -> Callable[[int], dict[str, Tensor]]:
    """Make a random adapter of rank 3 on three modules of two layers, from a seed."""

    def build(seed: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        tensors = {}
        for path, (rows, columns) in MODULES.items():
            tensors[f"{path}.lora_A.weight"] = torch.randn(RANK, columns, generator=generator)
            tensors[f"{path}.lora_B.weight"] = torch.randn(rows, RANK, generator=generator)
        return tensors

    return build


@pytest.fixture
def population(adapter) -> list[Genome]:
    """Six individuals, ids 10 to 15, of fitness 3, 1, 5, 0, 4 and 2."""
    return [
        Genome(id=10 + i, adapter=adapter(i), hyperparameters={"learning_rate": 10.0**-i}, fitness=float(fitness))
        for i, fitness in enumerate((3, 1, 5, 0, 4, 2))
    ]
