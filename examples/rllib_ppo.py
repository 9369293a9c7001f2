"""RLlib: twenty agents of the meadow share one policy, trained by PPO on the PettingZoo interface.

    python -m examples.rllib_ppo [--steps N]

RLlib holds gymnasium back, so it lives in an environment of its own: `make example-rllib` makes it and runs this.
`ParallelPettingZooEnv` lists the agents in another order than the world, which does not matter here: all of them map
to the policy "forager". Who dies leaves; RLlib neither acts for it nor learns from it any more. Its PPO knows no action
masks: a move into rock leaves the agent in place.
"""

import argparse
import os

import ray
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.env.wrappers.pettingzoo_env import ParallelPettingZooEnv
from ray.tune.registry import register_env

from envs import forage_v0
from examples._score import score

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--steps", type=int, default=200_000, help="steps of single agents to learn from (200000)")
steps = parser.parse_args().steps
rollout = min(steps, 10_000)
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # nothing of this needs a network
ray.init(num_cpus=1, include_dashboard=False, logging_level="ERROR")
register_env("meadow", lambda options: ParallelPettingZooEnv(forage_v0.parallel_env("meadow", **options)))

algorithm = (
    PPOConfig()
    .environment("meadow")
    .multi_agent(
        policies={"forager"},
        policy_mapping_fn=lambda agent, *args, **kwargs: "forager",
        count_steps_by="agent_steps",
    )
    .env_runners(num_env_runners=0)  # in this process; a number above 0 collects on as many cores
    .rl_module(
        model_config=DefaultModelConfig(fcnet_hiddens=[128, 128], fcnet_activation="tanh", vf_share_layers=False)
    )
    .training(
        train_batch_size_per_learner=rollout,
        minibatch_size=min(rollout, 1024),
        num_epochs=6,
        lr=1e-3,
        gamma=0.98,
        lambda_=0.95,
        clip_param=0.2,
        entropy_coeff=0.01,
        vf_loss_coeff=0.5,
        grad_clip=0.5,
        use_kl_loss=False,
    )
    .debugging(seed=0, log_level="ERROR")
    .build_algo()
)
for done in range(0, steps, rollout):
    result = algorithm.train()["env_runners"]
    reward = result.get("episode_return_mean", float("nan"))  # where no episode has ended yet
    print(f"{done + rollout} steps, reward of all agents in an episode {reward:.1f}", flush=True)
module = algorithm.get_module("forager")


def learned(observations, legal):
    """Draw actions (R,) from the policy."""
    with torch.no_grad():
        logits = module.forward_inference({Columns.OBS: torch.as_tensor(observations)})[Columns.ACTION_DIST_INPUTS]
    return torch.distributions.Categorical(logits=logits).sample().numpy()


score(learned)
ray.shutdown()
