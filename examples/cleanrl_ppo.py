"""PPO in one file of plain PyTorch, with the names of CleanRL's ppo.py (Huang et al. 2022), to be read top to bottom.

    python -m examples.cleanrl_ppo [--steps N]

It departs from CleanRL where that takes a truncated episode for a death: where the time of a world is over, the value
of the last observation stands for the rewards that would have followed (Pardo et al. 2018).
Needs `pip install -e '.[sb3]'`.
"""

import argparse

import torch
from torch import nn
from torch.distributions import Categorical

from envs.sb3 import ForageVecEnv
from examples._score import score

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--steps", type=int, default=1_000_000, help="steps of single agents to learn from (1000000)")
args = parser.parse_args()
torch.set_num_threads(1)  # so small a network is faster on one
torch.manual_seed(0)
num_steps, minibatch_size, update_epochs, learning_rate = 64, 2048, 4, 1e-3
gamma, gae_lambda, clip_coef, ent_coef, vf_coef, max_grad_norm = 0.95, 0.9, 0.2, 0.01, 0.5, 0.5


def layer_init(layer: nn.Linear, std: float = 2**0.5) -> nn.Linear:
    """Return the layer with orthogonal weights of this gain and no bias."""
    nn.init.orthogonal_(layer.weight, std)
    nn.init.zeros_(layer.bias)
    return layer


def mlp(inputs: int, outputs: int, std: float) -> nn.Sequential:
    """Return a network with two hidden layers; std is the gain of the last one."""
    first, second = layer_init(nn.Linear(inputs, 64)), layer_init(nn.Linear(64, 64))
    return nn.Sequential(first, nn.Tanh(), second, nn.Tanh(), layer_init(nn.Linear(64, outputs), std))


envs = ForageVecEnv("meadow", worlds=8, seed=0)  # 8 worlds of 20 agents are 160 environments
num_envs, (size,) = envs.num_envs, envs.observation_space.shape
actor, critic = mlp(size, envs.action_space.n, std=0.01), mlp(size, 1, std=1.0)
parameters = [*actor.parameters(), *critic.parameters()]
optimizer = torch.optim.Adam(parameters, lr=learning_rate, eps=1e-5)
obs = torch.zeros(num_steps, num_envs, size)
actions, logprobs, rewards, dones, values = torch.zeros(5, num_steps, num_envs)

next_obs = torch.from_numpy(envs.reset())
global_step = 0
while global_step < args.steps:
    for step in range(num_steps):
        with torch.no_grad():
            probs = Categorical(logits=actor(next_obs))
            action, obs[step], values[step] = probs.sample(), next_obs, critic(next_obs).flatten()
        actions[step], logprobs[step] = action, probs.log_prob(action)
        observation, reward, done, infos = envs.step(action.numpy())
        next_obs, rewards[step], dones[step] = map(torch.as_tensor, (observation, reward, done))
        global_step += num_envs
        for i, info in enumerate(infos):
            if info["TimeLimit.truncated"]:  # not dead: more would have followed
                with torch.no_grad():
                    rewards[step, i] += gamma * critic(torch.from_numpy(info["terminal_observation"])).item()
        if done.all():  # all worlds have the same age
            print(f"{global_step=}, food_eaten={sum(info['food_eaten'] for info in infos) / num_envs:.1f}")

    with torch.no_grad():
        nextvalue, lastgaelam, advantages = critic(next_obs).flatten(), 0, torch.zeros_like(rewards)
    for t in reversed(range(num_steps)):
        delta = rewards[t] + gamma * nextvalue * (1 - dones[t]) - values[t]
        advantages[t] = lastgaelam = delta + gamma * gae_lambda * (1 - dones[t]) * lastgaelam
        nextvalue = values[t]
    returns = advantages + values

    b_obs = obs.flatten(0, 1)
    b_actions, b_logprobs, b_advantages, b_returns = map(torch.flatten, (actions, logprobs, advantages, returns))
    for _ in range(update_epochs):
        for mb_inds in torch.randperm(len(b_obs)).split(minibatch_size):
            probs = Categorical(logits=actor(b_obs[mb_inds]))
            ratio = (probs.log_prob(b_actions[mb_inds]) - b_logprobs[mb_inds]).exp()
            mb_advantages = b_advantages[mb_inds]
            mb_advantages = (mb_advantages - mb_advantages.mean()) / (mb_advantages.std() + 1e-8)
            clipped = ratio.clamp(1 - clip_coef, 1 + clip_coef)
            pg_loss = torch.max(-mb_advantages * ratio, -mb_advantages * clipped).mean()
            v_loss = 0.5 * ((critic(b_obs[mb_inds]).flatten() - b_returns[mb_inds]) ** 2).mean()
            loss = pg_loss - ent_coef * probs.entropy().mean() + vf_coef * v_loss
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, max_grad_norm)
            optimizer.step()


@torch.no_grad()
def policy(observations, legal):
    """Draw an action for each agent."""
    return Categorical(logits=actor(torch.from_numpy(observations))).sample().numpy()


score(policy)
