"""Adam (Kingma & Ba 2014, arXiv:1412.6980, algorithm 1) for many adapters in one step.

Departure: every row of the bank has its own learning rate, step count and gradient norm, because rows are
individuals: a newborn starts its moments and its bias correction at zero beside a neighbour in mid-life.
"""

import torch
from torch import Tensor

from agents.lora import AdapterBank


class StackedAdam:
    """One optimiser for all P adapters of a bank; its moments are (P, F) as the bank is."""

    def __init__(self, bank: AdapterBank, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8):
        self.bank = bank
        self.beta1, self.beta2, self.eps = beta1, beta2, eps
        self.mean = torch.zeros_like(bank.values)
        self.square = torch.zeros_like(bank.values)
        self.steps = torch.zeros(len(bank))

    @torch.no_grad()
    def step(self, learning_rate: Tensor, max_norm: float, is_learning: Tensor) -> Tensor:
        """Move the adapters where `is_learning` (P,) along their gradients, which are then cleared.

        learning_rate: (P,). max_norm: bound on each adapter's own gradient norm. Returns the norms (P,) before
        clipping. An adapter whose gradient is not finite stays where it is; its norm is returned as it was.
        """
        norms = self.bank.gradients.norm(dim=1)
        moves = is_learning & norms.isfinite()
        everyone = bool(moves.all())
        rows: Tensor | slice = slice(None) if everyone else moves.nonzero()[:, 0]
        self.steps[rows] += 1
        count = self.steps[rows][:, None]
        wholes = (self.bank.values, self.bank.gradients, self.mean, self.square)
        values, gradient, mean, square = parts = tuple(whole[rows] for whole in wholes)  # views if everyone moves
        gradient *= (max_norm / (norms[rows] + 1e-6)).clamp(max=1.0)[:, None]
        mean.lerp_(gradient, 1 - self.beta1)
        square.lerp_(gradient.square_(), 1 - self.beta2)
        root = (square / (1 - self.beta2**count)).sqrt_().add_(self.eps)
        values -= (mean * (learning_rate[rows][:, None] / (1 - self.beta1**count))).div_(root)
        if not everyone:
            for whole, part in zip(wholes, parts, strict=True):
                whole[rows] = part
        self.bank.gradients.zero_()
        self.bank.version += 1
        return norms

    def forget(self, index: int) -> None:
        """A new individual has moved into row `index`: its moments and step count start at zero."""
        for x in (self.mean, self.square, self.steps):
            x[index] = 0.0
