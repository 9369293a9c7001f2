"""Whether policies are still alive to what they read: figures that show a collapse before the reward does.

The signals are those of RAGEN (Wang et al. 2025, arXiv:2504.20073, entropy and mutual information) and of KL control.
"""

import numpy as np
import torch
from torch import Tensor

from agents.policy import Policy
from trainers.rollout import Trajectory


def decisions(
    text: np.ndarray, is_alive: np.ndarray, legal: np.ndarray, agents: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, Tensor]:
    """The distinct decisions of a rollout: whose (R,), after which text (R,), what was allowed (R, A), and the share
    (R,) of an agent's steps.

    text, is_alive: (T, M), legal: (T, M, A), as in a trajectory; with A = 0 only texts are compared.
    """
    step, slot = np.nonzero(is_alive)
    rows = np.column_stack([slot % agents, text[step, slot], legal[step, slot]])
    rows, count = np.unique(rows, axis=0, return_counts=True)
    owner = rows[:, 0]
    share = torch.from_numpy(count / np.bincount(owner, count)[owner]).float()
    return owner, rows[:, 1], rows[:, 2:].astype(bool), share


MOST_STEPS = 64
"""Of a rollout and an agent that are looked at: where hardly any text comes twice, each is a forward pass or two."""


def sampled(is_alive: np.ndarray, agents: int) -> np.ndarray:
    """At most `MOST_STEPS` of each agent's steps, evenly over the rollout; is_alive (T, M) -> (T, M) bool."""
    lived = np.flatnonzero(is_alive)
    owner = lived % is_alive.shape[1] % agents
    is_kept = np.zeros(is_alive.size, bool)
    for agent in range(agents):
        own = lived[owner == agent]
        is_kept[own[np.linspace(0, len(own) - 1, min(MOST_STEPS, len(own))).astype(int)]] = True
    return is_kept.reshape(is_alive.shape)


@torch.no_grad()
def health(policy: Policy, trajectory: Trajectory) -> dict[str, float]:
    """Means over the agents, on a sample of the texts that each read in a rollout, all actions allowed, in nats:

    mutual_information: of text and action; 0 if what is done does not depend on what is read. kl_to_base: KL of the
    agent's actions from those of the model without an adapter.
    """
    agents = len(policy.network.bank)
    is_alive = sampled(trajectory.is_alive, agents)
    owner, text, _, share = decisions(trajectory.text, is_alive, trajectory.legal[..., :0], agents)
    own = torch.from_numpy(policy.logits([trajectory.texts[i] for i in text], owner)).log_softmax(1)
    read, text = np.unique(text, return_inverse=True)
    answers = policy.network.answer([trajectory.texts[i] for i in read], np.full(len(read), -1))
    bare = torch.from_numpy(answers).log_softmax(1)
    who, actions = torch.from_numpy(owner), own.shape[1]
    marginal = torch.zeros(agents, actions).index_add_(0, who, share[:, None] * own.exp())[who].clamp(min=1e-12).log()
    present = max(1, len(np.unique(owner)))

    def mean(figure: Tensor) -> float:  # (R,)
        return float((share * figure).sum() / present)

    return {
        "mutual_information": mean((own.exp() * (own - marginal)).sum(1)),
        "kl_to_base": mean((own.exp() * (own - bare[torch.from_numpy(text)])).sum(1)),
    }
