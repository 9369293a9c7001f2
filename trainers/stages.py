"""The stages of a generation, in the order in which `trainers.train` goes through them, and what they share."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple, TypeVar

import numpy as np

from agents.types import log
from agents.weights.compact import trim_memory
from envs.types import WorldState
from envs.worlds.foreign import ForeignWorld
from envs.worlds.successes import successes_in
from envs.worlds.world import Pictured, World
from evolution import next_generation
from evolution.events import births, deaths
from trainers.cli.progress import Progress
from trainers.config import TrainConfig
from trainers.env_config import EnvConfig
from trainers.learning.health import health
from trainers.population import PROBES, Population
from trainers.records.run_log import RunLog
from trainers.rollout import (
    Observed,
    Observer,
    Outcome,
    Rollout,
    collect_rollout,
    latest_texts,
    mean_return,
    without_broken,
)
from trainers.seeding import world_seeds
from trainers.variants.variant import Variant

MAX_RATIO_ERROR = 0.2
"""Who learns computes with other rows in its batches than who acts; that changes last digits, and no more: 0.03 at most
was seen in bfloat16. Another text or adapter is off by 1 and more."""

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class History:
    """What must be known of the generations so far; every checkpoint holds it."""

    generation: int = -1  # the last one that is complete
    env_steps: int = 0  # of all agents, in rollouts that were learned from
    fitness_steps: int = 0  # of all agents, in worlds in which fitness was measured
    best: int = 0  # the generation with the highest mean fitness, and that fitness
    best_fitness: float | None = None
    first: dict[str, Any] | None = None  # the first generation's comparison with the baselines
    age: int = 0  # generations that the population lived in runs before


@dataclass
class Run:
    """A run under way."""

    config: TrainConfig
    run_dir: Path
    copies: dict[str, bytes]  # of the run folder's small files, for checkpoints
    population: Population
    log: RunLog
    history: History
    progress: Progress
    worlds: list[World]  # to learn in, by turns
    trials: list[World]  # to measure fitness in, by turns
    roles: list[str]  # of each agent, within which fitness is compared; [] where all have the same

    @property
    def variants(self) -> list[Variant]:
        """Those that are switched on."""
        return list(self.population.variants.values())

    def env(self, generation: int) -> EnvConfig:
        """The world in which a generation lives."""
        env = self.config.env
        return list(env.kinds.values())[generation % len(self.worlds)] if env.alternate else env

    def world(self, generation: int) -> World:
        """In which a generation learns."""
        return self.worlds[generation % len(self.worlds)]

    def trial(self, generation: int) -> World:
        """In which a generation's fitness is measured."""
        return self.trials[generation % len(self.trials)]

    def is_shown(self, generation: int) -> bool:
        """Whether this is one of the generations of which there are pictures."""
        every = self.config.log.episode_every
        return isinstance(self.world(generation), Pictured) and bool(every) and generation % every == 0

    def close(self) -> None:
        """Let go of what the worlds and the logs hold."""
        self.log.let_go()  # a run that ended has closed it before
        for world in (*self.worlds, *self.trials):
            world.close()


@dataclass
class Generation:
    """What belongs to one generation only."""

    number: int
    started: float = field(default_factory=perf_counter)
    steps: int = 0  # of all agents together, in rollouts
    first_return: np.ndarray | None = None  # (W, N), of the first rollout, the mean over its episodes
    states: list[WorldState] = field(default_factory=list)  # of the latest rollout, to be looked at
    successes: list[dict[str, np.ndarray]] = field(default_factory=list)  # of each rollout, where the world says


class BreedingGroup(NamedTuple):
    """Agents that breed with each other."""

    slots: list[int]
    parents: int
    elites: int


class States(Observer):
    """The states of a rollout: one before each step, and the last."""

    def __init__(self) -> None:
        self.states: list[WorldState] = []

    def start(self, world: World) -> None:
        """A rollout begins."""
        assert isinstance(world, Pictured)
        self.states = [world.state()]

    def step(self, seen: Observed) -> None:
        """A step is done."""
        assert isinstance(seen.world, Pictured)
        self.states.append(seen.world.state())


class ShowProgress(Observer):
    """Shows how many steps are done, and how many agents play."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def step(self, seen: Observed) -> None:
        """A step is done."""
        self.progress.step(seen.step, int(seen.is_playing.sum()), len(seen.is_playing))


def generations(run: Run) -> Iterator[Generation]:
    """The generations still to come."""
    for number in range(run.history.generation + 1, run.config.generations):
        run.progress.generation(number)
        yield Generation(number)


def evolve(run: Run, generation: Generation) -> dict[str, float]:
    """Let the fittest breed; their children take the slots of the others. Return what is worth logging."""
    run.progress.stage("breeding")
    if (figures := _instead(run, lambda variant: variant.evolve(run))) is not None:
        return figures
    population, before = run.population, run.population.genomes
    inherited, after = population.inherited(), list(before)
    for group in _breeding_groups(run):
        bred = next_generation(
            [inherited[slot] for slot in group.slots],
            replace(run.config.evolution, parents=group.parents, elites=group.elites),
            generation=generation.number,
            rng=population.streams["evolution"],
            divergence=population.divergence,
            first_id=1 + max(genome.id for genome in [*before, *after]),
        )
        for slot, genome in zip(group.slots, bred, strict=True):
            after[slot] = genome
    born = [new for old, new in zip(before, after, strict=True) if new.id != old.id]
    figures = {"kl_to_parent": population.kl_to_parent(inherited, born)} if born else {}
    population.replace_slots(after)
    run.log.events(deaths(before, after, generation.number) + births(before, after, run.roles))
    return figures


def _breeding_groups(run: Run) -> list[BreedingGroup]:
    """All agents; or those of each role, with their share of parents and elites. One alone lives on."""
    if (groups := _instead(run, lambda variant: variant.breeding_groups(run))) is not None:
        return groups
    settings, everyone = run.config.evolution, range(len(run.population.genomes))
    roles, groups = run.roles or ["agent"] * len(everyone), []
    for role in dict.fromkeys(roles):
        slots = [slot for slot in everyone if roles[slot] == role]
        share = len(slots) / len(everyone)
        parents = min(len(slots), max(2, round(settings.parents * share)))
        if len(slots) > 1:
            groups.append(BreedingGroup(slots, parents, round(settings.elites * share)))
    return groups


def collect(run: Run, generation: Generation) -> Rollout:
    """One rollout in worlds that nobody has seen."""
    run.progress.stage("collecting")
    population, world = run.population, run.world(generation.number)
    if population.policy.network.is_compact:
        trim_memory()  # which evolution and learning are done with
    population.restore_broken()
    population.learner.critic.keep_or_go_back()
    streams, states = population.streams, States()
    learning = population.learner.start(*_hyperparameters(run))
    observers = learning + [observer for variant in run.variants for observer in variant.observers(run, generation)]
    if isinstance(world, Pictured) and (run.is_shown(generation.number) or run.config.log.recordings_mb > 0):
        observers.append(states)
    if not learning:  # which makes answers stale after every step
        population.policy.answer_ahead(population.likely_texts(), range(len(population.genomes)))
    rollout = collect_rollout(
        _instead(run, lambda variant: variant.actor(run)) or population.policy,
        population.codec,
        world,
        world_seeds(streams["world"], run.config.worlds),
        streams["policy"],
        observers=[*observers, ShowProgress(run.progress)],
    )
    generation.states = states.states
    generation.steps += int(rollout.trajectory.is_lived.sum())
    generation.successes.append(successes_in(rollout.outcome.figures))
    population.latest_texts = latest_texts(rollout.trajectory, PROBES)
    population.note_texts(rollout.trajectory.texts)
    if generation.first_return is None:
        generation.first_return = mean_return(rollout.trajectory).reshape(rollout.outcome.episode_return.shape)
    return rollout


def learn(run: Run, rollout: Rollout) -> dict[str, float]:
    """Update every adapter and the critic, and check that what learns is what acted."""
    run.progress.stage("learning")
    if (figures := _instead(run, lambda variant: variant.learn(run, rollout))) is not None:
        return figures
    population = run.population
    t, broken = without_broken(rollout.trajectory, len(population.genomes))
    rollout = rollout._replace(trajectory=t)
    learner, rng, start = population.learner, population.streams["learner"], perf_counter()
    experience = learner.experience(t, *_hyperparameters(run))
    targets = _instead(run, lambda variant: variant.targets(run, rollout))
    shown = [d for variant in run.variants for d in variant.demonstrations(run, rollout, experience.returns)]
    figures = learner.learn(experience._replace(demonstrations=shown, targets=targets), rng)
    examples = [e for variant in run.variants for e in variant.critic_examples()]
    figures |= learner.critic.learn(t, experience.returns, rng, examples)
    for variant in run.variants:
        figures |= variant.after_learning(rollout, experience.returns)
    figures["learn_s"] = perf_counter() - start
    has_acted = _instead(run, lambda variant: variant.actor(run)) is None  # else the rollout is somebody else's
    if has_acted and figures["ratio_error"] > MAX_RATIO_ERROR:
        raise RuntimeError(
            f"self-test: before the first update a log-ratio is {figures['ratio_error']:.3f}: must be 0; "
            "what learns is not what acted"
        )
    figures["not_finite"] += broken
    if figures["not_finite"]:
        log.warning(f"note: numbers of {figures['not_finite']:.0f} adapters were not finite; they stay as they were")
    figures["not_finite"] += population.restore_broken()
    return figures | health(population.policy, t)


def evaluate(run: Run, generation: Generation) -> tuple[Outcome, dict[str, float]]:
    """Fitness: mean return in worlds that are new, and the same for all agents; and what is worth logging besides."""
    run.progress.stage("evaluating")
    population, streams = run.population, run.population.streams
    seeds = world_seeds(streams["fitness"], run.config.evolution.episodes)
    outcome = _instead(run, lambda variant: variant.evaluate(run, generation, seeds))
    if outcome is None:
        world, shown = run.trial(generation.number), [ShowProgress(run.progress)]
        policy, codec = population.policy, population.codec
        policy.answer_ahead(population.likely_texts(), range(len(population.genomes)))
        rollout = collect_rollout(policy, codec, world, seeds, streams["policy"], observers=shown)
        population.note_texts(rollout.trajectory.texts)
        outcome = rollout.outcome
    population.measure(outcome)
    figures = {"env_restarts": float(_take_restarts(run))} if run.config.env.on_error == "restart" else {}
    for variant in run.variants:
        figures |= variant.after_evaluation(run, generation)
    return outcome, figures


def _take_restarts(run: Run) -> int:
    """How often copies of worlds were made anew since this was asked last."""
    worlds = [world for world in (*run.worlds, *run.trials) if isinstance(world, ForeignWorld)]
    count = sum(world.restarts for world in worlds)
    for world in worlds:
        world.restarts = 0
    return count


def _hyperparameters(run: Run) -> tuple[Any, Any]:
    """Learning rate now and entropy coefficient of each agent, (P,) both."""
    population, now = run.population, run.history.generation + 1
    share = annealed(now, run.config.generations, run.config.learn.anneal_to)
    return share * population.hyperparameter("learning_rate"), population.hyperparameter("entropy_coef")


def annealed(generation: int, generations: int, last: float) -> float:
    """Share of the learning rate in a generation: from 1 in the first evenly to `last` in the last."""
    return 1 - (1 - last) * generation / (generations - 1) if generations > 1 else 1.0


def _instead(run: Run, asked: Callable[[Variant], Answer | None]) -> Answer | None:
    """The answer of the first variant that does this in place of the core; None where none does."""
    return next((answer for answer in map(asked, run.variants) if answer is not None), None)
