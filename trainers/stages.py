"""The stages of a run but the last (`trainers.record`), in the order in which `trainers.train` goes through them."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch

from agents.types import UserError, log
from agents.weights.frozen import product_dtype
from evolution import next_generation, select_top_k
from evolution.events import births, deaths
from evolution.generation import breed_into
from trainers import run_folder
from trainers.colony import PROBES, Colony, found_colony
from trainers.config import TrainConfig
from trainers.learning import social
from trainers.learning.health import health
from trainers.learning.learner import Witness
from trainers.learning.whole_model import WholeModel
from trainers.matches import Hall
from trainers.progress import Progress
from trainers.rivalry import beside_champions
from trainers.rollout import Life, Outcome, Trajectory, mean_return, rollout, texts_read_last
from trainers.run import Run, roles_of
from trainers.run_log import RunLog
from trainers.seeding import world_seeds
from trainers.teacher import Teacher, open_teacher
from trainers.worlds import make_worlds

MAX_RATIO_ERROR = 0.2
"""Who learns computes with other rows in its batches than who acts; that changes last digits, and no more: 0.03 at most
was seen in bfloat16. Another text or adapter is off by 1 and more."""


def begin(config: TrainConfig, resume: Path | None) -> Run:
    """Found the colony or restore it, and open the run folder; what is wrong is found before anything is written."""
    run_dir = Path(config.run_dir)
    if resume is None:
        run_dir.mkdir(parents=True, exist_ok=True)
        run_folder.require_free(run_dir)
        colony, history = found_colony(config), dict(run_folder.NEW_HISTORY)
        if config.founders:
            history["age"] = run_folder.settle_founders(colony, config, Path(config.founders))
        config = replace(config, model=replace(config.model, dtype=product_dtype(colony.policy.mind.base.decoder)))
    else:
        colony, history = run_folder.restore(run_dir, config)
        done = history["generation"] + 1
        if done >= config.generations and (run_dir / "results.json").is_file():
            raise UserError(f"generations = {config.generations}: must be above the {done} already done")
    teacher = _teacher(config, colony, history)
    worlds, trials = (make_worlds(config.env, renews=renews) for renews in (True, False))
    hall = Hall(run_dir / "hall", history["generation"]) if config.evolution.apart else None
    if resume is None:
        run_folder.create(run_dir, config, colony)
    run_log = RunLog(run_dir, history["generation"])  # refuses damaged files before anything is written
    if resume is None:
        run_log.events(births([], colony.population, roles_of(config.env, worlds[0])))
    else:
        (run_dir / "results.json").unlink(missing_ok=True)
        run_folder.write_config(run_dir, config)
    if config.evolution.enabled and config.env.agents == 1:
        log.warning("note: one agent has nobody to breed with; it lives on and only learns")
    world = ", ".join(config.env.kinds) if config.env.is_forage else config.env.id
    log.info(f"{config.env.agents} agents in {world}, {config.generations} generations; results go to {run_dir}")
    if roles := roles_of(config.env, worlds[0]):
        told = ", ".join(f"{count} {role}" for role, count in Counter(roles).items())
        log.info(f"{told}: fitness is compared, and agents breed, within a role")
    progress = Progress(config, history["generation"] + 1)
    run = Run(config, run_dir, colony, run_log, history, progress, worlds, trials, hall, teacher)
    if resume and colony.student:
        texts = colony.policy.mind.memory.reading_order()
        _act_by_student(run, colony.student)
        colony.policy.mind.memory.read_again(texts)
    return run


def _teacher(config: TrainConfig, colony: Colony, history: dict[str, Any]) -> Teacher | None:
    """Who says how it is done, if somebody does; UserError where it is not who it was when the run began."""
    name = config.learn.teacher
    if not name:
        return None
    teacher = open_teacher(name, config.env, colony.codec, config.learn.temperature)
    if history["teacher"] not in (None, teacher.name):
        raise UserError(f"learn.teacher = {name!r}: must be as it was when this run began; it has learned since")
    history["teacher"] = teacher.name
    return teacher


def generations(run: Run) -> Iterator[int]:
    """The generations still to live."""
    while run.generation < run.config.generations:
        run.started, run.steps, run.first_return = perf_counter(), 0, None
        run.progress.generation(run.generation)
        yield run.generation


def evolve(run: Run) -> dict[str, float]:
    """Let the fittest breed; their children take the places of the others. Returns what is worth logging.

    Reptile (Nichol et al. 2018, arXiv:1803.02999, batched): nobody breeds, the beginning of all moves to their ends.
    """
    run.progress.stage("breeding")
    if run.config.evolution.inheritance == "reptile":
        run.colony.begin_nearer(run.config.evolution.reptile_step)
        return {}
    settings, before = run.config.evolution, run.colony.population
    heritage, after = run.colony.heritage(), list(before)
    for slots in run.breeding_groups():
        share = 1.0 if settings.apart else len(slots) / len(before)
        parents = max(2, min(len(slots), round(settings.parents * share)))
        bred = next_generation(
            [heritage[slot] for slot in slots],
            replace(settings, elites=round(settings.elites * share), parents=parents),
            generation=run.generation,
            rng=run.colony.streams["evolution"],
            divergence=run.colony.divergence,
            first_id=1 + max(genome.id for genome in [*before, *after]),
        )
        for slot, genome in zip(slots, bred, strict=True):
            after[slot] = genome
    born = [new for old, new in zip(before, after, strict=True) if new.id != old.id]
    figures = {"kl_to_parent": run.colony.kl_to_parent(born)} if born else {}
    run.colony.settle(after)
    run.log.events(deaths(before, after, run.generation) + births(before, after, run.roles))
    return figures


def replace_starved(run: Run, died: np.ndarray, living: np.ndarray, earned: np.ndarray) -> np.ndarray:
    """Give the places of those who died to children of the fittest of the living; whose places those are, (N,) bool.

    living: (N,) bool. earned: (N,), sum of rewards so far, which is fitness here. Nobody is born to fewer than two.
    """
    settings, colony = run.config.evolution, run.colony
    rng, so_far = colony.streams["evolution"], zip(colony.heritage(), earned.tolist(), strict=True)
    before = [replace(genome, fitness=fitness) for genome, fitness in so_far]
    pool = [before[slot] for slot in np.flatnonzero(living)]
    if len(pool) < 2:
        return np.zeros_like(died)
    after = breed_into(
        before,
        np.flatnonzero(died).tolist(),
        select_top_k(pool, len(pool)),
        replace(settings, parents=min(settings.parents, len(pool))),
        generation=run.generation,
        rng=rng,
        divergence=colony.divergence,
    )
    colony.settle(after, in_life=True)
    run.log.events(deaths(before, after, run.generation, cause="starved") + births(before, after, in_life=True))
    return died


def live(run: Run, lesson: Witness | None = None) -> Life:
    """One life in worlds that nobody has seen; the lesson witnesses it."""
    run.progress.stage("living")
    streams = run.colony.streams
    life = rollout(
        run.colony.policy,
        run.colony.codec,
        run.world,
        world_seeds(streams["world"], run.config.worlds),
        streams["policy"],
        keep_states=_keeps_states(run),
        keep_positions=run.config.learn.social != "nobody",
        on_step=run.progress.step,
        on_moment=lesson.witness if lesson else None,
        births=partial(replace_starved, run) if run.config.evolution.births_in_life else None,
    )
    run.steps += int(life.trajectory.is_lived.sum())
    run.colony.read_last = texts_read_last(life.trajectory, PROBES)
    if run.first_return is None:
        run.first_return = mean_return(life.trajectory).reshape(life.outcome.episode_return.shape)
    return life


def _keeps_states(run: Run) -> bool:
    """Whether somebody will look at a life: in TensorBoard, on the page, or a teacher."""
    is_shown = run.is_shown(run.generation) or run.config.log.recordings_mb > 0
    is_asked = run.teacher is not None and run.teacher.needs_states
    return run.config.env.is_forage and (is_shown or is_asked)


@contextmanager
def lesson(run: Run) -> Iterator[Witness | None]:
    """What witnesses the life to come, where agents learn while they live; it has stopped when the block ends."""
    witness = run.colony.learner.attend(*_learning_settings(run))
    try:
        yield witness
    finally:
        if witness:
            witness.stop()


def learn(run: Run, life: Life, lesson: Witness | None = None) -> dict[str, float]:
    """Update every adapter from what its agent lived through, as far as the lesson has not done so."""
    run.progress.stage("learning")
    targets = run.teacher.targets(life) if run.teacher else None
    if run.colony.student and targets is not None:
        figures = _learn_as_a_whole(run, life.trajectory, run.colony.student, targets)
    else:
        figures = _learn_by_adapters(run, life, lesson, targets)
    if targets is not None:
        figures |= {"teacher_kl": figures["policy_loss"] / run.config.learn.temperature**2}
    return figures


def _learn_by_adapters(run: Run, life: Life, lesson: Witness | None, targets: np.ndarray | None) -> dict[str, float]:
    """Update every adapter, and check that what learns is what acted."""
    settings = *_learning_settings(run), run.colony.streams["learner"], lesson, _seen(run, life), targets
    figures = run.colony.learner.learn(life.trajectory, *settings)
    if figures["ratio_error"] > MAX_RATIO_ERROR:
        raise RuntimeError(
            f"self-test: before the first update a log-ratio is {figures['ratio_error']:.3f}: must be 0; "
            "what learns is not what acted"
        )
    if figures["not_finite"]:
        log.warning(f"note: gradients of {figures['not_finite']:.0f} adapters were not finite; they stay as they were")
    return figures | health(run.colony.policy, life.trajectory)


def _learn_as_a_whole(run: Run, t: Trajectory, student: WholeModel, targets: np.ndarray) -> dict[str, float]:
    """Update the model that all share, and act by it from now on."""
    start = perf_counter()
    student.remember(t, targets)
    figures = student.learn(run.colony.streams["learner"]) | {"learn_s": perf_counter() - start}
    figures |= health(run.colony.policy, t)
    _act_by_student(run, student)
    return figures


def _act_by_student(run: Run, student: WholeModel) -> None:
    student.write(run.run_dir / "model")
    run.colony.act_by(run.config, run.run_dir / "model")


def _seen(run: Run, life: Life) -> list[np.ndarray] | None:
    """Which steps of others each agent saw in a life and may imitate; None where nobody imitates."""
    learn, env, stream = run.config.learn, run.config.env, run.colony.streams["learner"]
    if learn.social == "nobody":
        return None
    model = social.models(life.positions, life.trajectory, learn.social, env.view_radius, stream)
    return social.pools(model, life.trajectory.is_alive, learn.social_window, env.agents)


def _learning_settings(run: Run) -> tuple[torch.Tensor, torch.Tensor]:
    """Learning rate and entropy coefficient of each agent, (P,) both."""
    return run.colony.hyperparameter("learning_rate"), run.colony.hyperparameter("entropy_coef")


def measure(run: Run) -> Outcome:
    """Fitness: mean return in worlds that are new, and the same for all agents."""
    run.progress.stage("measuring")
    colony, streams, settings = run.colony, run.colony.streams, run.config.evolution
    seeds = world_seeds(streams["fitness"], settings.episodes)
    if run.hall and run.hall.champions and settings.hall_episodes:
        outcome = beside_champions(run, run.hall, seeds)
    else:
        told = run.progress.step
        outcome = rollout(colony.policy, colony.codec, run.trial, seeds, streams["policy"], on_step=told).outcome
    colony.measure(outcome)
    return outcome
