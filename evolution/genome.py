"""The genome: an adapter, the hyperparameters it learns with, and its origin.

It knows no model: an adapter is tensors by name, `...lora_A.weight` (r, D_in) and `...lora_B.weight` (D_out, r). The
product B A is what an adapter adds to a weight, in short what it does.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

Adapter = Mapping[str, Tensor]
"""A LoRA adapter: PEFT's tensor names, without the file's prefix, to (r, D_in) or (D_out, r) tensors."""


class Parent(Protocol):
    """What `breed` needs of a parent: a `Genome` has it, and so has an agent."""

    @property
    def id(self) -> int:
        """Its number."""

    @property
    def adapter(self) -> Adapter:
        """Its LoRA tensors by name."""

    @property
    def hyperparameters(self) -> Mapping[str, float]:
        """What it learns with, such as its learning rate."""


@dataclass(frozen=True)
class Genome:
    """One individual at one moment. `fitness` is NaN until it has been measured.

    `adapter` is a snapshot, into which nobody writes: what the individual was born with or, once measured, what it had
    learned by then. Whoever makes a genome gives it tensors of its own, and no views of a bank in which agents learn.
    """

    id: int
    adapter: Adapter
    hyperparameters: Mapping[str, float]  # such as learning_rate and entropy_coef; they mutate by factors
    generation: int = 0  # of birth
    parents: tuple[int, ...] = ()
    operator: str = "founder"  # how it was made
    seed: int = 0  # of all that was random when it was made
    fitness: float = float("nan")

    def measured(self, fitness: float, adapter: Adapter) -> "Genome":
        """The same individual after a rollout: with its fitness, and a snapshot of the adapter that it has by now."""
        return replace(self, fitness=fitness, adapter=adapter)


def diversity(adapters: list[Adapter]) -> float:
    """Mean distance between two of P adapters (see `distances`); 0 for fewer than two."""
    count = len(adapters)
    return float(distances(adapters).sum() / (count * (count - 1))) if count > 1 else 0.0


def distances(adapters: list[Adapter]) -> Tensor:
    """Frobenius distances (P, P) between the products B A of P adapters, over all modules together.

    Factors would not do: adapters that do the same can have them in rotated bases. With
    U = B_i A_i and the factors side by side, <U_i, U_j> = sum of (B_iᵀ B_j) ∘ (A_i A_jᵀ), so no product is formed.
    """
    count = len(adapters)
    inner = torch.zeros(count, count)
    for a_name, b_name in factors(adapters[0]):
        a = torch.cat([x[a_name] for x in adapters])  # (P * r, D_in)
        b = torch.cat([x[b_name] for x in adapters], dim=1)  # (D_out, P * r)
        both = (a @ a.T) * (b.T @ b)
        inner += both.view(count, len(both) // count, count, -1).sum(dim=(1, 3))
    squared = inner.diag()[:, None] + inner.diag() - 2 * inner
    return squared.clamp(min=0).sqrt()


def product_norms(adapter: Adapter) -> dict[str, float]:
    """Frobenius norm of B A for each adapted module, by the module's path."""
    return {a.removesuffix(".lora_A.weight"): float(product_norm(adapter[a], adapter[b])) for a, b in factors(adapter)}


def product_norm(a: Tensor, b: Tensor) -> Tensor:
    """Frobenius norm of B A, without forming it."""
    return ((a @ a.T) * (b.T @ b)).sum().clamp(min=0).sqrt()


def factors(adapter: Adapter) -> list[tuple[str, str]]:
    """The names of A and B of each adapted module."""
    return [(name, name.replace("lora_A", "lora_B")) for name in adapter if "lora_A" in name]
