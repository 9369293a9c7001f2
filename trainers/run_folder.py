"""The run folder: what is in it, opening one anew, continuing one, reading one.

config.yaml  run.json  metrics.jsonl  lineage.jsonl  results.json  tb/  checkpoints/  adapters/
"""

import json
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from agents.fetch import sha256_of
from trainers.checkpoint import DamagedRun, checkpoints, load_checkpoint
from trainers.colony import Colony, found_colony, restore_colony
from trainers.config import TrainConfig
from trainers.parser import config_from_file, config_to_yaml


def require_free(run_dir: Path) -> None:
    """Raise ValueError if something is at `run_dir` already."""
    if run_dir.exists() and (not run_dir.is_dir() or any(run_dir.iterdir())):
        raise ValueError(
            f"run_dir = {str(run_dir)!r}: must be empty or not exist; to go on with its run, use --resume {run_dir}"
        )


def create(run_dir: Path, config: TrainConfig, colony: Colony) -> None:
    """Make a new run folder, with config.yaml and run.json: what it takes to know where its figures came from."""
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / "config.yaml").write_text(config_to_yaml(config))
    base = colony.policy.mind.base
    record = {
        "command": sys.argv,
        "seed": config.seed,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "git_commit": git_commit(),
        "versions": {name: version(name) for name in ("torch", "transformers", "numpy", "gymnasium", "pettingzoo")}
        | {"python": platform.python_version()},
        "model": config.model.name,
        "model_sha256": {f.name: sha256_of(f) for f in sorted(base.folder.glob("*.safetensors"))},
        "machine": machine(),
    }
    (run_dir / "run.json").write_text(json.dumps(record, indent=2) + "\n")


def git_commit() -> str | None:
    """Commit of the code, None outside a checkout."""
    here = Path(__file__).parent
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None if done.returncode == 0 else None


def machine() -> dict[str, Any]:
    """The processor and how much of it torch uses."""
    import torch

    name = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [
            line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        name = names[0] if names else name
    return {"cpu": name, "capability": torch.backends.cpu.get_cpu_capability(), "threads": torch.get_num_threads()}


def read_config(run_dir: Path) -> TrainConfig:
    """The config of a run; DamagedRun if the folder holds none that can be read."""
    if not run_dir.is_dir():
        raise DamagedRun(f"{run_dir}: no such folder; must be the folder of a run")
    file = run_dir / "config.yaml"
    if not file.is_file():
        raise DamagedRun(f"{file}: missing; {run_dir} must be the folder of a run")
    try:
        return config_from_file(file)
    except ValueError as error:
        raise DamagedRun(f"{file}: damaged ({error})") from error


def restore(run_dir: Path, config: TrainConfig) -> tuple[Colony, dict[str, Any]]:
    """The colony of the newest checkpoint, and that checkpoint's state; DamagedRun if there is none that fits."""
    found = checkpoints(run_dir)
    if not found:
        raise DamagedRun(f"{run_dir / 'checkpoints'}: holds no checkpoint; the run must be started anew")
    folder = found[max(found)]
    tensors, state = load_checkpoint(folder)
    colony = found_colony(config)
    try:
        restore_colony(colony, tensors, state["colony"])
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise DamagedRun(f"{folder}: does not fit {run_dir / 'config.yaml'} ({error})") from error
    return colony, state


def truncate_lines(file: Path, last_generation: int) -> None:
    """Drop the lines of a JSONL file that are of later generations: they will be lived again."""
    if not file.is_file():
        return
    lines = [line for line in file.read_text().splitlines() if line.strip()]
    try:
        kept = [line for line in lines if json.loads(line)["generation"] <= last_generation]
    except (ValueError, KeyError, TypeError):
        # A kill can cut the last line short; anything else is damage that nobody should paper over.
        try:
            kept = [line for line in lines[:-1] if json.loads(line)["generation"] <= last_generation]
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedRun(f"{file}: damaged ({error})") from error
    file.write_text("".join(line + "\n" for line in kept))


def export_adapters(run_dir: Path, generation: int, config: TrainConfig, colony: Colony) -> Path:
    """Write every agent's adapter in PEFT's format, and return their folder."""
    folder = run_dir / "adapters" / f"gen_{generation:04d}"
    for slot, genome in enumerate(colony.population):
        card = (
            f"Agent {genome.id}, born in generation {genome.generation} ({genome.operator}, "
            f"parents {list(genome.parents)}), "
            f"after generation {generation} of a run with seed {config.seed}: fitness {genome.fitness:.2f}."
        )
        colony.policy.mind.save_adapter(slot, folder / f"agent_{slot:02d}", card)
    return folder


def open_run(run_dir: Path, generation: int | None = None) -> tuple[Colony, TrainConfig, int]:
    """A colony with the adapters of a generation (the newest if None), for looking at; with its config.

    Raises DamagedRun if the run cannot be read, ValueError if that generation's adapters were not exported.
    """
    config = read_config(run_dir)
    exported = {int(f.name[4:]): f for f in sorted((run_dir / "adapters").glob("gen_[0-9]*"))}
    saved = checkpoints(run_dir)
    if generation is None:
        generation = max([*saved, *exported], default=-1)
    if generation not in saved and generation not in exported:
        known = ", ".join(map(str, sorted({*saved, *exported}))) or "none"
        raise ValueError(f"generation = {generation}: must be one that {run_dir} has: {known}")
    colony = found_colony(config)
    bank = colony.policy.mind.bank
    if generation in saved:
        tensors, _ = load_checkpoint(saved[generation])
        bank.values.copy_(tensors["bank"])
        bank.version += 1
    else:
        for slot in range(len(bank)):
            colony.policy.mind.load_adapter(slot, exported[generation] / f"agent_{slot:02d}")
    return colony, config, generation
