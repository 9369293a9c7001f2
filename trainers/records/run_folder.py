"""The run folder: what is in it, opening one anew, continuing one, reading one.

config.yaml  run.json  metrics.jsonl  lineage.jsonl  adapters.jsonl  manifest.jsonl  first.json  results.json  tb/
checkpoints/  adapters/  recordings/; with coevolution matches.jsonl  hall/; with distillation of the model model/
"""

import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from filelock import FileLock, Timeout

from agents.device import device_name
from agents.files import whole_file, whole_folder
from agents.sums import sha256_of, write_sums
from agents.types import UserError
from trainers.cli.machine import processor
from trainers.cli.parser import config_to_yaml
from trainers.config import TrainConfig
from trainers.records.manifest import checkpoints
from trainers.records.sealed import sealed_json, sealed_text

if TYPE_CHECKING:
    from agents.policy import Policy
    from trainers.population import Population

LOCK = ".lock"
"""File of a run folder that the process which trains in it holds."""


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
    except (PermissionError, FileExistsError, NotADirectoryError) as error:
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
        elif any((run_dir / name).is_file() for name in ("config.yaml", "run.json")):
            way_on = "; its run ended before its first generation did, so it can be deleted"
        raise UserError(f"run_dir = {str(run_dir)!r}: must be empty or not exist{way_on}")


def create(run_dir: Path, config: TrainConfig, policy: "Policy") -> None:
    """Begin a run folder with config.yaml and run.json: what it takes to know where its figures came from."""
    write_config(run_dir, config)
    record = {
        "command": sys.argv,
        "seed": config.seed,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "git_commit": git_commit(),
        "versions": versions(),
        "model": config.model.name,
        "model_sha256": weights_sha256(policy),
        "machine": machine(),
        "device": device_name(policy.network.device),
    }
    replace_text(run_dir / "run.json", sealed_json(record))


def write_config(run_dir: Path, config: TrainConfig) -> None:
    """Write config.yaml, all keys spelled out."""
    replace_text(run_dir / "config.yaml", sealed_text(config_to_yaml(config)))


def versions() -> dict[str, str]:
    """Of what figures can depend on."""
    names = ("torch", "transformers", "numpy", "gymnasium", "pettingzoo")
    return {name: version(name) for name in names} | {"python": platform.python_version()}


def weights_sha256(policy: "Policy") -> dict[str, str]:
    """Of the files with the model's weights, by name."""
    return {file.name: sha256_of(file) for file in sorted(policy.network.base.folder.glob("*.safetensors"))}


def git_commit() -> str | None:
    """Commit of the code; None without git, and outside a checkout of its own: the commit would be somebody else's."""
    root = Path(__file__).resolve().parents[2]
    ask = ["git", "-C", str(root), "rev-parse", "--show-toplevel", "HEAD"]
    try:
        done = subprocess.run(ask, capture_output=True, text=True, check=False)
    except OSError:
        return None
    lines = done.stdout.splitlines()
    return lines[1] if done.returncode == 0 and Path(lines[0]).resolve() == root else None


def machine() -> dict[str, Any]:
    """The processor and how much of it torch uses."""
    return {
        "cpu": processor(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }


def copies(run_dir: Path) -> dict[str, bytes]:
    """The small files of a run that a checkpoint has copies of."""
    return {name: (run_dir / name).read_bytes() for name in ("config.yaml", "run.json")}


def replace_text(file: Path, text: str) -> None:
    """Write a file: it is the old one or the new one, never a part."""
    with whole_file(file) as partial:
        partial.write_bytes(text.encode())  # with the same ends of lines everywhere, as it is sealed


def export_adapters(run_dir: Path, generation: int, config: TrainConfig, population: "Population") -> Path:
    """Write every agent's adapter in PEFT's format, all or none, and return their folder."""
    folder = run_dir / "adapters" / f"gen_{generation:04d}"
    with whole_folder(folder) as box:
        for slot, genome in enumerate(population.genomes):
            card = (
                f"Agent {genome.id}, born in generation {genome.generation} ({genome.operator}, "
                f"parents {list(genome.parents)}), "
                f"after generation {generation} of a run with seed {config.seed}: fitness {genome.fitness:.2f}."
            )
            population.policy.network.save_adapter(slot, box / f"agent_{slot:02d}", card)
        write_sums(box)
    return folder
