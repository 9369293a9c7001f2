"""Baldwinian inheritance and Reptile: all begin each generation with what they were born with.

Baldwinian (Hinton & Nowlan 1987, "How learning can guide evolution"): what was learned decides who breeds, and is not
passed on. Reptile (Nichol et al. 2018, arXiv:1803.02999, batched): nobody breeds; the one beginning of all moves to
where they ended on average. With weights by fitness it is selection as well: the recombination of CMA-ES (Hansen 2016,
arXiv:1604.00772, equation 49) of what each has learned.

Symbols: P adapters, F numbers in an adapter.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.device import CPU
from trainers.config import TrainConfig
from trainers.population import Population
from trainers.stages import Generation, Run
from trainers.variants.inheritance_config import InheritanceConfig
from trainers.variants.variant import Variant


class Inheritance(Variant):
    """Keeps the adapters (P, F) that the agents were born with, on the CPU."""

    settings: InheritanceConfig

    def __init__(self, settings: InheritanceConfig, config: TrainConfig, population: Population, run_dir: Path):
        super().__init__(settings, config, population, run_dir)
        self.born_with = population.policy.network.bank.values.to(CPU, copy=True)
        self.weights = equal_weights(len(self.born_with))

    @staticmethod
    def passed_on(settings: InheritanceConfig, tensors: Mapping[str, Tensor]) -> Tensor:
        """What was born with; with Reptile, moved to where the last generation ended."""
        born = tensors["inheritance.born_with"]
        if settings.kind != "reptile":
            return born
        weights = tensors.get("inheritance.weights", equal_weights(len(born)))  # earlier versions kept none
        return nearer(born, tensors["bank"], weights, settings.reptile_step).expand_as(born)

    def after_evaluation(self, run: Run, generation: Generation) -> dict[str, float]:
        """Note how much each agent's end counts."""
        if self.settings.reptile_weights == "fitness":
            self.weights = rank_weights(torch.tensor([genome.fitness for genome in self.population.genomes]))
        return {}

    def evolve(self, run: Run) -> dict[str, float] | None:
        """Reptile: move the beginning of all."""
        if self.settings.kind != "reptile":
            return None
        ended = self.population.policy.network.bank.values.cpu()
        self.born_with[:] = nearer(self.born_with, ended, self.weights, self.settings.reptile_step)
        self.population.replace_slots(self.population.genomes)
        return {}

    def inherited(self) -> Tensor:
        """What they were born with."""
        return self.born_with

    def begin_anew(self, is_new: np.ndarray, *, in_rollout: bool) -> np.ndarray | None:
        """Note what newcomers are born with; all others begin anew with theirs, unless they are in a rollout."""
        bank = self.population.policy.network.bank
        for slot in np.flatnonzero(is_new).tolist():
            self.born_with[slot] = bank.values[slot]
        if in_rollout:
            return None
        for slot in np.flatnonzero(~is_new).tolist():
            bank.write(slot, bank.unflatten(self.born_with[slot]))
        return ~is_new

    def tensors(self) -> dict[str, Tensor]:
        """What they were born with, and how much each agent's end counts."""
        return {"born_with": self.born_with, "weights": self.weights}

    def restore(self, tensors: dict[str, Tensor], state: dict[str, Any], generation: int) -> None:
        """ValueError where the shape is another one."""
        born = tensors["born_with"]
        if born.shape != self.born_with.shape:
            shape, wanted = tuple(born.shape), tuple(self.born_with.shape)
            raise ValueError(f"tensor inheritance.born_with has shape {shape}: must be {wanted}")
        self.born_with.copy_(born)
        self.weights = tensors.get("weights", self.weights)


def nearer(start: Tensor, end: Tensor, weights: Tensor, step: float) -> Tensor:
    """The mean of where P began (P, F), moved by `step` of the way to where they ended, by weights (P,): (F,)."""
    return start.mean(dim=0) + step * (weights @ end - start.mean(dim=0))


def rank_weights(fitness: Tensor) -> Tensor:
    """Weights (P,) that sum to 1: log(P / 2 + 1/2) - log(rank), the fittest of rank 1; 0 for the less fit half."""
    count = len(fitness)
    ranks = torch.empty(count)
    ranks[fitness.argsort(descending=True, stable=True)] = torch.arange(1.0, count + 1)
    raw = (np.log((count + 1) / 2) - ranks.log()).clamp(min=0)
    return raw / raw.sum() if raw.sum() > 0 else equal_weights(count)


def equal_weights(count: int) -> Tensor:
    """Weights (P,) of which all are the same, and sum to 1."""
    return torch.full((count,), 1 / count)
