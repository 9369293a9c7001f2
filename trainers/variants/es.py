"""An evolution strategy in place of breeding: one mean adapter, judged by its samples (`evolution.strategy`).

Each generation the agents are copies of the averaged mean. They are what is shown, compared and exported. In the worlds
in which fitness is measured each seat is a sample's: the mean plus or minus noise, the two of a pair in the same world.
An agent's fitness is that of the samples who had its seat. At a generation's end the agents become the new mean.
Step and noise are set by how far actions move (KL) on texts that the samples read.

Symbols: n pairs, F numbers in an adapter, W worlds, N agents in each, T texts, A actions.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from agents.device import CPU
from agents.guests import with_guests
from agents.types import require
from evolution.events import births, deaths
from evolution.strategy import b_mask, direction, mirrored, moved, rank_one_noise
from trainers.config import TrainConfig
from trainers.population import Population
from trainers.records.tags import Tag
from trainers.rollout import Outcome, Trajectory, collect_rollout
from trainers.stages import Generation, Run, ShowProgress
from trainers.variants.es_config import ESConfig
from trainers.variants.variant import Variant

MOST_STEPS = 512
"""Of an evaluation, on whose texts behaviours are compared."""
MEMBERS = 16
"""Samples whose distance from the mean is measured."""
STEPS = [2.0 ** (k / 2) for k in range(-12, 17)]
"""Lengths of a step that are tried, of a direction whose numbers are about 1 / sqrt(n)."""


class ES(Variant):
    """Keeps the mean, where it is going, and its average over generations, (F,) each, on the CPU."""

    settings: ESConfig
    tags: ClassVar[dict[str, Tag]] = {
        "evolve/es_sigma": Tag("es_sigma", "Standard deviation of the noise on B by which the samples differ."),
        "evolve/es_noise_kl": Tag("es_noise_kl", "Mean KL of a sample's actions from the mean adapter's."),
        "evolve/es_step_kl": Tag("es_step_kl", "KL by which the mean adapter's actions moved."),
    }

    def __init__(self, settings: ESConfig, config: TrainConfig, population: Population, run_dir: Path):
        super().__init__(settings, config, population, run_dir)
        bank = population.policy.network.bank
        start = bank.values[0].to(CPU, copy=True)
        is_one = bool((bank.values == bank.values[0]).all())  # not so where `init_from` brought others
        require(is_one, "init_from", config.init_from, "a run with evolution.strategy = es, whose agents are equal")
        self.decay = settings.decay * b_mask(bank.shapes)
        self.mean, self.averaged, self.velocity = start.clone(), start.clone(), torch.zeros_like(start)
        self.sigma, self.seed = settings.sigma, 0

    def evaluate(self, run: Run, generation: Generation, seeds: np.ndarray) -> Outcome:
        """Fitness of samples; each agent's is that of those who had its seat. Then the mean moves."""
        network, streams, agents = self.population.policy.network, self.population.streams, len(self.population.genomes)
        self.seed = int(streams["evolution"].integers(2**31))
        noise = rank_one_noise(network.bank.shapes, len(seeds) * agents // 2, self.seed)
        samples = mirrored(self.mean, noise, self.sigma)
        policy = with_guests(self.population.policy, samples, is_batched=True)
        seats = np.arange(len(seeds) * agents).reshape(len(seeds), agents)
        world, shown = run.trial(generation.number), [ShowProgress(run.progress)]
        rollout = collect_rollout(
            policy, self.population.codec, world, seeds, streams["policy"], adapter_ids=seats, observers=shown
        )
        self.population.note_texts(rollout.trajectory.texts)
        fitness = torch.from_numpy(rollout.outcome.episode_return).flatten().float()
        self.figures = self._follow(direction(noise, fitness), samples, rollout.trajectory, generation.number)
        return rollout.outcome

    def after_evaluation(self, run: Run, generation: Generation) -> dict[str, float]:
        """All agents become the averaged mean; return how far samples were from the mean, and how far it moved."""
        self.population.policy.network.bank.values[:] = self.averaged
        self.population.genomes = self.population.snapshots(self.population.genomes)
        return self.figures

    def _follow(self, found: Tensor, samples: Tensor, trajectory: Trajectory, generation: int) -> dict[str, float]:
        """Move the mean in the direction (F,) that was found, and set the noise of the next samples (2n, F)."""
        own, texts = self.settings, sampled_texts(trajectory)
        self.velocity = own.momentum * self.velocity + (1 - own.momentum) * found
        tried = torch.stack([self.mean, *(moved(self.mean, self.velocity, step, self.decay) for step in STEPS)])
        behaviour = self._behaviour(torch.cat([tried, samples[:MEMBERS]]), texts)
        apart = kl(behaviour[:1], behaviour)
        steps, noise_kl = apart[: len(tried)], float(apart[len(tried) :].mean())
        allowed = max(own.last_kl, own.step_kl * own.step_fall ** max(0, generation + 1 - own.hold))
        chosen = int((steps <= allowed).nonzero().max())  # the first, to stay, fits always
        figures = {"es_sigma": self.sigma, "es_noise_kl": noise_kl, "es_step_kl": float(steps[chosen])}
        self.mean = tried[chosen]
        share = own.average if generation + 1 >= own.hold else 0.0
        self.averaged = share * self.averaged + (1 - share) * self.mean
        later = generation + 1 - own.warm_up
        wanted = own.first_noise_kl if later < 0 else max(own.last_kl, own.noise_kl * own.noise_fall**later)
        self.sigma *= (wanted / max(noise_kl, 1e-6)) ** 0.5
        return figures

    @torch.no_grad()
    def _behaviour(self, adapters: Tensor, texts: list[str]) -> Tensor:
        """Log-probabilities (G, T, A) of G adapters (G, F)."""
        network, distinct = self.population.policy.network, list(dict.fromkeys(texts))
        owners = np.repeat(np.arange(len(adapters)), len(distinct))
        logits = torch.from_numpy(network.answer(distinct * len(adapters), owners, adapters))
        place = {text: i for i, text in enumerate(distinct)}
        return logits.log_softmax(1).view(len(adapters), len(distinct), -1)[:, [place[text] for text in texts]]

    def evolve(self, run: Run) -> dict[str, float]:
        """All agents are born anew, as the averaged mean that they are."""
        population, before, number = self.population, self.population.genomes, run.history.generation + 1
        first = 1 + max(genome.id for genome in before)
        after = [
            replace(
                genome,
                id=first + slot,
                generation=number,
                parents=(genome.id,),
                operator="es",
                seed=self.seed,
                fitness=float("nan"),
            )
            for slot, genome in enumerate(before)
        ]
        population.replace_slots(after)
        run.log.events(deaths(before, after, number, cause="mean moved") + births(before, after, run.roles))
        return {}

    def tensors(self) -> dict[str, Tensor]:
        """The mean, its average and its velocity."""
        return {"mean": self.mean, "averaged": self.averaged, "velocity": self.velocity}

    def state(self) -> dict[str, Any]:
        """Sigma, and the seed of the latest noise."""
        return {"sigma": self.sigma, "seed": self.seed}

    def restore(self, tensors: dict[str, Tensor], state: dict[str, Any], generation: int) -> None:
        """Become what was saved."""
        self.mean, self.averaged, self.velocity = tensors["mean"], tensors["averaged"], tensors["velocity"]
        self.sigma, self.seed = state["sigma"], state["seed"]


def sampled_texts(t: Trajectory) -> list[str]:
    """At most `MOST_STEPS` texts that were read, evenly over the steps of all; one that is read often comes often."""
    read = t.text[t.is_lived]
    return [t.texts[i] for i in read[np.linspace(0, len(read) - 1, min(MOST_STEPS, len(read))).astype(int)].tolist()]


def kl(from_: Tensor, to: Tensor) -> Tensor:
    """Mean KL(from || to) over T texts, (G,), of log-probabilities (1 or G, T, A) and (G, T, A)."""
    return (from_.exp() * (from_ - to)).sum(-1).mean(-1)
