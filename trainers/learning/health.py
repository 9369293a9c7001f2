"""Whether policies are still alive to what they read: figures that show a collapse before the reward does.

The signals are those of RAGEN (Wang et al. 2025, arXiv:2504.20073, entropy and mutual information) and of KL control.
"""

import numpy as np
import torch
from torch import Tensor

from agents.policy import Policy
from trainers.rollout import Trajectory


def texts_read(
    text: np.ndarray, is_alive: np.ndarray, texts: int, agents: int
) -> tuple[np.ndarray, np.ndarray, Tensor]:
    """Who read what in a life: agents (R,), texts (R,) by number, and the share (R,) of an agent's steps.

    text, is_alive: (T, M), as in a trajectory. texts: how many there are.
    """
    count = np.zeros((agents, texts))
    step, slot = np.nonzero(is_alive)
    np.add.at(count, (slot % agents, text[step, slot]), 1)
    owner, number = np.nonzero(count)
    return owner, number, torch.from_numpy(count[owner, number] / count.sum(axis=1)[owner]).float()


@torch.no_grad()
def health(policy: Policy, trajectory: Trajectory) -> dict[str, float]:
    """Means over the agents, on the texts that each read in a life, all actions allowed, in nats:

    mutual_information: of text and action; 0 if what is done does not depend on what is read. kl_to_base: KL of the
    agent's actions from those of the model without an adapter.
    """
    agents = len(policy.mind.bank)
    owner, text, share = texts_read(trajectory.text, trajectory.is_alive, len(trajectory.texts), agents)
    own = torch.from_numpy(policy.logits([trajectory.texts[i] for i in text], owner)).log_softmax(1)
    bare = torch.from_numpy(policy.mind.answer(trajectory.texts, np.full(len(trajectory.texts), -1))).log_softmax(1)
    who, actions = torch.from_numpy(owner), own.shape[1]
    marginal = torch.zeros(agents, actions).index_add_(0, who, share[:, None] * own.exp())[who].clamp(min=1e-12).log()
    lived = len(np.unique(owner))

    def mean(figure: Tensor) -> float:  # (R,)
        return float((share * figure).sum() / lived)

    return {
        "mutual_information": mean((own.exp() * (own - marginal)).sum(1)),
        "kl_to_base": mean((own.exp() * (own - bare[torch.from_numpy(text)])).sum(1)),
    }
