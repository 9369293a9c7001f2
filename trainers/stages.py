"""The stages of a run, in the order in which `trainers.train` goes through them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch

from agents.types import UserError
from agents.weights.frozen import product_dtype
from envs.look.render import rgb_array
from envs.types import members
from envs.worlds.world import ForageWorld, World
from evolution import next_generation, select_top_k
from evolution.events import births, deaths, lives, starvations
from evolution.generation import with_children
from evolution.genome import Adapter, diversity
from evolution.mutation import add_safe_noise
from trainers import run_folder
from trainers.checkpoint import prune_checkpoints, save_checkpoint
from trainers.colony import Colony, colony_state, colony_tensors, found_colony
from trainers.config import EnvConfig, TrainConfig
from trainers.evaluate import compare, contestants, held_out_seeds, table
from trainers.learning import social
from trainers.learning.health import health
from trainers.learning.learner import Witness
from trainers.learning.whole_model import WholeModel
from trainers.progress import Progress, counted
from trainers.recording import prune_recordings, recorded, write_recording
from trainers.rivalry import (
    Hall,
    Player,
    line_up,
    of_themselves,
    pairings,
    play_matches,
    ratings,
    share_won,
    with_guests,
)
from trainers.rollout import Life, Outcome, Trajectory, rollout
from trainers.run_log import RunLog
from trainers.seeding import world_seeds
from trainers.teacher import Teacher, open_teacher
from trainers.worlds import make_worlds

MAX_RATIO_ERROR = 0.05
"""Who learns computes with other rows in its batches than who acts; that changes last digits, and no more."""


@dataclass
class Run:
    """A run under way."""

    config: TrainConfig
    run_dir: Path
    colony: Colony
    log: RunLog
    history: dict[str, Any]  # what must be known of the generations before: saved in every checkpoint
    progress: Progress
    worlds: list[World]  # to learn in, by turns
    trials: list[World]  # to be judged in, by turns
    hall: Hall | None  # champions of the past, where populations breed apart
    teacher: Teacher | None  # where somebody says how it is done
    started: float = 0.0  # of this generation, perf_counter
    steps: int = 0  # of this generation, of all agents together
    first_return: np.ndarray | None = None  # (W, N), of this generation's first life

    @property
    def generation(self) -> int:
        """The generation that is living now."""
        return self.history["generation"] + 1

    def env_of(self, generation: int) -> EnvConfig:
        """The world in which a generation lives."""
        env = self.config.env
        return list(env.kinds.values())[generation % len(self.worlds)] if env.by_turns else env

    @property
    def world(self) -> World:
        """In which this generation learns."""
        return self.worlds[self.generation % len(self.worlds)]

    @property
    def trial(self) -> World:
        """In which this generation is judged."""
        return self.trials[self.generation % len(self.trials)]


def begin(config: TrainConfig, resume: Path | None) -> Run:
    """Found the colony or restore it, and open the run folder; what is wrong is found before anything is written."""
    run_dir = Path(config.run_dir)
    if resume is None:
        run_folder.require_free(run_dir)
        colony, history = found_colony(config), dict(run_folder.NEW_HISTORY)
        if config.founders:
            run_folder.settle_founders(colony, config, Path(config.founders))
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
    log = RunLog(run_dir, history["generation"])  # refuses damaged files before anything is written
    if resume is None:
        log.events(births([], colony.population))
    else:
        (run_dir / "results.json").unlink(missing_ok=True)
        run_folder.write_config(run_dir, config)
    run = Run(config, run_dir, colony, log, history, Progress(config), worlds, trials, hall, teacher)
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
    """The generations still to live, with progress shown meanwhile."""
    with run.progress:
        while run.generation < run.config.generations:
            run.started, run.steps, run.first_return = perf_counter(), 0, None
            run.progress.generation(run.generation)
            yield run.generation


def evolve(run: Run) -> dict[str, float]:
    """Let the fittest breed; their children take the places of the others. Returns what is worth logging.

    Reptile (Nichol et al. 2018, arXiv:1803.02999, batched): nobody breeds, the beginning of all moves to their ends.
    """
    if run.config.evolution.inheritance == "reptile":
        run.colony.begin_nearer(run.config.evolution.reptile_step)
        return {}
    settings, before = run.config.evolution, run.colony.population
    heritage, after, new_id = run.colony.heritage(), [], 1 + max(genome.id for genome in before)
    for slots in members(run.config.env) if settings.apart else [slice(None)]:
        after += next_generation(
            heritage[slots],
            generation=run.generation,
            elites=settings.elites,
            parents=settings.parents,
            selection=settings.selection,
            rng=run.colony.streams["evolution"],
            first_id=new_id,
            **_breeding(run),
        )
        new_id = max(new_id - 1, *(genome.id for genome in after)) + 1
    born = [new for old, new in zip(before, after, strict=True) if new.id != old.id]
    figures = {"kl_to_parent": run.colony.kl_to_parent(born)} if born else {}
    run.colony.settle(after)
    run.log.events(deaths(before, after, run.generation) + births(before, after))
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
    after = with_children(
        before,
        np.flatnonzero(died).tolist(),
        select_top_k(pool, len(pool)),
        generation=run.generation,
        parents=min(settings.parents, len(pool)),
        rng=rng,
        **_breeding(run),
    )
    colony.settle(after, in_life=True)
    run.log.events(deaths(before, after, run.generation, cause="starved") + births(before, after, in_life=True))
    return died


def _breeding(run: Run) -> dict[str, Any]:
    """How children are made, as `evolution.breed` and `evolution.next_generation` take it."""
    settings = run.config.evolution
    names = ("crossover", "mutation_rate", "hyperparameter_factor")
    mutate = partial(_mutate_safely, run) if settings.mutation == "safe" else None
    return {name: getattr(settings, name) for name in names} | {"mutate": mutate}


def _mutate_safely(run: Run, adapter: Adapter, generator: torch.Generator) -> Adapter:
    return add_safe_noise(adapter, run.config.evolution.mutation_kl, generator, run.colony.divergence)


def live(run: Run, lesson: Witness | None = None) -> Life:
    """One life in worlds that nobody has seen; the lesson witnesses it."""
    run.progress.life()
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
    run.steps += life.steps
    if run.first_return is None:
        run.first_return = life.outcome.episode_return
    return life


def _keeps_states(run: Run) -> bool:
    """Whether somebody will look at a life: in TensorBoard, on the page, or a teacher."""
    is_shown = _is_shown(run, run.generation) or run.config.log.recordings_mb > 0
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
    stream = run.colony.streams["learner"]
    targets = run.teacher.targets(life) if run.teacher else None
    if run.colony.student and targets is not None:
        return _learn_as_a_whole(run, life.trajectory, run.colony.student, targets)
    settings = *_learning_settings(run), stream, lesson, _seen(run, life), targets
    figures = run.colony.learner.learn(life.trajectory, *settings)
    if figures["ratio_error"] > MAX_RATIO_ERROR:
        raise RuntimeError(
            f"self-test: before the first update a log-ratio is {figures['ratio_error']:.3f}: must be 0; "
            "what learns is not what acted"
        )
    if figures["not_finite"]:
        print(f"note: gradients of {figures['not_finite']:.0f} adapters were not finite; they stayed as they were")
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
        outcome = _beside_champions(run, run.hall, seeds)
    else:
        outcome = rollout(colony.policy, colony.codec, run.trial, seeds, streams["policy"]).outcome
    colony.measure(outcome)
    return outcome


def _beside_champions(run: Run, hall: Hall, seeds: np.ndarray) -> Outcome:
    """What everybody came to in as many worlds (E,), the last of which each population shares with past champions."""
    env, shared, stream = run.config.env, run.config.evolution.hall_episodes, run.colony.streams["fitness"]
    among_us = len(seeds) - shared
    guests = [hall.draw(population, shared, stream) for population in range(env.populations)]
    values = torch.cat([run.colony.policy.mind.bank.values, *guests])
    numbers = np.arange(shared * env.populations).reshape(env.populations, shared)
    carried = line_up(env, among_us, numbers.tolist())
    seeds = np.concatenate([seeds[:among_us], np.tile(seeds[among_us:], env.populations)])
    policy, stream = with_guests(run.colony.policy, values), run.colony.streams["policy"]
    return of_themselves(rollout(policy, run.colony.codec, run.trial, seeds, stream, carried=carried).outcome, carried)


def compete(run: Run) -> dict[str, float]:
    """Let the new champions of populations that breed apart play past ones.

    Returns their ratings, from all matches so far, over those of the first generation's champions.
    """
    if run.hall is None:
        return {}
    run.progress.stage("competing")
    env, colony, generation = run.config.env, run.colony, run.generation
    fittest = [max(range(*own.indices(env.agents)), key=lambda n: colony.population[n].fitness) for own in members(env)]
    run.hall.add(colony.policy.mind.bank.values[fittest])
    pairs = pairings(generation, env.populations)
    food = play_matches(colony.policy, colony.codec, env, [[run.hall.of(p) for p in pair] for pair in pairs])
    matches: list[dict[str, Any]] = [
        {"generation": generation, "sides": [list(player) for player in pair], "food": told}
        for pair, told in zip(pairs, food, strict=True)
    ]
    run.log.matches(matches)
    rated, figures = ratings(run.log.played), dict[str, float]()
    founders = float(np.mean([rated[Player(population, 0)] for population in range(env.populations)]))
    for population in range(env.populations):
        own = [m for m in matches if m["sides"][0][0] == population and m["sides"][1][1] < generation]
        fitness = [genome.fitness for genome in colony.population[members(env)[population]]]
        figures |= {f"fitness_{population}": float(np.mean(fitness))}
        figures |= {f"rating_{population}": rated[Player(population, generation)] - founders}
        figures |= {f"won_{population}": share_won(own)} if own else {}
    return figures


def _is_shown(run: Run, generation: int) -> bool:
    """Whether this is one of the generations of which there are pictures."""
    every = run.config.log.episode_every
    return run.config.env.is_forage and bool(every) and generation % every == 0


def show(run: Run, life: Life, generation: int) -> None:
    """Keep the life to be looked at; of some generations also one in a held-out world."""
    if _is_shown(run, generation):
        run.log.episode([rgb_array(state, run.env_of(generation), cell=12) for state in life.states[::2]], generation)
        keep_held_out(run, generation)
    keep(run, life, "life", generation)


def keep_held_out(run: Run, generation: int) -> None:
    """Let all live in a held-out world, the same for all runs in such worlds, and keep it to be looked at."""
    if run.config.env.is_forage and run.config.log.recordings_mb:
        policy, codec, world = run.colony.policy, run.colony.codec, ForageWorld(run.env_of(generation))
        rng = np.random.default_rng(generation)
        life = rollout(policy, codec, world, held_out_seeds(1, 0), rng, keep_states=True)
        keep(run, life, "held_out", generation)


def keep(run: Run, life: Life, kind: str, generation: int) -> None:
    """Record a life, as far as recordings are wanted and there is a picture of this world."""
    if run.config.env.is_forage and run.config.log.recordings_mb:
        folder, ids = run.run_dir / "recordings", [genome.id for genome in run.colony.population]
        recording = recorded(life, run.env_of(generation), ids, generation)
        write_recording(recording, folder / f"{kind}_{generation:04d}.safetensors")
        prune_recordings(folder, run.config.log.recordings_mb)


def record(run: Run, life: Life, learned: dict[str, float], outcome: Outcome) -> None:
    """Write down the generation: metrics, lineage, pictures, then the checkpoint that makes it count."""
    generation, history, population = run.generation, run.history, run.colony.population
    if generation == 0:
        run.progress.stage("comparing")
        compared = run.colony, run.config.env, run.config.held_out_episodes, run.config.seed
        history["first"] = compare(*compared, run.progress.stage)
        run_folder.replace_text(run.run_dir / "first.json", json.dumps(history["first"], indent=2) + "\n")
    figures = _figures(run, life, learned, outcome)
    history |= {key: figures[key] for key in ("generation", "env_steps", "fitness_steps")}
    if history["best_fitness"] is None or figures["fitness_mean"] > history["best_fitness"]:
        history |= {"best": generation, "best_fitness": figures["fitness_mean"]}
    if run.config.env.is_forage:  # elsewhere an episode can end without anybody dying
        run.log.events(starvations(population, life.outcome.lifetime, life.outcome.is_alive, generation))
    assert run.first_return is not None
    run.log.events(lives(population, run.first_return, generation))
    run.log.metrics(figures)
    run.log.adapters(population, generation)
    show(run, life, generation)
    # A run that is resumed here has no answers either, and has not counted what was read to be shown
    run.colony.policy.forget_answers()
    run.colony.policy.mind.memory.take_counts()
    # Before the checkpoint: once that is there, nothing of this generation is done again.
    if generation % run.config.log.adapters_every == 0 or generation == run.config.generations - 1:
        run_folder.export_adapters(run.run_dir, generation, run.config, run.colony)
    state = {**history, "colony": colony_state(run.colony)}
    save_checkpoint(run.run_dir, generation, colony_tensors(run.colony), state)
    run.colony.learner.optimiser.let_go()
    prune_checkpoints(run.run_dir, run.config.log.checkpoints, history["best"])
    run.progress.done(figures)


def report(run: Run) -> dict[str, Any]:
    """Compare the last generation and the first with the yardsticks, print the table and write results.json."""
    env, first = run.config.env, run.history["first"]
    with counted(len(contestants(env))) as tell:
        last = compare(run.colony, env, run.config.held_out_episodes, run.config.seed, tell)
    generation = run.history["generation"]
    keep_held_out(run, generation)
    run_folder.replace_text(run.run_dir / "results.json", json.dumps({"first": first, "last": last}, indent=2) + "\n")
    run.log.outcome(_settings(run.config), _results(last), run.colony.population)
    run.log.close()
    print("\n" + table(last, f"generation {generation}", first if generation else None))
    watch = f"  or  python -m trainers.watch {run.run_dir}" if run.config.env.is_forage else ""
    print(f"\nLook closer:  tensorboard --logdir {run.run_dir / 'tb'}{watch}")
    return last


def _settings(config: TrainConfig) -> dict[str, Any]:
    """What tells runs apart, as TensorBoard shows it."""
    sections = {"learn": config.learn, "evolution": config.evolution, "adapter": config.adapter}
    told = {f"{name}.{key}": value for name, section in sections.items() for key, value in vars(section).items()}
    told |= {"seed": config.seed, "env": config.env.preset if config.env.is_forage else config.env.id}
    told |= {"model.name": config.model.name, "lives": config.lives, "founders": config.founders}
    return {key: value for key, value in told.items() if isinstance(value, bool | int | float | str)}


def _results(last: dict[str, Any]) -> dict[str, float]:
    """What a run came to in held-out worlds."""
    found = {f"held_out/{key}": last[key]["agents"]["mean"] for key in ("fitness", "food_eaten") if key in last}
    return found | ({"held_out/share_of_planner": last["share_of_planner"]} if "share_of_planner" in last else {})


def _figures(run: Run, life: Life, learned: dict[str, float], outcome: Outcome) -> dict[str, Any]:
    lived, memory = life.trajectory, run.colony.policy.mind.memory
    asked, read = memory.take_counts()
    told = {f"{name}_mean": float(values.mean()) for name, values in outcome.figures.items()}
    fitness = [genome.fitness for genome in run.colony.population]
    return {
        "generation": run.generation,
        "env_steps": run.history["env_steps"] + run.steps,
        "fitness_steps": run.history["fitness_steps"] + int(outcome.lifetime.sum()),
        "wall_s": perf_counter() - run.started,
        "fitness_mean": float(np.mean(fitness)),
        "fitness_max": max(fitness),
        "fitness_std": float(np.std(fitness)),
        "lifetime_mean": float(outcome.lifetime.mean()),
        "diversity": diversity([genome.adapter for genome in run.colony.population]),
        "reward_mean": float(lived.reward[lived.is_alive].mean()),
        "decide_ms": float(np.median(life.decide_s)) * 1000,
        "texts_known": len(memory),
        "text_memory_mb": memory.bytes_used / 2**20,
        "texts_read": read,
        "text_hit_rate": 1 - read / asked,
        **told,
        **learned,
    }
