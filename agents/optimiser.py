"""Adam (Kingma & Ba 2014, arXiv:1412.6980, algorithm 1) for many adapters in one step.

Departure: every row of the bank has its own learning rate, step count and gradient norm, because rows are
individuals: a newborn starts its moments and its bias correction at zero beside a neighbour in mid-life.

torch's fused step goes once through memory, and is private to torch. It stands in `fused_step` alone, and is tried once
before it is relied on; `plain_step` is the way on.
"""

from functools import cache, partial
from typing import NamedTuple

import torch
from torch import Tensor

from agents.lora import AdapterBank
from agents.mapped import held_zeros, mapped_zeros
from agents.write_count import count_write, writes

MOST_RATE = 1e6
"""Up to this rate a step from finite weights, along a finite gradient, leads to finite ones."""


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
        self.beta1, self.beta2, self.eps = beta1, beta2, eps
        device = bank.values.device
        make = mapped_zeros if in_file else partial(held_zeros, device=device)
        (self.mean, let_go_mean), (self.square, let_go_square) = (make(*bank.values.shape) for _ in range(2))
        self._mapped = (let_go_mean, let_go_square)
        self.steps = torch.zeros(len(bank), device=device)
        self._is_broken = torch.zeros(len(bank), dtype=torch.bool)  # whose moments were not finite, for its next step
        self._known = self._writes()

    @torch.no_grad()
    def step(
        self, rows: slice, gradients: Tensor, learning_rate: Tensor, max_norm: float, is_learning: Tensor
    ) -> Tensor:
        """Move those of the adapters `rows` where `is_learning` (P,) along their gradients (G, F), which are clipped.

        learning_rate: (P,). max_norm: bound on each adapter's own gradient norm. Returns the norms (G,) before
        clipping. All but the gradients are on the CPU. An adapter stays where it is, and its norm is not finite, where
        its gradient or its moments are not finite, or its rate is above `MOST_RATE`. Such moments begin at zero. So a
        step ends at finite numbers.
        """
        values = self.bank.values
        self._check_moments()
        norms = gradients.norm(dim=1).cpu()
        norms[self._is_broken[rows] | ~(learning_rate[rows] <= MOST_RATE)] = torch.nan
        self._is_broken[rows] = False
        gradients.mul_((max_norm / (norms + 1e-6)).clamp(max=1.0)[:, None].to(gradients.device))
        for place in (is_learning[rows] & norms.isfinite()).nonzero()[:, 0].tolist():
            row = rows.start + place
            moments = self.mean[row], self.square[row], self.steps[row]
            rate = float(learning_rate[row])
            adam_step(Row(values[row], gradients[place], *moments, rate, self.beta1, self.beta2, self.eps))
        count_write(values)
        self._known = self._writes()
        return norms

    def minimise(
        self, rows: slice, loss: Tensor, learning_rate: Tensor, max_norm: float, is_learning: Tensor
    ) -> Tensor:
        """Go back from `loss` () and take a step; as `step`, whose gradients are gathered for the adapters `rows`."""
        with self.bank.gathering(rows) as gradients:
            loss.backward()
        return self.step(rows, gradients, learning_rate, max_norm, is_learning)

    def let_go(self) -> None:
        """Give back the memory of moments that lie in a file."""
        for let_go in self._mapped:
            let_go()

    def forget(self, index: int) -> None:
        """A new individual has moved into row `index`: its moments and step count start at zero."""
        was_known = self._known == self._writes()
        for x in (self.mean, self.square, self.steps):
            x[index] = 0.0
        self.let_go()
        if was_known:
            self._known = self._writes()

    def _writes(self) -> tuple[int, int]:
        return writes(self.mean), writes(self.square)

    def _check_moments(self) -> None:
        """Where somebody else has written moments, let those begin at zero that are not finite."""
        if self._known == self._writes():
            return
        sums = self.mean.sum(dim=1) + self.square.sum(dim=1)  # one pass; a sum may only be large
        for row in (~sums.isfinite()).nonzero()[:, 0].tolist():
            if not (self.mean[row].isfinite().all() and self.square[row].isfinite().all()):
                self.forget(row)
                self._is_broken[row] = True
        self._known = self._writes()


def share_mean(gradients: Tensor, rows: Tensor) -> Tensor:
    """Make all of the gradients (P, F) the mean of those of `rows` that are finite; return which are not, (G,).

    rows: (G,), on the CPU, each once.
    """
    is_sound = gradients.sum(dim=1).isfinite()  # one pass; the sum of finite numbers may overflow, so look again then
    if not is_sound.all():
        is_sound = gradients.isfinite().all(dim=1)
    is_sound = is_sound.cpu()[rows]
    is_everybody = len(rows) == len(gradients) and bool(is_sound.all())
    own = gradients if is_everybody else gradients[rows[is_sound].to(gradients.device)]
    gradients.copy_(own.mean(dim=0))
    return ~is_sound


class Row(NamedTuple):
    """What is learned, as an adapter (F,); its gradient and moments, of its shape; its steps so far, (); settings."""

    values: Tensor
    gradient: Tensor
    mean: Tensor
    square: Tensor
    steps: Tensor
    rate: float
    beta1: float
    beta2: float
    eps: float


def adam_step(row: Row) -> None:
    """Adam's step, in place, in the way that works here."""
    (fused_step if has_fused(row.values.device) else plain_step)(row)


def plain_step(row: Row) -> None:
    """Adam's step, in place."""
    values, gradient, mean, square, steps, rate, beta1, beta2, eps = row
    steps += 1
    mean.lerp_(gradient, 1 - beta1)
    square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    size = (square / (1 - beta2 ** float(steps))).sqrt_().add_(eps)
    values.addcdiv_(mean, size, value=-rate / (1 - beta1 ** float(steps)))


def fused_step(row: Row) -> None:
    """The same by torch's private function. Autograd does not count what it writes."""
    from torch.optim.adam import adam  # here, since it may be gone some day

    adam(
        params=[row.values],
        grads=[row.gradient],
        exp_avgs=[row.mean],
        exp_avg_sqs=[row.square],
        max_exp_avg_sqs=[],
        state_steps=[row.steps],
        lr=row.rate,
        beta1=row.beta1,
        beta2=row.beta2,
        eps=row.eps,
        weight_decay=0.0,
        fused=True,
        foreach=False,
        amsgrad=False,
        maximize=False,
        capturable=False,
        differentiable=False,
    )


@cache
def has_fused(device: torch.device) -> bool:
    """Whether torch's fused step works on a device and comes to what the plain one does; tried once."""
    ends = []
    for take_step in (plain_step, fused_step):
        values, mean, square = torch.ones(3, 5, device=device).unbind()
        gradient, steps = torch.arange(5.0, device=device), torch.tensor(2.0, device=device)
        try:
            take_step(Row(values, gradient, mean, square, steps, 0.1, 0.9, 0.999, 1e-8))
        except (ImportError, AttributeError, RuntimeError, TypeError):
            return False
        ends.append(torch.cat([values, mean, square, steps[None]]))
    plain, fused = ends
    return torch.allclose(plain, fused)
