"""Adam (Kingma & Ba 2014, arXiv:1412.6980, algorithm 1) for the few tensors of a module, such as the critic.

The steps are those of adapters (`agents.optimiser`). `torch.optim.Adam` would import torch's compiler, which takes a
second and 70 MB.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from agents.optimiser import Row, adam_step


class Adam:
    """Moves parameters along their gradients.

    `moments`: by a parameter's number, `step` (), `exp_avg` and `exp_avg_sq` of its shape; none before its first step.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], rate: float):
        self.parameters, self.rate = list(parameters), rate
        self.moments: dict[int, dict[str, Tensor]] = {}

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8) -> None:
        """Take a step with every parameter that has a gradient."""
        for number, parameter in enumerate(self.parameters):
            if parameter.grad is None:
                continue
            if number not in self.moments:
                mean, square = torch.zeros_like(parameter), torch.zeros_like(parameter)
                self.moments[number] = {"step": torch.tensor(0.0), "exp_avg": mean, "exp_avg_sq": square}
            steps, mean, square = (self.moments[number][name] for name in ("step", "exp_avg", "exp_avg_sq"))
            adam_step(Row(parameter, parameter.grad, mean, square, steps, self.rate, beta1, beta2, eps))
