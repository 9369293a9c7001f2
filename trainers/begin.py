"""Set a run up: found its population or restore it, and open its folder."""

from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from agents.device import chosen_device
from agents.types import log, require
from agents.weights.frozen import product_dtype
from envs.worlds.world import World
from evolution.events import births
from trainers.cli.progress import Progress
from trainers.config import TrainConfig
from trainers.env_config import EnvConfig
from trainers.population import Population, found_population
from trainers.records import run_folder
from trainers.records.checkpoint import prune_checkpoints
from trainers.records.opening import init_from, restore
from trainers.records.repair import refuse_if_done, repair
from trainers.records.run_log import RunLog
from trainers.stages import History, Run
from trainers.variants import open_variants
from trainers.worlds import make_worlds


def begin(config: TrainConfig, resume: Path | None, strict: bool = False) -> Run:
    """Set a run up, new or to go on; what the user asked for wrongly is found before anything is written.

    strict: raise DamagedRun where a run that goes on is not whole, and change nothing.
    """
    run_dir = Path(config.run_dir)
    if resume is None:
        config, population, history = _found(config, run_dir)
    else:
        refuse_if_done(run_dir, config.generations)
        repair(run_dir, strict)
        population, history = restore(run_dir, config)
        prune_checkpoints(run_dir, config.log.checkpoints, history.best)  # which a killed process may have left undone
        config = _with_choices(config, population)
    worlds, trials = (make_worlds(config.env, renews=renews) for renews in (True, False))
    roles = _roles(config.env, worlds[0])
    require(not (roles and config.learn.pool), "learn.pool", True, "false where agents differ in role")
    is_es = config.evolution.strategy == "es"
    require(not (roles and is_es), "evolution.strategy", "es", "genetic where agents differ in role")
    if resume is None:
        run_folder.create(run_dir, config, population.policy)
    tags = {tag: about for variant in population.variants.values() for tag, about in variant.tags.items()}
    run_log = RunLog(run_dir, history.generation, tags)
    with ExitStack() as where_it_fails:
        where_it_fails.callback(run_log.let_go)  # its thread would go on, and say later what was said here
        if resume is None:
            run_log.events(births([], population.genomes, roles))
        else:
            (run_dir / "results.json").unlink(missing_ok=True)
            run_folder.write_config(run_dir, config)
        _announce(config, roles)
        after = [stage for variant in population.variants.values() for stage in variant.stages]
        progress = Progress(config, history.generation + 1, after)
        copies = run_folder.copies(run_dir)
        where_it_fails.pop_all()
    return Run(config, run_dir, copies, population, run_log, history, progress, worlds, trials, roles)


def _found(config: TrainConfig, run_dir: Path) -> tuple[TrainConfig, Population, History]:
    """A new population; the config says then which device and which number format were chosen."""
    run_dir.mkdir(parents=True, exist_ok=True)
    run_folder.require_free(run_dir)
    population, history = found_population(config), History()
    if config.init_from:
        history = History(age=init_from(population, config, Path(config.init_from)))
    config = _with_choices(config, population)
    population.variants = open_variants(config, population, run_dir)
    return config, population, history


def _with_choices(config: TrainConfig, population: Population) -> TrainConfig:
    """The config with what was chosen in the place of `auto`."""
    dtype = product_dtype(population.policy.network.base.decoder)
    return replace(config, model=replace(config.model, dtype=dtype, device=chosen_device(config.model)))


def _roles(env: EnvConfig, world: World) -> list[str]:
    """The role of each agent, within which fitness is compared and agents breed; [] where all have the same."""
    return list(world.roles) if env.by_role and len(set(world.roles)) > 1 else []


def _announce(config: TrainConfig, roles: list[str]) -> None:
    if config.evolution.enabled and config.env.agents == 1:
        log.warning("note: one agent has nobody to breed with; it lives on and only learns")
    title, run_dir = config.env.title, Path(config.run_dir)
    log.info(f"{config.env.agents} agents in {title}, {config.generations} generations; results go to {run_dir}")
    if roles:
        counts = ", ".join(f"{count} {role}" for role, count in Counter(roles).items())
        log.info(f"{counts}: fitness is compared, and agents breed, within a role")
