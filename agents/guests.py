"""A policy that acts by adapters that are not in the bank: champions of the past, samples around a mean."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from agents.policy import Policy
from agents.policy_network import PolicyNetwork


class Guests:
    """Answers like a network, by adapters that need not be the bank's (`agents.backends.Backend`)."""

    def __init__(self, network: PolicyNetwork, values: Tensor, is_batched: bool = False):
        """values: (G, F); who answers is a row of it. is_batched: a text that one asks for, all will soon ask for."""
        self.network, self.values = network, values.to(network.device)
        self.is_batched = is_batched and network.is_batched

    def answer(self, texts: Sequence[str], adapters: np.ndarray) -> np.ndarray:
        """Logits (B, A) of the action words after B texts; adapters (B,): rows of the guests."""
        return self.network.answer(texts, adapters, self.values)


def with_guests(policy: Policy, values: Tensor, is_batched: bool = False) -> Policy:
    """The same policy for the adapters `values` (G, F) in place of the bank's; is_batched: as in `Guests`."""
    guests = Policy(policy.network, policy.critic)
    guests.backend = Guests(policy.network, values, is_batched)
    return guests
