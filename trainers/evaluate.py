"""Compare a population with the baselines on layouts that no agent ever trained on.

    python -m trainers.evaluate RUN_DIR [--generation G] [--episodes N] [--seed N] [--preset NAME] [--backend NAME]
                                [--json]

`trainers.comparison` says who plays, and what is compared.
"""

import json

from agents.types import log
from trainers.cli.command_line import parse_run_arguments, run_command
from trainers.cli.parser import read_config
from trainers.cli.progress import counted
from trainers.comparison import compare, contestants, table


def main(argv: list[str] | None = None) -> None:
    """Evaluate a run from the command line."""
    options = parse_run_arguments(
        "evaluate",
        argv,
        episodes=(int, 8, "held-out worlds to play"),
        seed=(int, 0, "which held-out worlds"),
        preset=(str, None, "a forage world to play in place of the run's own, known to the agents or not"),
        backend=(str, "torch", "who answers for the model: torch, llama_cpp, onnx or mlx"),
        json=(bool, False, "print one JSON object instead of a table"),
    )

    def evaluate() -> None:
        read_config(options.run_dir)  # says at once what is wrong with a folder that is none of ours
        log.info("loading libraries")
        from agents.backends import open_backend
        from trainers.records.opening import open_run

        on_cpu = options.backend != "torch"
        population, config, generation = open_run(options.run_dir, options.generation, on_cpu)
        population.policy.backend = open_backend(options.backend, population.policy.network)
        env = config.env.other_preset(options.preset) if options.preset else config.env
        with counted(len(contestants(env))) as show:
            result = compare(population, env, options.episodes, options.seed, show)
        print(json.dumps(result) if options.json else table(result, f"generation {generation}"))

    run_command(evaluate)


if __name__ == "__main__":
    main()
