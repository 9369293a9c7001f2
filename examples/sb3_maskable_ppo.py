"""sb3-contrib's MaskablePPO: agents that never try to walk into rock.

    python -m examples.sb3_maskable_ppo [--steps N]

Needs `pip install -e '.[sb3]'`. `ForageVecEnv` answers for the masks, no wrapper is needed.
"""

import argparse

import torch
from sb3_contrib import MaskablePPO
from stable_baselines3.common.vec_env import VecMonitor

from envs.sb3 import ForageVecEnv
from examples._score import score

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--steps", type=int, default=1_000_000, help="steps of single agents to learn from (1000000)")
args = parser.parse_args()
torch.set_num_threads(1)  # so small a network is faster on one

model = MaskablePPO(
    "MlpPolicy",
    VecMonitor(ForageVecEnv("meadow", worlds=8)),  # 8 worlds of 20 agents are 160 environments
    n_steps=64,
    batch_size=2048,
    n_epochs=4,
    learning_rate=1e-3,
    gamma=0.95,
    gae_lambda=0.9,
    ent_coef=0.01,
    seed=0,
    device="cpu",
    verbose=1,
)
model.learn(args.steps, log_interval=10)
score(lambda observations, legal: model.predict(observations, action_masks=legal)[0])
