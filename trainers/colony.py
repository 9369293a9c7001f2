"""Everything that lives in a run: built from its config, saved to a checkpoint, read back from one."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.codec import TextCodec
from agents.policy import Policy, make_policy
from evolution.genome import Adapter, Genome
from trainers.config import TrainConfig
from trainers.learning.learner import Learner
from trainers.learning.whole_model import WholeModel
from trainers.rollout import Outcome
from trainers.seeding import named_streams, restore_streams, stream_states
from trainers.worlds import make_codec

PROBES = 64
"""Texts on which behaviours are compared where much hangs on it."""
FEW_PROBES = 16
"""Texts on which all children of a generation are compared with their parents."""


@dataclass
class Colony:
    """The living part of a run. Slot i of the population has row i of the bank.

    birth: (P, F), what each was born with, or begins with; None where children inherit what parents learned, and it is
    not needed.
    read_last: the last texts of the last life that was learned from, on which behaviours are compared.
    """

    policy: Policy
    codec: TextCodec
    learner: Learner
    population: list[Genome]
    streams: dict[str, np.random.Generator]
    birth: Tensor | None = None
    student: WholeModel | None = None  # where not adapters learn but the model does
    read_last: list[str] = field(default_factory=list)

    def heritage(self) -> list[Genome]:
        """The population with copies of the adapters that it passes on: as learned, or as born with."""
        bank = self.policy.mind.bank
        rows = (bank.values if self.birth is None else self.birth).clone()
        return [replace(g, adapter=bank.unflatten(row)) for g, row in zip(self.population, rows, strict=True)]

    def settle(self, population: list[Genome], *, in_life: bool = False) -> None:
        """Give the slots of newcomers to them: their adapters enter the bank, Adam's moments start at zero.

        Where children inherit what parents were born with, everyone else begins anew too, unless it is in mid-life.
        """
        bank = self.policy.mind.bank
        for slot, (old, new) in enumerate(zip(self.population, population, strict=True)):
            if new.id != old.id:
                bank.write(slot, new.adapter)
                if self.birth is not None:
                    self.birth[slot] = bank.values[slot]
            elif self.birth is not None and not in_life:
                bank.write(slot, bank.unflatten(self.birth[slot]))
            else:
                continue
            self.learner.forget(slot)
        self.population = [replace(genome, adapter=self.adapter(slot)) for slot, genome in enumerate(population)]

    def begin_nearer(self, step: float) -> None:
        """All begin anew, nearer to where they have come on average: by `step` of the way, which 1 goes to the end."""
        assert self.birth is not None
        self.birth[:] = nearer(self.birth, self.policy.mind.bank.values, step)
        self.settle(self.population)

    def act_by(self, config: TrainConfig, folder: Path) -> None:
        """From now on act by the model in a folder, with newborn adapters and a new critic."""
        fresh = found_colony(acting_by(config, folder))
        self.policy, self.learner = fresh.policy, fresh.learner
        self.population = [replace(genome, adapter=self.adapter(slot)) for slot, genome in enumerate(self.population)]

    def adapter(self, slot: int) -> Adapter:
        """A copy of the adapter of a slot, as it is now."""
        return self.policy.mind.bank.read(slot)

    def measure(self, outcome: Outcome) -> None:
        """Note each agent's fitness, its mean return over the worlds of `outcome`, and the adapter it now has."""
        fitness, now = outcome.episode_return.mean(axis=0), self.policy.mind.bank.row
        self.population = [
            g.measured(float(f), now(i)) for i, (g, f) in enumerate(zip(self.population, fitness, strict=True))
        ]

    def divergence(self, first: Adapter, second: Adapter) -> float:
        """Mean KL(first || second) of the actions after `PROBES` texts that were read last, everything allowed."""
        one, other = self._behaviour([first, second], PROBES)
        return float((one.exp() * (one - other)).sum(1).mean())

    def kl_to_parent(self, children: Sequence[Genome]) -> float:
        """Mean KL(child || parent) of actions after texts read last, over children and parents, none of them settled.

        The parents must be in the population, with the adapters that they pass on.
        """
        family = {genome.id: genome.adapter for genome in [*self.heritage(), *children]}
        log_probs = dict(zip(family, self._behaviour(list(family.values()), FEW_PROBES), strict=True))
        pairs = [(log_probs[child.id], log_probs[parent]) for child in children for parent in child.parents]
        return float(np.mean([(one.exp() * (one - other)).sum(1).mean() for one, other in pairs]))

    @torch.no_grad()
    def _behaviour(self, adapters: list[Adapter], probes: int) -> Tensor:
        """Log-probabilities (G, T, A) of the actions of G adapters after the T texts that were read last.

        They are of lives that were learned from: what is read to be judged or shown must change nothing. In the first
        life there is none before it, but nothing was shown yet either.
        """
        mind = self.policy.mind
        texts = (self.read_last or mind.memory.latest(probes))[-probes:]
        values = torch.stack([mind.bank.flatten(a) for a in adapters])
        logits = mind.answer(texts * len(adapters), np.repeat(np.arange(len(adapters)), len(texts)), values)
        return torch.from_numpy(logits).log_softmax(1).view(len(adapters), len(texts), -1)

    def hyperparameter(self, name: str) -> Tensor:
        """One hyperparameter of all agents, (P,)."""
        return torch.tensor([genome.hyperparameters[name] for genome in self.population])


def acting_by(config: TrainConfig, folder: Path) -> TrainConfig:
    """The config of who acts by the model in a folder, which was taught as a whole and learns no more."""
    model, learn = replace(config.model, name=str(folder)), replace(config.learn, trains="adapters")
    return replace(config, model=model, learn=learn)


def found_colony(config: TrainConfig) -> Colony:
    """Load the model and make the founders: equal adapters, equal hyperparameters."""
    codec = make_codec(config.env)
    policy = make_policy(config.model, config.adapter, codec, config.env.agents, config.seed)
    bank = policy.mind.bank
    born_with = {"learning_rate": config.learn.learning_rate, "entropy_coef": config.learn.entropy_coef}
    founders = [Genome(id=i, adapter=bank.read(i), hyperparameters=born_with) for i in range(config.env.agents)]
    begins_anew = config.evolution.inheritance in ("baldwinian", "reptile")
    birth = bank.values.clone() if begins_anew else None
    student = WholeModel(policy.mind, config.learn) if config.learn.trains == "model" else None
    return Colony(policy, codec, Learner(policy, config.learn), founders, named_streams(config.seed), birth, student)


def colony_tensors(colony: Colony) -> dict[str, Tensor]:
    """All tensors of a colony that change, by name."""
    learner, bank = colony.learner, colony.policy.mind.bank
    tensors = {
        "bank": bank.values,
        "mean": learner.optimiser.mean,
        "square": learner.optimiser.square,
        "steps": learner.optimiser.steps,
    }
    if colony.birth is not None:
        tensors["birth"] = colony.birth
    if learner.replay:
        tensors |= {f"replay.{k}": v for k, v in learner.replay.tensors().items()}
    tensors |= {f"critic.{k}": v for k, v in colony.policy.critic.state_dict().items()}
    for index, moments in learner.critic.optimiser.state_dict()["state"].items():
        tensors |= {f"critic_adam.{index}.{k}": v for k, v in moments.items()}
    if colony.student:
        tensors |= {f"student.{k}": v.detach() for k, v in colony.student.tensors().items()}
    return {name: t.contiguous() for name, t in tensors.items()}


def colony_state(colony: Colony) -> dict[str, Any]:
    """All else of a colony that changes, fit for JSON."""
    people = [
        {
            "id": g.id,
            "hyperparameters": dict(g.hyperparameters),
            "generation": g.generation,
            "parents": list(g.parents),
            "operator": g.operator,
            "seed": g.seed,
            "fitness": g.fitness,
        }
        for g in colony.population
    ]
    return {
        "population": people,
        "streams": stream_states(colony.streams),
        "read_last": colony.read_last,
        "texts": colony.policy.mind.memory.reading_order(),
        "replay_texts": colony.learner.replay.texts if colony.learner.replay else [],
        "student_texts": colony.student.texts if colony.student else [],
    }


def restore_adapters(colony: Colony, tensors: dict[str, Tensor]) -> None:
    """Give a newly founded colony the adapters that were saved; KeyError or ValueError where they do not fit."""
    bank = colony.policy.mind.bank
    _copy_into(bank.values, tensors, "bank")
    bank.version += 1


def nearer(start: Tensor, end: Tensor, step: float) -> Tensor:
    """The mean of where P began (P, F), moved by `step` of the way to the mean of where they ended: (F,).

    Reptile (Nichol et al. 2018, arXiv:1803.02999), batched.
    """
    return start.mean(dim=0) + step * (end.mean(dim=0) - start.mean(dim=0))


def found_with(
    colony: Colony, tensors: dict[str, Tensor], state: dict[str, Any], reptile_step: float | None = None
) -> None:
    """Give a newly founded colony what the population of a checkpoint passes on: adapters, and what it learns with.

    reptile_step: of a population whose beginning is still to move to where its last generation ended. KeyError or
    ValueError where it does not fit.
    """
    bank = colony.policy.mind.bank
    _copy_into(bank.values, tensors, "birth" if "birth" in tensors else "bank")
    if reptile_step is not None:
        bank.values[:] = nearer(tensors["birth"], tensors["bank"], reptile_step)
    bank.version += 1
    if colony.birth is not None:
        colony.birth.copy_(bank.values)
    settings = [person["hyperparameters"] for person in state["population"]]
    colony.population = [replace(g, hyperparameters=own) for g, own in zip(colony.population, settings, strict=True)]


def _copy_into(target: Tensor, tensors: dict[str, Tensor], name: str) -> None:
    if tensors[name].shape != target.shape:
        raise ValueError(f"tensor {name} has shape {tuple(tensors[name].shape)}: must be {tuple(target.shape)}")
    target.copy_(tensors[name])


def restore_colony(colony: Colony, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Make a newly founded colony the one that was saved; KeyError or ValueError where something does not fit."""
    learner, bank = colony.learner, colony.policy.mind.bank
    restore_adapters(colony, tensors)
    for name in ("mean", "square", "steps"):
        _copy_into(getattr(learner.optimiser, name), tensors, name)
    if colony.birth is not None:
        _copy_into(colony.birth, tensors, "birth")
    if learner.replay:
        replay = {k.removeprefix("replay."): v for k, v in tensors.items() if k.startswith("replay.")}
        learner.replay.restore(replay, state["replay_texts"])
    if colony.student:
        told = {k.removeprefix("student."): v for k, v in tensors.items() if k.startswith("student.")}
        colony.student.restore(told, state["student_texts"])
    critic = {k.removeprefix("critic."): v for k, v in tensors.items() if k.startswith("critic.")}
    colony.policy.critic.load_state_dict(critic)
    moments: dict[int, dict[str, Tensor]] = {}
    for name in (n for n in tensors if n.startswith("critic_adam.")):
        _, index, key = name.split(".")
        moments.setdefault(int(index), {})[key] = tensors[name]
    groups = learner.critic.optimiser.state_dict()["param_groups"]
    learner.critic.optimiser.load_state_dict({"state": moments, "param_groups": groups})
    colony.population = [
        Genome(adapter=bank.read(i), **{**person, "parents": tuple(person["parents"])})
        for i, person in enumerate(state["population"])
    ]
    colony.streams = restore_streams(state["streams"])
    colony.read_last = state.get("read_last", [])  # which older checkpoints do not know
    colony.policy.mind.memory.read_again(state["texts"])
