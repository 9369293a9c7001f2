"""How well a plain network learns to forage, and from how much experience.

    python -m benchmarks.mlp [--preset NAME] [--sees view|map] [--steps N] [--worlds N] [--epochs N]
                             [--seed S] [--json FILE] [--plot FILE]

The learner is the MaskablePPO of sb3-contrib (Huang and Ontañón 2022) with two MLPs of two hidden layers, for actions
and for values; all twenty agents of each training world share them. Its input is what an agent sees now, as numbers:
no text, no memory. With --sees map it is what the language model's texts are made of, as numbers. The networks start
from random weights; they are the baseline for the language model.

At steps a constant factor apart, all twenty agents of each held-out world act by what was learned so far, once drawing
actions, as in training, and once taking the likeliest. The first is the result: an agent without memory that always
takes the likeliest action can walk to and fro for ever. Seconds are CPU time of the training alone. Needs the extra
`sb3`, and matplotlib for a plot.
"""

import argparse
import json
from importlib.metadata import version
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import torch
from sb3_contrib import MaskablePPO
from stable_baselines3.common.callbacks import BaseCallback

from benchmarks.map_features import MapFeatures, MapVecEnv
from envs import WorldConfig
from envs.bots import bots, by_sight, play
from envs.presets import PRESETS, preset
from envs.sb3 import ForageVecEnv
from trainers.cli.command_line import run_command
from trainers.comparison import held_out_seeds, interval, interval_text, play_bot
from trainers.records.run_folder import machine

HIDDEN = [128, 128]
SETTINGS: dict[str, Any] = {
    "n_steps": 64,
    "gamma": 0.95,
    "gae_lambda": 0.9,
    "ent_coef": 0.003,
}
LEARNING_RATE = 1e-3
"""At the start; it falls linearly to 0."""


def food_eaten(model: MaskablePPO, world: WorldConfig, seeds: np.ndarray, *, draws: bool, sees_map: bool) -> np.ndarray:
    """Food per agent (W,) in the worlds of `seeds`, where all agents act by the model; dead agents count."""
    features, last = MapFeatures(world.view_radius), np.full(len(seeds) * world.agents, -1)

    def policy(observations: np.ndarray, legal: np.ndarray) -> np.ndarray:
        seen = features.update(observations, last) if sees_map else observations
        last[:] = model.predict(seen, action_masks=legal, deterministic=not draws)[0]
        return last

    state, _ = play(by_sight(world, policy), world, seeds)
    return state.food_eaten.mean(axis=1)


class Curve(BaseCallback):
    """Evaluates when training has reached each of `marks` agent-steps, and leaves no trace in the training."""

    model: MaskablePPO

    def __init__(
        self, marks: np.ndarray, world: WorldConfig, seeds: np.ndarray, planner: float, *, sees_map: bool
    ) -> None:
        """marks: when to evaluate. seeds: of the worlds to evaluate in. planner: the food that it eats there."""
        super().__init__()
        self.sees_map = sees_map
        self.marks, self.world, self.seeds, self.planner = marks.tolist(), world, seeds, planner
        self.rows: list[dict[str, Any]] = []
        self._start, self._spent = process_time(), 0.0

    def _on_rollout_start(self) -> None:
        if self.marks and self.num_timesteps >= self.marks[0]:
            self.evaluate()

    def _on_step(self) -> bool:
        return True

    def evaluate(self) -> None:
        """Add a row to the curve, and print it."""
        self.marks = [mark for mark in self.marks if mark > self.num_timesteps]
        now = process_time()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            drawn, likeliest = (
                interval(food_eaten(self.model, self.world, self.seeds, draws=draws, sees_map=self.sees_map))
                for draws in (True, False)
            )
        share, seconds = drawn["mean"] / self.planner, now - self._start - self._spent
        row = {"steps": self.num_timesteps, "seconds": seconds, "food": drawn, "share_of_planner": share}
        self.rows.append(row | {"food_of_likeliest_action": likeliest})
        self._spent += process_time() - now
        figures = f"{interval_text(drawn):18s} {share:7.0%}   {likeliest['mean']:9.1f}"
        print(f"{self.num_timesteps:11,d} {seconds:8.0f}   {figures}", flush=True)


def draw_plot(result: dict[str, Any], file: Path) -> None:
    """Write the curve as a picture, steps on a logarithmic axis, with a line for each baseline."""
    from matplotlib.figure import Figure  # here, so that only those who want a picture need it

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    rows = [row for row in result["curve"] if row["steps"]]
    steps = [row["steps"] for row in rows]
    low, mean, high = ([row["food"][key] for row in rows] for key in ("low", "mean", "high"))
    axes.plot(steps, mean, marker="o", markersize=3, label="MLP, drawn actions")
    axes.fill_between(steps, low, high, alpha=0.25)
    likeliest = [row["food_of_likeliest_action"]["mean"] for row in rows]
    axes.plot(steps, likeliest, "--", linewidth=1, label="MLP, likeliest action")
    for name, food in result["baselines"].items():
        axes.axhline(food["mean"], color="grey", linewidth=0.8)
        axes.annotate(name, (steps[0], food["mean"]), xytext=(0, 2), textcoords="offset points", color="grey")
    axes.set(xscale="log", ylim=(0, None), xlabel="steps of single agents", ylabel="food eaten per agent")
    axes.set_title(
        f"MaskablePPO on {result['preset']}, {len(result['seeds'])} held-out worlds, seed {result['seed']}", fontsize=10
    )
    axes.legend(loc="upper left", bbox_to_anchor=(0.0, 0.9))
    figure.savefig(file, dpi=120)


def main() -> None:
    """Train, print the curve, and write it to files if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="meadow", choices=sorted(PRESETS), help="the world (meadow)")
    parser.add_argument("--sees", default="view", choices=("view", "map"), help="what goes in as numbers (view)")
    parser.add_argument("--steps", type=int, default=4_000_000, help="steps of single agents to learn from (4000000)")
    parser.add_argument("--worlds", type=int, default=16, help="worlds to learn in at once (16; for few steps 2)")
    parser.add_argument("--epochs", type=int, default=4, help="passes over each rollout (4; for few steps 10)")
    parser.add_argument("--seed", type=int, default=0, help="of the network, the actions and all worlds (0)")
    parser.add_argument("--episodes", type=int, default=32, help="held-out worlds to play (32)")
    parser.add_argument("--marks", type=int, default=16, help="rows of the curve (16)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE")
    options = parser.parse_args()
    torch.set_num_threads(1)  # so small a network is faster on one

    config, seeds = preset(options.preset), held_out_seeds(options.episodes, options.seed)
    food = {name: play_bot(bot, config, seeds).figures["food_eaten"] for name, bot in bots(config).items()}
    baselines = {name: interval(food[name].mean(axis=1)) for name in food}
    print(f"{options.preset}, {len(seeds)} held-out worlds, food eaten per agent, mean with 95 % interval")
    for name, figure in baselines.items():
        print(f"{name:20s}   {interval_text(figure):18s} {figure['mean'] / baselines['planner']['mean']:7.0%}")

    env, sees_map = ForageVecEnv(options.preset, worlds=options.worlds), options.sees == "map"
    settings = SETTINGS | {"batch_size": 128 * options.worlds, "n_epochs": options.epochs}
    model = MaskablePPO(
        "MlpPolicy",
        MapVecEnv(env) if sees_map else env,
        learning_rate=lambda left: LEARNING_RATE * left,
        policy_kwargs={"net_arch": HIDDEN},
        seed=options.seed,
        device="cpu",
        **settings,
    )
    marks = np.concatenate([[0], np.geomspace(SETTINGS["n_steps"] * env.num_envs, options.steps, options.marks - 1)])
    curve = Curve(marks.astype(int)[:-1], config, seeds, baselines["planner"]["mean"], sees_map=sees_map)
    print("agent-steps  seconds   MLP, drawn         planner   likeliest")
    model.learn(options.steps, callback=curve)
    curve.evaluate()

    result = {
        "machine": machine(),
        "stable_baselines3": version("stable_baselines3"),
        "algorithm": "MaskablePPO",
        "settings": settings | {"learning_rate": LEARNING_RATE, "hidden": HIDDEN, "worlds": options.worlds},
        "preset": options.preset,
        "sees": options.sees,
        "seed": options.seed,
        "seeds": seeds.tolist(),
        "baselines": baselines,
        "curve": curve.rows,
    }
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    if options.plot:
        draw_plot(result, options.plot)


if __name__ == "__main__":
    run_command(main)
