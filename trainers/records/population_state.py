"""A population as tensors and plain values for a checkpoint, and back."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from evolution.genome import Genome
from trainers.population import Population
from trainers.seeding import restore_streams, stream_states

_PERSON = ("id", "hyperparameters", "generation", "parents", "operator", "seed", "fitness")


def population_tensors(population: Population) -> dict[str, Tensor]:
    """All tensors of a population that change, by name; those of variants with the variant's name in front.

    They are on the CPU, so that a run can go on upon another device.
    """
    learner, bank = population.learner, population.policy.network.bank
    optimiser = learner.optimiser
    tensors = {"bank": bank.values, "mean": optimiser.mean, "square": optimiser.square, "steps": optimiser.steps}
    tensors |= {"answers": population.policy.answers.kept}
    tensors |= {f"critic.{k}": v for k, v in population.policy.critic.state_dict().items()}
    for index, moments in learner.critic.optimiser.moments.items():
        tensors |= {f"critic_adam.{index}.{k}": v for k, v in moments.items()}
    for name, variant in population.variants.items():
        tensors |= {f"{name}.{k}": v for k, v in variant.tensors().items()}
    return {name: t.cpu().contiguous() for name, t in tensors.items()}


def population_state(population: Population) -> dict[str, Any]:
    """All else of a population that changes, fit for JSON."""
    people = [{key: getattr(genome, key) for key in _PERSON} for genome in population.genomes]
    return {
        "genomes": [person | {"hyperparameters": dict(person["hyperparameters"])} for person in people],
        "streams": stream_states(population.streams),
        "latest_texts": population.latest_texts,
        "met_texts": population.met_texts,
        "variants": {name: variant.state() for name, variant in population.variants.items()},
    }


def restore_population(
    population: Population, tensors: dict[str, Tensor], state: dict[str, Any], generation: int
) -> None:
    """Make a newly founded population the one that was saved; KeyError or ValueError where something does not fit."""
    learner, bank = population.learner, population.policy.network.bank
    restore_adapters(population, tensors)
    for name in ("mean", "square", "steps"):
        _copy_into(getattr(learner.optimiser, name), tensors, name)
    population.policy.critic.load_state_dict(_named(tensors, "critic"))
    moments: dict[int, dict[str, Tensor]] = {}
    for name, moment in _named(tensors, "critic_adam").items():
        index, _, key = name.partition(".")
        moments.setdefault(int(index), {})[key] = moment
    learner.critic.optimiser.moments = moments
    population.genomes = [
        Genome(adapter=bank.read(slot), **{**person, "parents": tuple(person["parents"])})
        for slot, person in enumerate(state["genomes"])
    ]
    population.streams = restore_streams(state["streams"])
    population.latest_texts, population.met_texts = state["latest_texts"], state["met_texts"]
    for name, variant in population.variants.items():
        variant.restore(_named(tensors, name), state["variants"][name], generation)
    if "answers" in tensors:  # earlier versions kept none
        population.policy.answers.restore(population.likely_texts(), tensors["answers"])  # last: of the newest model


def restore_adapters(population: Population, tensors: dict[str, Tensor]) -> None:
    """Give a newly founded population the adapters that were saved; KeyError or ValueError where they do not fit."""
    _copy_into(population.policy.network.bank.values, tensors, "bank")


def init_population(population: Population, rows: Tensor, state: dict[str, Any], new: Mapping[str, float]) -> None:
    """Give a newly founded population the adapters `rows` (P, F), and what a saved one learned with.

    new: hyperparameters that all have instead. KeyError or ValueError where it does not fit.
    """
    _copy_into(population.policy.network.bank.values, {"bank": rows}, "bank")
    settings = [person["hyperparameters"] | new for person in state["genomes"]]
    genomes = population.snapshots(population.genomes)
    population.genomes = [replace(g, hyperparameters=own) for g, own in zip(genomes, settings, strict=True)]


def _named(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `name` and a dot, without that."""
    return {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}


def _copy_into(target: Tensor, tensors: dict[str, Tensor], name: str) -> None:
    if tensors[name].shape != target.shape:
        raise ValueError(f"tensor {name} has shape {tuple(tensors[name].shape)}: must be {tuple(target.shape)}")
    target.copy_(tensors[name])
