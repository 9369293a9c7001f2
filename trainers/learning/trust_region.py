"""Keep an adapter near the one that acted."""

import torch
from torch import Tensor

from agents.lora import AdapterBank


def rein_in(bank: AdapterBank, groups: Tensor, kl: Tensor, before: Tensor, max_kl: float) -> Tensor:
    """Shorten the way that adapters with too much KL have come since `before`; returns which those are, (G,) bool.

    Each is brought back on the straight way to where it was, as far as would leave it at `max_kl` if KL grew with the
    square of the way (as it does near the start, Schulman et al. 2015, arXiv:1502.05477). One whose KL or weights are
    not finite goes back all the way. groups: (G,) rows of the bank. kl: (G,). before: (G, F).
    """
    strayed = ~(kl <= max_kl)  # true for NaN
    if strayed.any():
        rows, start = groups[strayed], before[strayed]
        share = (max_kl / kl[strayed]).sqrt()[:, None]
        shortened = start + share * (bank.values[rows] - start)
        bank.values[rows] = torch.where(shortened.isfinite(), shortened, start)
    return strayed
