"""AgileRL: twenty agents of the meadow share one policy, trained by IPPO on the PettingZoo interface.

    python -m examples.agilerl_ippo [--steps N]

AgileRL holds gymnasium back, so it lives in an environment of its own: `make example-agilerl` makes it and runs this.
Agents that are named alike, forager_0 and forager_1, share a network there. Three things of its version 2.58:
it fills in NaN for who has left, so the dead stay (`on_death="absorb"`); it acts with action masks but learns without
them, so they are kept from it; and it mixes up the agents of a group when it learns, which `SharedIPPO` mends.
"""

import argparse

import numpy as np
import torch
from agilerl.algorithms import IPPO
from agilerl.training.train_multi_agent_on_policy import train_multi_agent_on_policy
from pettingzoo.utils import BaseParallelWrapper

from envs import forage_v0
from examples._score import score

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--steps", type=int, default=240_000, help="steps of single agents to learn from (240000)")
steps = -(-parser.parse_args().steps // 20)  # of the world
torch.manual_seed(0)
np.random.seed(0)  # AgileRL shuffles with it
torch.set_num_threads(1)


class WithoutInfos(BaseParallelWrapper):
    """Keeps infos, and with them the action masks, from those who listen."""

    def reset(self, seed=None, options=None):
        """Begin an episode."""
        observations, infos = super().reset(seed, options)
        return observations, {agent: {} for agent in infos}

    def step(self, actions):
        """Step the world."""
        *results, infos = super().step(actions)
        return *results, {agent: {} for agent in infos}


class SharedIPPO(IPPO):
    """IPPO orders observations by agent and advantages by time; with one agent in twenty worlds that is the same."""

    def learn(self, experiences):
        """Learn from eight fields, each {agent: T arrays of one row} or, of the last moment, {agent: array}."""
        return super().learn(tuple(map(_as_one_agent, experiences)))


def _as_one_agent(field):
    rows = list(field.values())
    if isinstance(rows[0], list):
        return {"forager_0": [np.concatenate(row) for row in zip(*rows, strict=True)]}
    return {"forager_0": np.concatenate(rows)}


env = WithoutInfos(forage_v0.parallel_env("meadow", on_death="absorb"))
env.reset(seed=0)
agents = env.possible_agents
learner = SharedIPPO(
    [env.observation_space(agent) for agent in agents],
    [env.action_space(agent) for agent in agents],
    agent_ids=agents,
    net_config={"encoder_config": {"hidden_size": [128]}, "head_config": {"hidden_size": [128]}},
    learn_step=min(steps, 512),
    batch_size=1024,
    update_epochs=6,
    lr=1e-3,
    gamma=0.98,
    gae_lambda=0.95,
    ent_coef=0.01,
)
train_multi_agent_on_policy(env, "meadow", "IPPO", [learner], max_steps=steps, evo_steps=min(steps, 2048))
actor = learner.actors["forager"]


def learned(observations, legal):
    """Draw actions (R,) from the policy."""
    with torch.no_grad():
        actions, _, _ = actor(torch.as_tensor(observations))
    return actions.numpy()


score(learned)
