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
        gradients = self.bank.gradients
        norms = gradients.norm(dim=1)
        moves = is_learning & norms.isfinite()
        gradients.nan_to_num_(0.0, 0.0, 0.0).mul_((max_norm / (norms + 1e-6)).clamp(max=1.0).nan_to_num(0.0)[:, None])
        if not moves.all():
            # One who rests keeps its moments: a zero gradient is not the same as no step.
            kept = [x[~moves].clone() for x in (self.mean, self.square, self.bank.values)]
        self.steps += moves
        self.mean.lerp_(gradients, 1 - self.beta1)
        self.square.mul_(self.beta2).addcmul_(gradients, gradients, value=1 - self.beta2)
        count = self.steps.clamp(min=1)[:, None]
        size = learning_rate[:, None] / (1 - self.beta1**count)
        scale = (1 - self.beta2**count).sqrt()
        self.bank.values.sub_(size * self.mean / (self.square.sqrt() / scale + self.eps))
        if not moves.all():
            for x, old in zip((self.mean, self.square, self.bank.values), kept, strict=True):
                x[~moves] = old
        gradients.zero_()
        self.bank.version += 1
        return norms

    def forget(self, index: int) -> None:
        """A new individual has moved into row `index`: its moments and step count start at zero."""
        for x in (self.mean, self.square, self.steps):
            x[index] = 0.0
