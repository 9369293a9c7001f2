"""Open the folder of a run: to go on with it, to look at it, or to begin another run with its population."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.device import device_name, is_present
from agents.types import UserError, log
from trainers.cli.parser import read_config
from trainers.config import TrainConfig
from trainers.population import Population, found_population
from trainers.records.checkpoint import load_checkpoint, load_newest
from trainers.records.manifest import by_generation, checkpoints
from trainers.records.population_state import init_population, restore_adapters, restore_population
from trainers.records.run_folder import machine, versions, weights_sha256
from trainers.records.sealed import DamagedRun, check_folder, document
from trainers.seeding import named_streams
from trainers.stages import History
from trainers.variants import acting_config, open_variants, passed_on


def restore(run_dir: Path, config: TrainConfig) -> tuple[Population, History]:
    """The population of the newest checkpoint, and the run's history; DamagedRun if there is none that fits."""
    generation, tensors, state = load_newest(run_dir)
    population = found_population(config)
    record = _check_weights(run_dir, population)
    here = {"versions": versions(), "machine": machine(), "device": device_name(population.policy.network.device)}
    if any(record[name] != found for name, found in here.items()):
        log.warning(
            "note: another machine, device or other versions than before; figures may differ in their last digits"
        )
    population.variants = open_variants(config, population, run_dir)
    with _damage(checkpoints(run_dir)[generation]):
        restore_population(population, tensors, state["population"], generation)
        return population, History(**{key.name: state[key.name] for key in fields(History)})


def init_from(population: Population, config: TrainConfig, run_dir: Path) -> int:
    """Give a new population what the newest one of another run passes on, and worlds that it has not seen.

    Founders inherit hyperparameters, unless `config` and the config of that run differ in them: then they have those of
    `config`. Returns the age of that population: how many generations it and its founders lived before.
    Raises UserError where there is no such run, or its model, adapters or number of agents are others.
    """
    expected = f"init_from = {str(run_dir)!r}: must be"
    if not checkpoints(run_dir):
        raise UserError(f"{expected} the folder of a run with a checkpoint")
    theirs, (newest, tensors, state) = read_config(run_dir), load_newest(run_dir)
    model = acting_config(theirs, run_dir, newest).model.name
    same_weights = _run_record(run_dir)["model_sha256"] == weights_sha256(population.policy)
    if not same_weights or model != theirs.model.name:
        raise UserError(f"{expected} a run with the same model, in which adapters learned")
    if theirs.adapter != config.adapter:
        raise UserError(f"{expected} a run with the same adapters, not {theirs.adapter}")
    was, now = (vars(one.learn) for one in (theirs, config))
    new = {name: now[name] for name in population.genomes[0].hyperparameters if now[name] != was[name]}
    try:
        init_population(population, passed_on(theirs, tensors), state["population"], new)
    except (KeyError, ValueError) as error:
        raise UserError(f"{expected} a run with as many agents ({error})") from error
    for name, value in new.items():
        log.info(
            f"note: founders learn with {name} = {value:g}, not with what they inherit, as that run began with another"
        )
    age: int = state["age"] + state["generation"] + 1
    population.streams = named_streams(config.seed, age)
    return age


def open_fittest(run_dir: Path) -> tuple[Population, int]:
    """The population of a run's newest checkpoint, and the slot of its fittest agent; DamagedRun if there is none.

    It leaves torch's threads as they are.
    """
    read_config(run_dir)  # says what is wrong with a folder that is none of ours
    newest, tensors, state = load_newest(run_dir)
    with threads_kept():
        population, _ = _opened(run_dir, newest, tensors)
    fitness = [person["fitness"] for person in state["population"]["genomes"]]
    return population, int(np.argmax(fitness))


@contextmanager
def threads_kept() -> Iterator[None]:
    """Within the block, opening a run may set torch's threads to what its config says; then they are as before."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def open_run(run_dir: Path, generation: int | None = None, on_cpu: bool = False) -> tuple[Population, TrainConfig, int]:
    """A population with the adapters of a generation (the newest if None), for looking at; with its config.

    on_cpu: open it there, wherever it learned, for what computes nowhere else. So it is also, and that is said, where
    its device is not here.
    Raises DamagedRun if the run cannot be read, UserError if that generation's adapters were not exported.
    """
    read_config(run_dir)  # says what is wrong with a folder that is none of ours
    if generation is None:
        generation, tensors = _newest(run_dir)
        return *_opened(run_dir, generation, tensors, on_cpu), generation
    exported, saved = by_generation(run_dir / "adapters"), checkpoints(run_dir)
    if generation not in saved and generation not in exported:
        known = ", ".join(map(str, sorted({*saved, *exported}))) or "none"
        raise UserError(f"generation = {generation}: must be one that {run_dir} has: {known}")
    tensors = _tensors(saved.get(generation), generation in exported)
    return *_opened(run_dir, generation, tensors, on_cpu), generation


def _newest(run_dir: Path) -> tuple[int, dict[str, Tensor]]:
    """The newest generation that can be opened, and its tensors; none where its exported adapters are to be used."""
    exported, saved = by_generation(run_dir / "adapters"), checkpoints(run_dir)
    known, damage = sorted({*saved, *exported}), UserError(f"{run_dir}: has no complete generation yet")
    while known:
        generation = known.pop()
        try:
            return generation, _tensors(saved.get(generation), generation in exported)
        except DamagedRun as error:
            if not saved[generation].exists():  # a run that goes on has deleted it, and there are newer ones
                return _newest(run_dir)
            log.warning(f"warning: {error}; the generation before it is used, if there is one")
            damage = error
    raise damage


def _opened(
    run_dir: Path, generation: int, tensors: dict[str, Tensor], on_cpu: bool = False
) -> tuple[Population, TrainConfig]:
    """A population with the adapters of a checkpoint, or with the exported ones if there are no tensors."""
    config = read_config(run_dir)
    if not is_present(config.model):
        log.warning(f"note: model.device = {config.model.device!r} of {run_dir} is not here; it is opened on the CPU")
        on_cpu = True
    if on_cpu:
        config = replace(config, model=replace(config.model, device="cpu"))
    acting = acting_config(config, run_dir, generation)
    population = found_population(acting)
    if acting.model.name != config.model.name:  # the model has learned, not the adapters
        return population, acting
    _check_weights(run_dir, population)
    exported = run_dir / "adapters" / f"gen_{generation:04d}"
    if tensors:
        with _damage(run_dir / "checkpoints" / f"gen_{generation:04d}"):
            restore_adapters(population, tensors)
    else:
        check_folder(exported)
        with _damage(exported):
            for slot in range(config.env.agents):
                population.policy.network.load_adapter(slot, exported / f"agent_{slot:02d}")
    return population, config


def _tensors(checkpoint: Path | None, is_exported: bool) -> dict[str, Tensor]:
    """What a checkpoint holds; nothing if there is none, or a damaged one whose adapters were exported as well."""
    try:
        return load_checkpoint(checkpoint)[0] if checkpoint else {}
    except DamagedRun as error:
        if not is_exported:
            raise
        log.warning(f"warning: {error}; the exported adapters of that generation are used")
        return {}


@contextmanager
def _damage(folder: Path) -> Iterator[None]:
    """Within the block, what does not fit is damage of `folder`; what the user can mend is said as it is."""
    try:
        yield
    except UserError:
        raise
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise DamagedRun(f"{folder}: damaged, or not made with this config.yaml ({error})") from error


def _check_weights(run_dir: Path, population: Population) -> dict[str, Any]:
    """What run.json says; DamagedRun where the model has other weights."""
    record = _run_record(run_dir)
    if record["model_sha256"] != weights_sha256(population.policy):
        raise DamagedRun(f"{population.policy.network.base.folder}: its weights are not those that the run began with")
    return record


def _run_record(run_dir: Path) -> dict[str, Any]:
    """What run.json says; DamagedRun if it does not say all."""
    try:
        record = document(run_dir, "run.json", dict[str, Any])
        known = {key: record[key] for key in ("model_sha256", "versions", "machine")}
        return known | {"device": record.get("device", "cpu")}  # which earlier versions did not say, and always had
    except KeyError as error:
        raise DamagedRun(f"{run_dir / 'run.json'}: made by another version, as it lacks {error}") from error
