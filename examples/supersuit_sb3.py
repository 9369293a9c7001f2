"""The PettingZoo way: SuperSuit makes one vector of all agents of some worlds, Stable-Baselines3's PPO learns from it.

    python -m examples.supersuit_sb3 [--steps N]

Needs `pip install -e '.[sb3]' supersuit`. SuperSuit wants the same agents in every step, so the dead stay
(`on_death="absorb"`), and PPO is not told whether a world ended or was cut off. `examples.sb3_ppo` gives the slots of
the dead to newborns, says which end it was, and steps faster.
"""

import argparse

import supersuit
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import VecMonitor

from envs import forage_v0
from examples._score import score

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--steps", type=int, default=1_000_000, help="steps of single agents to learn from (1000000)")
args = parser.parse_args()
torch.set_num_threads(1)  # so small a network is faster on one

env = supersuit.pettingzoo_env_to_vec_env_v1(forage_v0.parallel_env("meadow", on_death="absorb"))
envs = supersuit.concat_vec_envs_v1(env, 8, base_class="stable_baselines3")
set_random_seed(0)  # of the network; SuperSuit has no method for PPO's own argument `seed`
envs.venv.reset(seed=0)  # worlds 0 to 7, and those that follow on them

model = PPO(
    "MlpPolicy",
    VecMonitor(envs),
    n_steps=64,
    batch_size=2048,
    n_epochs=4,
    learning_rate=1e-3,
    gamma=0.95,
    gae_lambda=0.9,
    ent_coef=0.01,
    device="cpu",
    verbose=1,
)
model.learn(args.steps, log_interval=10)
score(lambda observations, legal: model.predict(observations)[0])
