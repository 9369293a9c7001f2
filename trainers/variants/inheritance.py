"""Baldwinian inheritance and Reptile: all begin each generation with what they were born with.

Baldwinian (Hinton & Nowlan 1987, "How learning can guide evolution"): what was learned decides who breeds, and is not
passed on. Reptile (Nichol et al. 2018, arXiv:1803.02999, batched): nobody breeds; the one beginning of all moves to
where they ended on average.

Symbols: P adapters, F numbers in an adapter.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from agents.device import CPU
from trainers.config import TrainConfig
from trainers.population import Population
from trainers.stages import Run
from trainers.variants.inheritance_config import InheritanceConfig
from trainers.variants.variant import Variant


class Inheritance(Variant):
    """Keeps the adapters (P, F) that the agents were born with, on the CPU."""

    settings: InheritanceConfig

    def __init__(self, settings: InheritanceConfig, config: TrainConfig, population: Population, run_dir: Path):
        super().__init__(settings, config, population, run_dir)
        self.born_with = population.policy.network.bank.values.to(CPU, copy=True)

    @staticmethod
    def passed_on(settings: InheritanceConfig, tensors: Mapping[str, Tensor]) -> Tensor:
        """What was born with; with Reptile, moved to where the last generation ended."""
        born = tensors["inheritance.born_with"]
        if settings.kind != "reptile":
            return born
        return nearer(born, tensors["bank"], settings.reptile_step).expand_as(born)

    def evolve(self, run: Run) -> dict[str, float] | None:
        """Reptile: move the beginning of all."""
        if self.settings.kind != "reptile":
            return None
        ended = self.population.policy.network.bank.values.cpu()
        self.born_with[:] = nearer(self.born_with, ended, self.settings.reptile_step)
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
        """What they were born with."""
        return {"born_with": self.born_with}

    def restore(self, tensors: dict[str, Tensor], state: dict[str, Any], generation: int) -> None:
        """ValueError where the shape is another one."""
        born = tensors["born_with"]
        if born.shape != self.born_with.shape:
            shape, wanted = tuple(born.shape), tuple(self.born_with.shape)
            raise ValueError(f"tensor inheritance.born_with has shape {shape}: must be {wanted}")
        self.born_with.copy_(born)


def nearer(start: Tensor, end: Tensor, step: float) -> Tensor:
    """The mean of where P began (P, F), moved by `step` of the way to the mean of where they ended: (F,)."""
    return start.mean(dim=0) + step * (end.mean(dim=0) - start.mean(dim=0))
