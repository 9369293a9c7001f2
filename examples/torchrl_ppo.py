"""TorchRL: twenty agents of the meadow share one policy, trained by PPO on the PettingZoo interface.

    python -m examples.torchrl_ppo [--steps N]

Needs `pip install torchrl`. `PettingZooWrapper` stacks all foragers into the group "forager", so one MLP reads
(T, N, O) and all agents carry the same weights. TorchRL acts for the dead too, so they stay (`on_death="absorb"`); what
they did is not learned from.
"""

import argparse

import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn
from torchrl.collectors import Collector
from torchrl.envs import PettingZooWrapper
from torchrl.modules import MLP, MaskedCategorical, ProbabilisticActor, ValueOperator
from torchrl.objectives import ClipPPOLoss, ValueEstimators

from envs import forage_v0
from examples._score import score

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--steps", type=int, default=160_000, help="steps of single agents to learn from (160000)")
steps = -(-parser.parse_args().steps // 20)  # of the world
rollout = min(steps, 512)
torch.manual_seed(0)
torch.set_num_threads(1)


ENERGY = -4  # its place in an observation

env = PettingZooWrapper(forage_v0.parallel_env("meadow", on_death="absorb"), done_on_any=False, seed=0)
OBSERVATION, LOGITS, VALUE = ("forager", "observation"), ("forager", "logits"), ("forager", "state_value")
observation_size = env.observation_spec[OBSERVATION].shape[-1]

actor = MLP(observation_size, 5, num_cells=[128, 128], activation_class=nn.Tanh)
policy = ProbabilisticActor(
    TensorDictModule(actor, in_keys=[OBSERVATION], out_keys=[LOGITS]),
    in_keys={"logits": LOGITS, "mask": ("forager", "action_mask")},
    out_keys=[env.action_key],
    distribution_class=MaskedCategorical,
    return_log_prob=True,
    log_prob_key=("forager", "log_prob"),
)
critic = ValueOperator(
    MLP(observation_size, 1, num_cells=[128, 128], activation_class=nn.Tanh), in_keys=[OBSERVATION], out_keys=[VALUE]
)
loss_of = ClipPPOLoss(policy, critic, clip_epsilon=0.2, entropy_coeff=0.01, critic_coeff=0.5, normalize_advantage=True)
loss_of.set_keys(
    action=env.action_key,
    reward=env.reward_key,
    sample_log_prob=("forager", "log_prob"),
    value=VALUE,
    advantage=("forager", "advantage"),
    value_target=("forager", "value_target"),
    done=("forager", "done"),
    terminated=("forager", "terminated"),
)
loss_of.make_value_estimator(ValueEstimators.GAE, gamma=0.98, lmbda=0.95)
optimizer = torch.optim.Adam(loss_of.parameters(), lr=1e-3)

taken = 0
collector = Collector(env, policy, frames_per_batch=rollout, total_frames=steps, auto_register_policy_transforms=False)
for batch in collector:
    with torch.no_grad():
        loss_of.value_estimator(batch)
    is_alive = batch[OBSERVATION][..., ENERGY] > 0
    acted = batch["forager"][is_alive]  # (M,), all moments of all who lived
    for _ in range(6):
        for rows in torch.randperm(len(acted)).split(1024):
            losses = loss_of(TensorDict({"forager": acted[rows]}, [len(rows)]))
            optimizer.zero_grad()
            (losses["loss_objective"] + losses["loss_critic"] + losses["loss_entropy"]).backward()
            nn.utils.clip_grad_norm_(loss_of.parameters(), 0.5)
            optimizer.step()
    taken += len(acted)
    reward = batch["next", "forager", "reward"][is_alive].mean()
    print(f"{taken} steps, reward of an agent in each {reward:.3f}", flush=True)
collector.shutdown()


def learned(observations, legal):
    """Draw actions (R,) from the policy."""
    with torch.no_grad():
        logits = actor(torch.as_tensor(observations))
    return MaskedCategorical(logits=logits, mask=torch.as_tensor(legal)).sample().numpy()


score(learned)
