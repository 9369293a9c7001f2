"""Adam (Kingma & Ba 2014, arXiv:1412.6980, algorithm 1) for many adapters in one step.

Departure: every row of the bank has its own learning rate, step count and gradient norm, because rows are
individuals: a newborn starts its moments and its bias correction at zero beside a neighbour in mid-life.
"""

from typing import Any

import torch
from torch import Tensor
from torch.optim.adam import adam

from agents.lora import AdapterBank
from agents.mapped import held_zeros, mapped_zeros
from agents.write_count import count_write


class StackedAdam:
    """One optimiser for all P adapters of a bank; its moments are (P, F) as the bank is.

    in_file: they lie in a file, and are in memory only between a step and the next `let_go`.
    """

    def __init__(
        self,
        bank: AdapterBank,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        in_file: bool = False,
    ):
        self.bank = bank
        self.settings: dict[str, Any] = dict(beta1=beta1, beta2=beta2, eps=eps, weight_decay=0.0, fused=True)
        self.settings |= dict(amsgrad=False, maximize=False, foreach=False, capturable=False, differentiable=False)
        make = mapped_zeros if in_file else held_zeros
        (self.mean, let_go_mean), (self.square, let_go_square) = (make(*bank.values.shape) for _ in range(2))
        self._mapped = (let_go_mean, let_go_square)
        self.steps = torch.zeros(len(bank))

    @torch.no_grad()
    def step(
        self, rows: slice, gradients: Tensor, learning_rate: Tensor, max_norm: float, is_learning: Tensor
    ) -> Tensor:
        """Move those of the adapters `rows` where `is_learning` (P,) along their gradients (G, F), which are clipped.

        learning_rate: (P,). max_norm: bound on each adapter's own gradient norm. Returns the norms (G,) before
        clipping. An adapter whose gradient is not finite stays where it is; its norm says so.
        """
        bank = self.bank
        norms = gradients.norm(dim=1)
        gradients.mul_((max_norm / (norms + 1e-6)).clamp(max=1.0)[:, None])
        for place in (is_learning[rows] & norms.isfinite()).nonzero()[:, 0].tolist():
            row = rows.start + place
            adam(
                params=[bank.values[row]],
                grads=[gradients[place]],
                exp_avgs=[self.mean[row]],
                exp_avg_sqs=[self.square[row]],
                max_exp_avg_sqs=[],
                state_steps=[self.steps[row]],
                lr=float(learning_rate[row]),
                **self.settings,
            )
        count_write(bank.values)
        return norms

    def let_go(self) -> None:
        """Give back the memory of moments that lie in a file."""
        for let_go in self._mapped:
            let_go()

    def forget(self, index: int) -> None:
        """A new individual has moved into row `index`: its moments and step count start at zero."""
        for x in (self.mean, self.square, self.steps):
            x[index] = 0.0
