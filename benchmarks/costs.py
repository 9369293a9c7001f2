"""What the agents of a run cost where they act: time of a decision, memory, and size of the weights."""

import math
import resource
from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors import safe_open

from agents.types import WeightStorage
from agents.weights.compact import compact_file
from benchmarks.memory import in_new_process
from benchmarks.runs import HELD_OUT_EPISODES
from envs.worlds.world import ForageWorld
from trainers.cli.parser import read_config
from trainers.comparison import compare, held_out_seeds
from trainers.population import found_population
from trainers.records.checkpoint import load_newest
from trainers.records.population_state import restore_adapters
from trainers.rollout import collect_rollout
from trainers.variants import acting_config


def measure(run_dir: Path, storage: WeightStorage = "full") -> dict[str, float]:
    """Let the agents of a run act in a held-out world, with nothing computed before, in a process of its own.

    storage: as in the config, full or compact. Returns step_ms, the mean time in which all agents decide; peak_mb, the
    most memory of the process by then, in MiB; megabytes of the weights, in bfloat16 or as compact storage has them;
    and share, of the planner's food in other held-out worlds.
    """
    if storage == "compact":  # the first time, the file with the blocks is written, which takes memory of its own
        in_new_process(_measure_here, run_dir, storage)
    return in_new_process(_measure_here, run_dir, storage)


def _measure_here(run_dir: Path, storage: WeightStorage) -> dict[str, float]:
    newest, tensors, _ = load_newest(run_dir)
    config = acting_config(read_config(run_dir), run_dir, newest)
    config = replace(config, model=replace(config.model, weight_storage=storage, threads=0))
    population = found_population(config)
    restore_adapters(population, tensors)
    rng, world = np.random.default_rng(0), ForageWorld(config.env)
    acted = collect_rollout(population.policy, population.codec, world, held_out_seeds(1, 0), rng)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    base = population.policy.network.base
    if storage == "compact":
        size = compact_file(base.folder, base.name, lambda: None).stat().st_size
    else:
        size = sum(map(bfloat16_bytes, base.folder.glob("*.safetensors")))
    share = compare(population, config.env, HELD_OUT_EPISODES, config.seed)["share_of_planner"]
    step_ms = 1000 * float(acted.decide_s.mean())
    return {"step_ms": step_ms, "peak_mb": peak, "megabytes": size / 1e6, "share": share}


def bfloat16_bytes(file: Path) -> int:
    """Size of the tensors of a safetensors file if all of them were bfloat16."""
    with safe_open(file, "np") as opened:
        return sum(2 * math.prod(opened.get_slice(name).get_shape()) for name in opened.keys())  # noqa: SIM118
