"""The population of a run: individuals that share one frozen model, each with an adapter of its own."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from agents.codecs.codec import TextCodec
from agents.device import CPU
from agents.policy import Policy, make_policy
from agents.types import UserError, log
from evolution.genome import Adapter, Genome
from trainers.config import TrainConfig
from trainers.learning.learner import Learner, make_learner
from trainers.rollout import Outcome
from trainers.seeding import named_streams
from trainers.variants.variant import Variant
from trainers.worlds import make_codec

PROBES = 64
"""Texts on which behaviours are compared where much hangs on it."""
MOST_TEXTS = 256
"""Of a rollout, that are remembered because they may come again."""
FEW_PROBES = 16
"""Texts on which all children of a generation are compared with their parents."""


@dataclass
class Population:
    """What lives in a run. The genome of slot i belongs to row i of the bank, where its adapter learns.

    A genome's own adapter is a snapshot: of its birth or, once fitness is measured, of then.
    latest_texts: the last texts of the latest rollout that was learned from, on which behaviours are compared.
    """

    policy: Policy
    codec: TextCodec
    learner: Learner
    genomes: list[Genome]
    streams: dict[str, np.random.Generator]
    variants: dict[str, Variant] = field(default_factory=dict)
    latest_texts: list[str] = field(default_factory=list)
    met_texts: list[list[str]] = field(default_factory=list)
    """The distinct texts of the last two rollouts in which agents learned or fitness was measured."""

    def note_texts(self, texts: Sequence[str]) -> None:
        """Remember the distinct texts of a rollout, the first `MOST_TEXTS` of them."""
        self.met_texts = [*self.met_texts[-1:], list(texts[:MOST_TEXTS])]

    def likely_texts(self) -> list[str]:
        """The texts that a rollout will likely bring.

        Where most texts of the last rollout had been met in the one before, all of both: in a forage world, of a
        hundred, one or two are missing and fifteen too many. Else, in a world of ever new texts, those of both.
        """
        if not self.met_texts:
            return []
        before, last = (dict.fromkeys(texts) for texts in (self.met_texts[0], self.met_texts[-1]))
        again = [text for text in last if text in before]
        return list(before | last) if 2 * len(again) > len(last) else again

    def inherited(self) -> list[Genome]:
        """The genomes with the adapters that they pass on: as learned by now, unless a variant has others."""
        bank = self.policy.network.bank
        found = (variant.inherited() for variant in self.variants.values())
        rows = next((rows for rows in found if rows is not None), bank.values)
        copies = (row.to(CPU, copy=True) for row in rows)
        return [replace(g, adapter=bank.unflatten(row)) for g, row in zip(self.genomes, copies, strict=True)]

    def replace_slots(self, genomes: Sequence[Genome], *, in_rollout: bool = False) -> None:
        """Give newcomers their slots: their adapters enter the bank, and what was learned with starts empty (moments of
        a pool go on, see `Learner.forget`).

        in_rollout: the others are in the middle of a rollout.
        """
        bank = self.policy.network.bank
        is_new = np.array([new.id != old.id for new, old in zip(genomes, self.genomes, strict=True)])
        for slot in np.flatnonzero(is_new).tolist():
            bank.write(slot, genomes[slot].adapter)
        begins = is_new.copy()
        for variant in self.variants.values():
            others = variant.begin_anew(is_new, in_rollout=in_rollout)
            begins = begins if others is None else begins | others
        slots = np.flatnonzero(begins).tolist()
        self.learner.forget(slots)
        for slot in slots:
            for variant in self.variants.values():
                variant.forget(slot)
        self.genomes = self.snapshots(genomes)

    def reload(self, config: TrainConfig) -> None:
        """From now on act by the model of this config, with newborn adapters and a new critic."""
        fresh = found_population(config)
        self.policy, self.learner = fresh.policy, fresh.learner
        self.genomes = self.snapshots(self.genomes)

    def snapshots(self, genomes: Sequence[Genome]) -> list[Genome]:
        """These genomes, slot by slot, with copies of the adapters that the bank has now."""
        bank = self.policy.network.bank
        return [replace(genome, adapter=bank.read(slot)) for slot, genome in enumerate(genomes)]

    def measure(self, outcome: Outcome) -> None:
        """Note each agent's fitness, its mean return over the worlds of `outcome`, and the adapter it now has."""
        fitness = outcome.episode_return.mean(axis=0).tolist()
        bank = self.policy.network.bank
        self.genomes = [
            genome.measured(f, bank.read(slot))
            for slot, (genome, f) in enumerate(zip(self.genomes, fitness, strict=True))
        ]

    def restore_broken(self) -> int:
        """Make adapters that are not finite what they were when last measured, or at birth; return how many were not.

        Their moments begin at zero, except in a pool. UserError, naming the agent, where that is not finite either.
        """
        bank = self.policy.network.bank
        suspects = (~bank.values.sum(dim=1).isfinite()).nonzero()[:, 0].tolist()  # one pass; a sum may only be large
        broken = [slot for slot in suspects if not bank.values[slot].isfinite().all()]
        for slot in broken:
            who = f"the adapter of agent {slot} (individual {self.genomes[slot].id})"
            try:
                bank.write(slot, self.genomes[slot].adapter)
            except ValueError as error:
                raise UserError(f"{who} is not finite, and neither is what it was before ({error})") from error
            self.learner.forget([slot])
            log.warning(f"note: {who} was not finite; it is what it was when last measured, or at birth")
        return len(broken)

    def divergence(self, first: Adapter, second: Adapter) -> float:
        """Mean KL(first || second) of the actions after `PROBES` texts that were read last, everything allowed."""
        one, other = self._behaviour([first, second], PROBES)
        return float((one.exp() * (one - other)).sum(1).mean())

    def kl_to_parent(self, parents: Sequence[Genome], children: Sequence[Genome]) -> float:
        """Mean KL(child || parent) of actions after texts read last, over children and their parents."""
        family = {genome.id: genome.adapter for genome in [*parents, *children]}
        log_probs = dict(zip(family, self._behaviour(list(family.values()), FEW_PROBES), strict=True))
        pairs = [(log_probs[child.id], log_probs[parent]) for child in children for parent in child.parents]
        return float(np.mean([(one.exp() * (one - other)).sum(1).mean() for one, other in pairs]))

    @torch.no_grad()
    def _behaviour(self, adapters: list[Adapter], probes: int) -> Tensor:
        """Log-probabilities (G, T, A) of the actions of G adapters after the T texts that were read last.

        They come from rollouts that were learned from, so that evaluating and showing change nothing. Before the first
        rollout has ended there are none, and the cache has only texts of that rollout.
        """
        network = self.policy.network
        texts = (self.latest_texts or network.cache.latest(probes))[-probes:]
        at_once, parts = max(1, network.rows_at_once // max(1, len(texts))), []
        for start in range(0, len(adapters), at_once):
            values = torch.stack([network.bank.flatten(a) for a in adapters[start : start + at_once]])
            owners = np.repeat(np.arange(len(values)), len(texts))
            logits = torch.from_numpy(network.answer(texts * len(values), owners, values))
            parts.append(logits.log_softmax(1).view(len(values), len(texts), -1))
        return torch.cat(parts)

    def hyperparameter(self, name: str) -> Tensor:
        """One hyperparameter of all agents, (P,)."""
        return torch.tensor([genome.hyperparameters[name] for genome in self.genomes])


def found_population(config: TrainConfig) -> Population:
    """Load the model and make the founders: equal adapters, equal hyperparameters."""
    codec = make_codec(config.env)
    policy = make_policy(config.model, config.adapter, codec, config.env.agents, config.seed)
    bank = policy.network.bank
    hyperparameters = {"learning_rate": config.learn.learning_rate, "entropy_coef": config.learn.entropy_coef}
    founders = [Genome(i, bank.read(i), hyperparameters) for i in range(config.env.agents)]
    return Population(policy, codec, make_learner(policy, config.learn), founders, named_streams(config.seed))
