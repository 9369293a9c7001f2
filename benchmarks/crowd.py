"""What each agent costs where there is one, and where there are a thousand: time of a step and of learning, and memory.

    python -m benchmarks.crowd [--agents 1 20 100 1000] [--steps N] [--json FILE] [--plot FILE]

The world grows with the number of agents, its density does not. There are two rollouts; agents learn from the second,
of which the mean time of a step is shown. Each number of agents has a process of its own, whose memory is measured: all
of it, and what it holds over the imports.
"""

import argparse
import json
from dataclasses import replace
from math import ceil, sqrt
from pathlib import Path
from time import perf_counter

from benchmarks.memory import highest_mb, in_new_process, resident_mb
from envs import WorldConfig
from envs.presets import preset
from trainers.cli.command_line import run_command

COLUMNS = {
    "step_ms": "step",
    "step_ms_per_agent": "step, an agent",
    "learn_ms_per_agent": "learning, an agent",
    "end_mb_per_agent": "memory over imports, an agent",
    "highest_mb": "whole process at its highest",
}


def meadow_for(agents: int) -> WorldConfig:
    """The meadow; for more than twenty agents, with as much room and food for each as twenty have there."""
    meadow = preset("meadow")
    times = max(1.0, agents / meadow.agents)
    patches = min(64, round(meadow.patches * times))  # the most there can be: beyond it, they are larger
    side = (2 * meadow.patch_radius + 1) * sqrt(meadow.patches * times / patches)
    return replace(
        meadow,
        agents=agents,
        width=round(meadow.width * sqrt(times)),
        height=round(meadow.height * sqrt(times)),
        food=round(meadow.food * times),
        patches=patches,
        patch_radius=ceil((side - 1) / 2),
    )


def measure(agents: int, steps: int) -> dict[str, float]:
    """The figures of one number of agents, in this process."""
    import numpy as np
    import torch

    from agents.codecs.forage import ForageCodec
    from benchmarks.subject import mature_policy
    from envs.worlds.world import ForageWorld
    from trainers.learning.config import LearnConfig
    from trainers.learning.learner import make_learner
    from trainers.rollout import collect_rollout

    imports = resident_mb()
    policy = mature_policy(agents)
    world = replace(meadow_for(agents), max_steps=steps, energy_start=100.0, cost_step=0.0)
    codec, rng = ForageCodec(world.view_radius), np.random.default_rng(0)
    for seed in (0, 1):
        policy.answers.forget()
        collected = collect_rollout(policy, codec, ForageWorld(world), np.array([seed]), rng)
    learner, start = make_learner(policy, LearnConfig()), perf_counter()
    experience = learner.experience(collected.trajectory, torch.full((agents,), 1e-4), torch.zeros(agents))
    learner.learn(experience, rng)
    learner.critic.learn(collected.trajectory, experience.returns, rng)
    learn_s = perf_counter() - start
    step_ms = 1000 * float(np.mean(collected.decide_s))
    return {
        "agents": agents,
        "step_ms": step_ms,
        "step_ms_per_agent": step_ms / agents,
        "learn_ms_per_agent": 1000 * learn_s / agents,
        "end_mb_per_agent": (resident_mb() - imports) / agents,
        "highest_mb": highest_mb(),
    }


def draw_plot(rows: list[dict[str, float]], file: Path) -> None:
    """Time and memory of each agent against how many there are."""
    from matplotlib.figure import Figure  # here, so that only those who want a picture need it

    figure = Figure(figsize=(8, 3), layout="constrained")
    for axes, keys, unit in zip(
        figure.subplots(1, 2),
        (("step_ms_per_agent", "learn_ms_per_agent"), ("end_mb_per_agent",)),
        ("milliseconds", "MiB"),
        strict=True,
    ):
        for key in keys:
            axes.loglog([row["agents"] for row in rows], [row[key] for row in rows], "o-", label=COLUMNS[key])
        axes.set(xlabel="agents", ylabel=unit)
        axes.legend()
    figure.savefig(file, dpi=120)


def main() -> None:
    """Measure each number in its process, print a table, and write rows and picture if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, nargs="+", default=[1, 20, 100, 1000])
    parser.add_argument("--steps", type=int, default=128, help="of each rollout (128)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE")
    options = parser.parse_args()
    rows = []
    print(f"{'agents':>8s} " + " ".join(f"{title:>30s}" for title in COLUMNS.values()))
    for agents in options.agents:
        rows.append(in_new_process(measure, agents, options.steps))
        units = ("ms" if "_ms" in key else "MiB" for key in COLUMNS)
        cells = (f"{rows[-1][key]:.3g} {unit}" for key, unit in zip(COLUMNS, units, strict=True))
        print(f"{agents:8d} " + " ".join(f"{cell:>30s}" for cell in cells), flush=True)
    if options.json:
        from trainers.records.run_folder import machine

        options.json.write_text(
            json.dumps({"machine": machine(), "steps": options.steps, "rows": rows}, indent=2) + "\n"
        )
    if options.plot:
        draw_plot(rows, options.plot)


if __name__ == "__main__":
    run_command(main)
