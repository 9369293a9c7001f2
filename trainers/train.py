"""The main program: a population of small language models lives, learns and evolves.

python -m trainers.train [--config FILE] [--run_dir DIR] [--seed N] [--generations N] [--any.key VALUE]
python -m trainers.train --resume RUN_DIR [--generations N]

config ─> population ─> generation:  evolve    select, breed, mutate (from the second on)  (evolution)
                                     live      one episode in new worlds                   (rollout)
                                     learn     one batched update of all adapters          (learner)
                                     measure   fitness in worlds common to all             (rollout)
                                     record    metrics, checkpoint, adapters, lineage      (run folder)
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainers.command_line import run_command
from trainers.config import TrainConfig

if TYPE_CHECKING:
    from trainers.stages import Run


def train(config: TrainConfig, resume: Path | None = None) -> dict[str, Any]:
    """Run `config.generations` generations; return the comparison with the yardsticks on held-out worlds.

    With `resume`, go on from the newest checkpoint in that run folder: the result equals that of a run never stopped.
    Raises UserError for a run folder that is not empty, or that cannot be resumed.
    """
    from trainers import stages  # here, not above: torch takes seconds to import, and --help should not wait for it

    run = stages.begin(config, resume)
    live_through(run)
    return stages.report(run)


def live_through(run: "Run") -> None:
    """All generations of a run, one after the other."""
    from trainers import stages

    for generation in stages.generations(run):
        inherited = stages.evolve(run) if generation > 0 and run.config.evolution.enabled else {}
        with stages.lesson(run) as lesson:
            life = stages.live(run, lesson)
            learned = stages.learn(run, life, lesson)
        outcome = stages.measure(run)
        stages.record(run, life, inherited | learned, outcome)


def main(argv: list[str] | None = None) -> None:
    """Train from the command line. A mistake in it is one sentence and exit code 2."""
    from trainers.parser import parse

    run_command(lambda: train(*parse(argv)))


if __name__ == "__main__":
    main()
