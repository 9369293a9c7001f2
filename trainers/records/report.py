"""The last stage of a generation, and of a run: write down what it came to, and keep it to be looked at."""

from collections.abc import Sequence
from dataclasses import asdict, fields, is_dataclass, replace
from time import perf_counter
from typing import Any

import numpy as np

from agents.weights.compact import trim_memory
from envs.rendering.render import rgb_array
from envs.types import WorldState
from envs.worlds.world import ForageWorld, Pictured
from evolution.commands import command, script
from evolution.events import evaluations, starvations
from evolution.genome import diversity
from trainers.comparison import compare, held_out_seeds, table
from trainers.config import TrainConfig
from trainers.records import run_folder
from trainers.records.checkpoint import prune_checkpoints, save_checkpoint
from trainers.records.episode import name_of, prune_recordings, recorded, write_recording
from trainers.records.population_state import population_state, population_tensors
from trainers.records.sealed import sealed_json
from trainers.rollout import Outcome, Rollout, collect_rollout
from trainers.stages import Generation, History, Run, States


def record(run: Run, generation: Generation, rollout: Rollout, learned: dict[str, float], outcome: Outcome) -> None:
    """Write down the generation: metrics, lineage, pictures, then the checkpoint that makes it count.

    rollout: the generation's latest. learned: what else is worth logging.
    """
    number, population, config = generation.number, run.population, run.config
    population.policy.answers.keep(population.likely_texts())  # before any that only looking asks for
    figures = _figures(run, generation, rollout, learned, outcome)  # first: comparing takes time, and reads texts
    history = _history(run, number, figures)
    if isinstance(run.world(number), Pictured):  # elsewhere an episode can end without anybody dying
        lifetime, is_alive = rollout.outcome.lifetime, rollout.outcome.is_alive
        run.log.events(starvations(population.genomes, lifetime, is_alive, number))
    assert generation.first_return is not None
    assert history.first
    run.log.events(evaluations(population.genomes, generation.first_return, number))
    run.log.metrics(figures)
    run.log.baselines(history.first, number)
    run.log.adapters(population.genomes, number)
    show(run, generation, rollout)
    # A run that is resumed here has no other answers either, and has not counted what was read to be shown
    population.policy.answers.forget()
    population.policy.network.cache.take_counts()
    # Before the checkpoint: once that is there, nothing of this generation is done again.
    if number % config.log.adapters_every == 0 or number == config.generations - 1:
        run_folder.export_adapters(run.run_dir, number, config, population)
    state = {**asdict(history), "population": population_state(population)}
    lines = run.log.seal(number)
    if population.policy.network.is_compact:
        trim_memory()  # for all moments are read
    save_checkpoint(run.run_dir, number, population_tensors(population), state, run.copies | lines)
    population.learner.optimiser.let_go()
    prune_checkpoints(run.run_dir, config.log.checkpoints, history.best)
    run.history = history
    run.progress.done(figures)


def _history(run: Run, number: int, figures: dict[str, Any]) -> History:
    """With this generation, which is compared with the baselines if it is the first."""
    history = replace(run.history, **{key: figures[key] for key in ("generation", "env_steps", "fitness_steps")})
    if number == 0:
        run.progress.stage("comparing")
        compared = run.population, run.config.env, run.config.held_out_episodes, run.config.seed
        first = compare(*compared, run.progress.detail)
        history = replace(history, first=first)
        run_folder.replace_text(run.run_dir / "first.json", sealed_json(first))
    if history.best_fitness is None or figures["fitness_mean"] > history.best_fitness:
        history = replace(history, best=number, best_fitness=figures["fitness_mean"])
    return history


def report(run: Run) -> dict[str, Any]:
    """Compare the last generation and the first with the baselines, print the table and write results.json."""
    env, first = run.config.env, run.history.first
    run.progress.generation(run.history.generation + 1)
    run.progress.stage("comparing")
    last = compare(run.population, env, run.config.held_out_episodes, run.config.seed, run.progress.detail)
    number = run.history.generation
    run_folder.replace_text(run.run_dir / "results.json", sealed_json({"first": first, "last": last}))
    run.log.outcome(_settings(run.config), _results(last), run.population.genomes, number)
    run.log.close()
    print("\n" + table(last, f"generation {number}", first if number else None))
    ways = [command("trainers.watch", run.run_dir)] if isinstance(run.worlds[0], Pictured) else []
    ways += [command("dashboard", run.run_dir), script("tensorboard", "--logdir", run.run_dir / "tb")]
    print("\nLook closer:\n" + "\n".join(f"    {way}" for way in ways))
    return last


def _settings(config: TrainConfig) -> dict[str, Any]:
    """What tells runs apart, as TensorBoard shows it."""
    found = {
        "seed": config.seed,
        "env": config.env.title,
        "model.name": config.model.name,
    }
    found |= {name: getattr(config, name) for name in ("rollouts_per_generation", "init_from")}
    for name in (field.name for field in fields(config) if field.name not in ("env", "model", "log")):
        section = getattr(config, name)
        if is_dataclass(section):
            found |= {f"{name}.{key}": value for key, value in vars(section).items()}
    return {key: value for key, value in found.items() if isinstance(value, bool | int | float | str)}


def _results(last: dict[str, Any]) -> dict[str, float]:
    """What a run came to in held-out worlds."""
    keys = [key for key in ("fitness", "food_eaten", "success") if key in last]
    found = {f"held_out/{key}": last[key]["agents"]["mean"] for key in keys}
    return found | ({"held_out/share_of_planner": last["share_of_planner"]} if "share_of_planner" in last else {})


def _figures(
    run: Run, generation: Generation, rollout: Rollout, learned: dict[str, float], outcome: Outcome
) -> dict[str, Any]:
    t, memory = rollout.trajectory, run.population.policy.network.cache
    asked, read = memory.take_counts()
    means = {f"{name}_mean": float(np.nanmean(values)) for name, values in outcome.figures.items()}
    fitness = [genome.fitness for genome in run.population.genomes]
    return {
        "generation": generation.number,
        "env_steps": run.history.env_steps + generation.steps,
        "fitness_steps": run.history.fitness_steps + int(outcome.lifetime.sum()),
        "wall_s": perf_counter() - generation.started,
        "fitness_mean": float(np.mean(fitness)),
        "fitness_max": max(fitness),
        "fitness_std": float(np.std(fitness)),
        "lifetime_mean": float(outcome.lifetime.mean()),
        "diversity": diversity([genome.adapter for genome in run.population.genomes]),
        "reward_mean": float(t.reward[t.is_alive].mean()),
        "decide_ms": float(np.median(rollout.decide_s)) * 1000,
        "texts_known": len(memory),
        "prefix_cache_mb": memory.bytes_used / 2**20,
        "texts_read": read,
        "text_hit_rate": 1 - read / asked,
        **{f"fitness_of_{role}": mean for role, mean in _fitness_by_role(run).items()},
        **means,
        **_rollout_successes(generation),
        **learned,
    }


def _rollout_successes(generation: Generation) -> dict[str, float]:
    """Mean over agents and rollouts of the share of episodes that succeeded, of all and of each task.

    As `Successes.figures` counts: an episode that the end of a rollout cuts off counts only as an agent's first.
    """
    names = dict.fromkeys(name for shares in generation.successes for name in shares)
    met = {name: [shares[name].ravel() for shares in generation.successes if name in shares] for name in names}
    return {f"rollout_{name}_mean": float(np.nanmean(np.concatenate(shares))) for name, shares in met.items()}


def _fitness_by_role(run: Run) -> dict[str, float]:
    """Mean fitness of the agents of each role; {} where all have the same."""
    fitness = np.array([genome.fitness for genome in run.population.genomes])
    return {role: float(fitness[np.array(run.roles) == role].mean()) for role in dict.fromkeys(run.roles)}


def show(run: Run, generation: Generation, rollout: Rollout) -> None:
    """Keep the latest rollout to be looked at; of some generations also an episode in a held-out world."""
    number = generation.number
    if run.is_shown(number):
        run.log.episode([rgb_array(state, run.env(number), cell=12) for state in generation.states[::2]], number)
    if run.is_shown(number) or number == run.config.generations - 1:
        keep_held_out(run, number)
    keep(run, rollout, generation.states, "rollout", number)


def keep_held_out(run: Run, number: int) -> None:
    """Let all live in a held-out world, the same for all runs in such worlds, and keep it to be looked at."""
    if isinstance(run.world(number), Pictured) and run.config.log.recordings_mb:
        policy, codec, world, states = (
            run.population.policy,
            run.population.codec,
            ForageWorld(run.env(number)),
            States(),
        )
        rng = np.random.default_rng(number)
        rollout = collect_rollout(policy, codec, world, held_out_seeds(1, 0), rng, observers=[states])
        keep(run, rollout, states.states, "held_out", number)


def keep(run: Run, rollout: Rollout, states: Sequence[WorldState], kind: str, number: int) -> None:
    """Record the first world of a rollout, as far as recordings are wanted and there is a picture of this world."""
    if states and run.config.log.recordings_mb:
        folder, ids = run.run_dir / "recordings", [genome.id for genome in run.population.genomes]
        recording = recorded(rollout, states, run.env(number), ids, number)
        write_recording(recording, folder / name_of(kind, number))
        prune_recordings(folder, run.config.log.recordings_mb)
