"""The run folder: what is in it, opening one anew, continuing one, reading one.

config.yaml  run.json  metrics.jsonl  lineage.jsonl  adapters.jsonl  first.json  results.json  tb/  checkpoints/
adapters/  recordings/; where populations breed apart matches.jsonl  hall/; where a whole model learns model/
"""

import json
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout

from agents.policy import Policy
from agents.types import UserError, log
from agents.weights.fetch import sha256_of
from trainers.checkpoint import DamagedRun, by_generation, checkpoints, load_checkpoint, whole
from trainers.colony import Colony, acting_by, found_colony, found_with, restore_adapters, restore_colony
from trainers.config import TrainConfig
from trainers.machine import processor
from trainers.parser import config_to_yaml, read_config
from trainers.seeding import named_streams

LOCK = ".lock"
"""File of a run folder that the process which trains in it holds."""

NEW_HISTORY: dict[str, Any] = {
    "generation": -1,
    "env_steps": 0,
    "fitness_steps": 0,
    "best": 0,
    "best_fitness": None,
    "first": None,
    "teacher": None,
    "age": 0,
}
"""What a run knows of its generations before there is any; every checkpoint holds these keys."""


@contextmanager
def reserved(run_dir: Path) -> Iterator[None]:
    """Within the block, no other process can train in this folder; the lock of a process that died is none.

    Raises UserError where another is at it already, or where nothing can be written. A folder that was made for the
    block, and in which it left nothing, is gone after it.
    """
    held, is_new = run_dir / LOCK, not run_dir.exists()
    taken = f"run_dir = {str(run_dir)!r}: must be a folder in which no other process trains"
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        lock = FileLock(held, blocking=False)
        lock.acquire()
    except Timeout as error:
        raise UserError(f"{taken}; one does, so wait for it or choose another folder") from error
    except OSError as error:
        raise UserError(
            f"run_dir = {str(run_dir)!r}: must be a folder in which files can be written ({error})"
        ) from error
    try:
        yield
    finally:
        with suppress(OSError):  # while it is held, so that nobody gets a lock that others do not see
            held.unlink()
        lock.release()
        if is_new and not any(run_dir.iterdir()):
            run_dir.rmdir()


def require_free(run_dir: Path) -> None:
    """Raise UserError if something is in `run_dir` already, but for the lock."""
    if any(entry.name != LOCK for entry in run_dir.iterdir()):
        way_on = ""
        if checkpoints(run_dir):
            way_on = f"; to go on with its run, use --resume {shlex.quote(str(run_dir))}"
        elif (run_dir / "run.json").is_file():
            way_on = "; its run ended before its first generation did, so it can be deleted"
        raise UserError(f"run_dir = {str(run_dir)!r}: must be empty or not exist{way_on}")


def create(run_dir: Path, config: TrainConfig, colony: Colony) -> None:
    """Begin a run folder with config.yaml and run.json: what it takes to know where its figures came from."""
    write_config(run_dir, config)
    record = {
        "command": sys.argv,
        "seed": config.seed,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "git_commit": git_commit(),
        "versions": _versions(),
        "model": config.model.name,
        "model_sha256": weights_sha256(colony.policy),
        "machine": machine(),
    }
    (run_dir / "run.json").write_text(json.dumps(record, indent=2) + "\n")


def write_config(run_dir: Path, config: TrainConfig) -> None:
    """Write config.yaml, all keys spelled out."""
    replace_text(run_dir / "config.yaml", config_to_yaml(config))


def _versions() -> dict[str, str]:
    names = ("torch", "transformers", "numpy", "gymnasium", "pettingzoo")
    return {name: version(name) for name in names} | {"python": platform.python_version()}


def weights_sha256(policy: Policy) -> dict[str, str]:
    """Of the files with the model's weights, by name."""
    return {file.name: sha256_of(file) for file in sorted(policy.mind.base.folder.glob("*.safetensors"))}


def git_commit() -> str | None:
    """Commit of the code; None without git, and outside a checkout of its own: the commit would be somebody else's."""
    root = Path(__file__).resolve().parent.parent
    ask = ["git", "-C", str(root), "rev-parse", "--show-toplevel", "HEAD"]
    try:
        done = subprocess.run(ask, capture_output=True, text=True, check=False)
    except OSError:
        return None
    told = done.stdout.splitlines()
    return told[1] if done.returncode == 0 and Path(told[0]).resolve() == root else None


def machine() -> dict[str, Any]:
    """The processor and how much of it torch uses."""
    return {
        "cpu": processor(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }


def restore(run_dir: Path, config: TrainConfig) -> tuple[Colony, dict[str, Any]]:
    """The colony of the newest checkpoint, and the run's history so far; DamagedRun if there is none that fits."""
    found = checkpoints(run_dir)
    if not found:
        raise DamagedRun(f"{run_dir / 'checkpoints'}: holds no checkpoint; delete {run_dir} and start the run anew")
    folder = found[max(found)]
    tensors, state = load_checkpoint(folder)
    colony = found_colony(config)
    _check_model(run_dir, colony)
    with _damage(folder):
        restore_colony(colony, tensors, state["colony"])
        state = {"teacher": None, "age": 0} | state  # which older checkpoints do not know
        return colony, {key: state[key] for key in NEW_HISTORY}


def settle_founders(colony: Colony, config: TrainConfig, run_dir: Path) -> int:
    """Give a new colony what the newest population of another run passes on, and worlds that it has not seen.

    Returns the age of that population: how many generations it and its founders lived before.
    Raises UserError where there is no such run, or its model, adapters or number of agents are others.
    """
    found, told = checkpoints(run_dir), f"founders = {str(run_dir)!r}: must be"
    if not found:
        raise UserError(f"{told} the folder of a run with a checkpoint")
    theirs = read_config(run_dir)
    if _run_record(run_dir)["model_sha256"] != weights_sha256(colony.policy) or theirs.learn.trains != "adapters":
        raise UserError(f"{told} a run with the same model, in which adapters learned")
    if theirs.adapter != config.adapter:
        raise UserError(f"{told} a run with the same adapters, not {theirs.adapter}")
    tensors, state = load_checkpoint(found[max(found)])
    evolution = theirs.evolution
    step = evolution.reptile_step if evolution.inheritance == "reptile" else None
    try:
        found_with(colony, tensors, state["colony"], step)
    except (KeyError, ValueError) as error:
        raise UserError(f"{told} a run with as many agents ({error})") from error
    age: int = state.get("age", 0) + state["generation"] + 1
    colony.streams = named_streams(config.seed, age)
    return age


@contextmanager
def _damage(folder: Path) -> Iterator[None]:
    """Within the block, what does not fit is damage of `folder`."""
    try:
        yield
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise DamagedRun(f"{folder}: damaged, or not made with this config.yaml ({error})") from error


def _check_model(run_dir: Path, colony: Colony) -> None:
    """Refuse other weights; say so where last digits may differ."""
    record = _check_weights(run_dir, colony)
    if record["versions"] != _versions() or record["machine"] != machine():
        log.warning("note: another machine or other versions than before; figures may differ in their last digits")


def _check_weights(run_dir: Path, colony: Colony) -> dict[str, Any]:
    """What run.json says; DamagedRun where the model has other weights."""
    record = _run_record(run_dir)
    if record["model_sha256"] != weights_sha256(colony.policy):
        raise DamagedRun(f"{colony.policy.mind.base.folder}: its weights are not those that the run began with")
    return record


def _run_record(run_dir: Path) -> dict[str, Any]:
    """What run.json says; DamagedRun if it does not say all."""
    try:
        record: dict[str, Any] = json.loads((run_dir / "run.json").read_text(encoding="utf-8"))
        return {key: record[key] for key in ("model_sha256", "versions", "machine")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedRun(f"{run_dir / 'run.json'}: damaged or missing ({error})") from error


def lines_until(file: Path, last_generation: int) -> list[str]:
    """The lines of a JSONL file up to a generation, without later ones: those will be lived again.

    A kill can cut the last line short; it is dropped. DamagedRun for any other line that cannot be read.
    """
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()] if file.is_file() else []
    kept = []
    for number, line in enumerate(lines):
        try:
            if json.loads(line)["generation"] <= last_generation:
                kept.append(line)
        except (ValueError, KeyError, TypeError) as error:
            if number < len(lines) - 1:
                raise DamagedRun(f"{file}, line {number + 1}: damaged ({error})") from error
    return kept


def replace_text(file: Path, text: str) -> None:
    """Write a file beside its place and rename it: it is the old one or the new one, never a part."""
    partial = file.with_name(f".{file.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(file)


def export_adapters(run_dir: Path, generation: int, config: TrainConfig, colony: Colony) -> Path:
    """Write every agent's adapter in PEFT's format, all or none, and return their folder."""
    folder = run_dir / "adapters" / f"gen_{generation:04d}"
    with whole(folder) as box:
        for slot, genome in enumerate(colony.population):
            card = (
                f"Agent {genome.id}, born in generation {genome.generation} ({genome.operator}, "
                f"parents {list(genome.parents)}), "
                f"after generation {generation} of a run with seed {config.seed}: fitness {genome.fitness:.2f}."
            )
            colony.policy.mind.save_adapter(slot, box / f"agent_{slot:02d}", card)
    return folder


def open_fittest(run_dir: Path) -> tuple[Colony, int]:
    """The colony of a run's newest checkpoint, and the number of its fittest agent; DamagedRun if there is none.

    It leaves torch's threads as they are.
    """
    read_config(run_dir)  # says what is wrong with a folder that is none of ours
    saved = checkpoints(run_dir)
    if not saved:
        raise DamagedRun(f"{run_dir / 'checkpoints'}: holds no checkpoint, so nobody knows who is the fittest")
    with threads_kept():
        colony, _, generation = open_run(run_dir, max(saved))
    _, state = load_checkpoint(saved[generation])
    fitness = [person["fitness"] for person in state["colony"]["population"]]
    return colony, int(np.argmax(fitness))


@contextmanager
def threads_kept() -> Iterator[None]:
    """Within the block, opening a run may set torch's threads to what its config says; then they are as before."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def open_run(run_dir: Path, generation: int | None = None) -> tuple[Colony, TrainConfig, int]:
    """A colony with the adapters of a generation (the newest if None), for looking at; with its config.

    Raises DamagedRun if the run cannot be read, UserError if that generation's adapters were not exported.
    """
    config = read_config(run_dir)
    exported = by_generation(run_dir / "adapters")
    saved = checkpoints(run_dir)
    if generation is None:
        generation = max([*saved, *exported], default=-1)
    if generation not in saved and generation not in exported:
        known = ", ".join(map(str, sorted({*saved, *exported}))) or "none"
        raise UserError(f"generation = {generation}: must be one that {run_dir} has: {known}")
    is_whole = config.learn.trains == "model"
    if is_whole:
        newest = max(saved, default=-1)
        if generation != newest:
            raise UserError(f"generation = {generation}: must be {newest}, of which {run_dir / 'model'} is")
        config = acting_by(config, run_dir / "model")
    colony = found_colony(config)
    if not is_whole:
        _check_weights(run_dir, colony)
    if generation in saved:
        tensors, _ = load_checkpoint(saved[generation])
        with _damage(saved[generation]):
            restore_adapters(colony, tensors)
    else:
        with _damage(exported[generation]):
            for slot in range(config.env.agents):
                colony.policy.mind.load_adapter(slot, exported[generation] / f"agent_{slot:02d}")
    return colony, config, generation
