"""The critic: how much reward a text promises. Shared by all agents, and trained apart from them.

Its input is the answer token's hidden state below the adapters, detached: the critic costs no pass through the
model and can never move an adapter.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ValueHead(nn.Module):
    """A small perceptron on the base's features."""

    def __init__(self, width: int, hidden: int = 64, seed: int = 0):
        super().__init__()
        first, last = nn.Linear(width, hidden), nn.Linear(hidden, 1)
        self.layers = nn.Sequential(first, nn.Tanh(), last)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for layer, gain in ((first, 1.0), (last, 0.1)):
                layer.weight.normal_(0.0, gain * layer.in_features**-0.5, generator=generator)
                layer.bias.zero_()

    def forward(self, features: Tensor) -> Tensor:
        """Values (B,) of features (B, D), which are normalised first: some of their dimensions are huge."""
        features = F.layer_norm(features.detach().float(), features.shape[-1:])
        return self.layers(features)[:, 0]
