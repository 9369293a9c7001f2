"""Compare runs that differ in one thing: makes the runs of an experiment and writes what they show into its page.

    python -m benchmarks.compare social|adaptation|distillation|rivals [--seeds N] [--generations N] [--jobs N]
                                 [--runs DIR] [--page FILE] [any key of the main program]

Each run is an ordinary one of `trainers.train`. A finished run is not made again, an interrupted one is resumed, and
keys of the main program hold for all runs. Tables go into the page, a picture and every number beside it. The
experiments are in `benchmarks.experiments`; EXPERIMENT --help says what each asks. Needs the `dev` extra.
"""

import argparse
from itertools import zip_longest
from pathlib import Path

from benchmarks.experiments import EXPERIMENTS, Experiment, Groups
from benchmarks.results import check_sections, markdown, write
from benchmarks.runs import Run, run_parallel
from trainers.cli.command_line import run_command


def parse(argv: list[str] | None = None) -> tuple[Experiment, argparse.Namespace]:
    """The experiment and its options; `options.keys` are the words that are meant for the main program."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw, allow_abbrev=False)
    experiments = parser.add_subparsers(dest="experiment", required=True, metavar="EXPERIMENT")
    for name, experiment in EXPERIMENTS.items():
        about = experiment.about
        command = experiments.add_parser(
            name, description=about, help=about.splitlines()[0], formatter_class=raw, allow_abbrev=False
        )
        command.add_argument("--seeds", type=int, default=3, help="runs of each condition (3)")
        command.add_argument("--generations", type=int, default=experiment.generations)
        command.add_argument("--jobs", type=int, default=2, help="runs at a time, each on one thread (2)")
        command.add_argument("--runs", type=Path, default=Path("runs") / experiment.folder, metavar="DIR")
        command.add_argument("--page", type=Path, default=Path("docs") / f"{experiment.folder}.md", metavar="FILE")
        for option, settings in experiment.options.items():
            command.add_argument(option, **settings)
    options, keys = parser.parse_known_args(argv)
    options.keys = keys
    experiment = EXPERIMENTS[options.experiment]
    if options.generations < experiment.least_generations:
        parser.error(f"--generations {options.generations}: must be {experiment.least_generations} or more")
    return experiment, options


def main(argv: list[str] | None = None) -> None:
    """Make the runs that are missing, then write and print the results."""
    experiment, options = parse(argv)
    check_sections(options.page, *experiment.sections)
    groups: Groups = {}
    for stage in experiment.stages(options):
        by_seed = zip_longest(*stage.values())  # so that an interrupted comparison has whole seeds
        run_parallel(options.jobs, Run.train, [run for runs in by_seed for run in runs if run])
        groups |= stage
    results = experiment.evaluate(groups, options)
    write(results, options.page)
    print("\n\n".join(map(markdown, results.tables.values())))


if __name__ == "__main__":
    run_command(main)
