"""The last stage of a generation, and of a run: write down what it came to, and keep it to be looked at."""

import json
from time import perf_counter
from typing import Any

import numpy as np

from envs.look.render import rgb_array
from envs.worlds.world import ForageWorld
from evolution.commands import command, script
from evolution.events import lives, starvations
from evolution.genome import diversity
from trainers import run_folder
from trainers.checkpoint import prune_checkpoints, save_checkpoint
from trainers.colony import colony_state, colony_tensors
from trainers.config import TrainConfig
from trainers.evaluate import compare, held_out_seeds, table
from trainers.recording import prune_recordings, recorded, write_recording
from trainers.rollout import Life, Outcome, rollout
from trainers.run import Run


def record(run: Run, life: Life, learned: dict[str, float], outcome: Outcome) -> None:
    """Write down the generation: metrics, lineage, pictures, then the checkpoint that makes it count."""
    generation, history, population = run.generation, run.history, run.colony.population
    figures = _figures(run, life, learned, outcome)  # first: comparing takes time, and reads texts
    if generation == 0:
        run.progress.stage("comparing")
        compared = run.colony, run.config.env, run.config.held_out_episodes, run.config.seed
        history["first"] = compare(*compared, run.progress.detail)
        run_folder.replace_text(run.run_dir / "first.json", json.dumps(history["first"], indent=2) + "\n")
    # From here on `run.generation` is the next one
    history |= {key: figures[key] for key in ("generation", "env_steps", "fitness_steps")}
    if history["best_fitness"] is None or figures["fitness_mean"] > history["best_fitness"]:
        history |= {"best": generation, "best_fitness": figures["fitness_mean"]}
    if run.config.env.is_forage:  # elsewhere an episode can end without anybody dying
        run.log.events(starvations(population, life.outcome.lifetime, life.outcome.is_alive, generation))
    assert run.first_return is not None
    run.log.events(lives(population, run.first_return, generation))
    run.log.metrics(figures)
    run.log.yardsticks(history["first"], generation)
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
    run.progress.generation(run.generation)
    run.progress.stage("comparing")
    last = compare(run.colony, env, run.config.held_out_episodes, run.config.seed, run.progress.detail)
    generation = run.history["generation"]
    keep_held_out(run, generation)
    run_folder.replace_text(run.run_dir / "results.json", json.dumps({"first": first, "last": last}, indent=2) + "\n")
    run.log.outcome(_settings(run.config), _results(last), run.colony.population, generation)
    run.log.close()
    print("\n" + table(last, f"generation {generation}", first if generation else None))
    ways = [command("trainers.watch", run.run_dir)] if env.is_forage else []
    ways += [command("dashboard", run.run_dir), script("tensorboard", "--logdir", run.run_dir / "tb")]
    print("\nLook closer:\n" + "\n".join(f"    {way}" for way in ways))
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
        **{f"fitness_of_{role}": mean for role, mean in _fitness_by_role(run).items()},
        **told,
        **learned,
    }


def _fitness_by_role(run: Run) -> dict[str, float]:
    """Mean fitness of the agents of each role; {} where all have the same."""
    fitness = np.array([genome.fitness for genome in run.colony.population])
    return {role: float(fitness[np.array(run.roles) == role].mean()) for role in dict.fromkeys(run.roles)}


def show(run: Run, life: Life, generation: int) -> None:
    """Keep the life to be looked at; of some generations also one in a held-out world."""
    if run.is_shown(generation):
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
