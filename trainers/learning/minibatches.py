"""What adapters learn from, and which samples of which agents learn together."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Samples(NamedTuple):
    """S steps of any agents, as tensors."""

    texts: list[str]
    text: np.ndarray  # (S,)
    legal: Tensor  # (S, A) bool
    action: Tensor
    log_prob: Tensor
    advantage: Tensor
    returns: Tensor
    value: Tensor


class Minibatch(NamedTuple):
    """R samples of each of G agents; where an agent has fewer, the rest is filler."""

    groups: Tensor  # (G,) adapters
    samples: Tensor  # (G, R) into the flattened trajectory
    keep: Tensor  # (G, R) bool, False for filler


def minibatches(
    alive: np.ndarray, cohort: slice, size: int, rng: np.random.Generator, is_resting: Tensor
) -> Iterator[Minibatch]:
    """The samples of each agent of a cohort once, in random order, in even parts of at most `size`.

    Who has fewer drops out earlier. alive: (T, W, N) bool, the samples that exist. cohort: a run of the N agents.
    is_resting: (N,) bool, read anew for each minibatch.
    """
    agents = alive.shape[2]
    own = {n: np.flatnonzero(alive[:, :, n].reshape(-1)) for n in range(agents)[cohort]}
    shuffled = {n: rng.permutation(samples) * agents + n for n, samples in own.items() if len(samples)}
    parts = [np.array_split(samples, -(-len(samples) // size)) for samples in shuffled.values()]
    for number in range(max(map(len, parts), default=0)):
        there = {n: p[number] for n, p in zip(shuffled, parts, strict=True) if number < len(p) and not is_resting[n]}
        if there:
            width = max(map(len, there.values()))
            samples = np.stack([np.resize(part, width) for part in there.values()])
            counts = np.array([len(part) for part in there.values()])
            keep = torch.from_numpy(np.arange(width) < counts[:, None])
            yield Minibatch(torch.tensor(list(there)), torch.from_numpy(samples), keep)
