"""The experiments of `benchmarks.compare`: their runs with the arguments of each, and what is made of the results.

A run is an ordinary one of `trainers.train`. The arguments of a condition are keys of that program; the keys on the
command line of a comparison (`options.keys`) hold for all its runs. The score of a run is the food that the agents of
its last generation eat in held-out worlds, as a share of what the full-knowledge planner eats in them.
"""

from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from agents.weights.fetch import model_folder
from benchmarks import champions
from benchmarks.costs import measure
from benchmarks.results import Chart, Results
from benchmarks.runs import HELD_OUT_EPISODES, Run, learning_curve
from benchmarks.statistics import format_interval, interval
from trainers.records.opening import threads_kept

CONFIGS = Path(__file__).parents[1] / "configs"
Arguments = Sequence[object]
Groups = dict[tuple[str, ...], list[Run]]
"""The runs of each condition, one for each seed, by the name of the condition."""


class Experiment(NamedTuple):
    """One comparison of runs."""

    about: str
    stages: Callable[[Namespace], list[Groups]]  # its runs; a stage needs the finished runs of the stage before
    evaluate: Callable[[Groups, Namespace], Results]
    folder: str  # the name of its folder in runs/ and of its page in docs/
    sections: tuple[str, ...] = ("table",)  # of its page
    generations: int = 20  # of a run, unless the command line has another number
    least_generations: int = 1
    options: Mapping[str, Mapping[str, Any]] = {}  # options of its own, as for argparse


def runs_of(options: Namespace, name: Sequence[str], arguments: Arguments) -> list[Run]:
    """The runs of a group, one for each seed.

    Where a list of runs, one for each seed, is among the arguments, a run is given the folder of the one with its seed.
    """
    folder = options.runs.joinpath(*(word.replace(" ", "_") for word in name))
    runs = []
    for seed in range(options.seeds):
        words = [word[seed].run_dir if isinstance(word, list) else word for word in arguments]
        runs.append(Run(folder / f"seed_{seed}", seed, words))
    return runs


def common(options: Namespace, generations: int, config: str | None = None) -> Arguments:
    """The arguments that the runs of an experiment have in common; config: the name of a file in configs/."""
    file = ["--config", CONFIGS / config] if config else []
    return [*file, "--generations", generations, "--held_out_episodes", HELD_OUT_EPISODES, *options.keys]


def one_stage(config: str, conditions: Mapping[tuple[str, ...], Arguments], options: Namespace) -> list[Groups]:
    """The runs of all conditions, each of which changes something in a file of configs/."""
    base = common(options, options.generations, config)
    return [{name: runs_of(options, name, [*base, *changes]) for name, changes in conditions.items()}]


def final_shares(runs: Sequence[Run]) -> list[float]:
    """The score of each run."""
    return [run.evaluation["share_of_planner"] for run in runs]


def shares_on_the_way(runs: Sequence[Run]) -> list[list[float]]:
    """The same after each generation, in the worlds of fitness."""
    return [[point["share"] for point in learning_curve(run)] for run in runs]


def summarise(scores: Sequence[float] | np.ndarray, form: str = ".0%") -> str:
    """The interquartile mean of scores, one for each seed, and its interval as text."""
    return format_interval(interval(scores), form)


RULES = ("nobody", "neighbour", "best", "anyone", "shuffled")
BREEDING: dict[str, Arguments] = {"with breeding": [], "without breeding": ["--evolution.enabled", "false"]}
IMITATION: dict[tuple[str, ...], Arguments] = {
    (breeding, rule): [*changes, "--social.imitate", rule] for breeding, changes in BREEDING.items() for rule in RULES
}


def evaluate_imitation(groups: Groups, options: Namespace) -> Results:
    """How far the runs of each rule came in the end, and on average while they learned."""
    found: dict[str, dict[str, Any]] = {}
    for (breeding, rule), runs in groups.items():
        curves, ends = shares_on_the_way(runs), final_shares(runs)
        found.setdefault(breeding, {})[rule] = {
            "end": interval(ends),
            "on the way": interval([float(np.mean(shares)) for shares in curves]),
            "ends": ends,
            "curves": curves,
            "seconds": float(np.mean([sum(line["wall_s"] for line in run.metrics) for run in runs])),
        }
    columns = [(breeding, when) for breeding in found for when in ("end", "on the way")]
    head = ["imitated", *(f"{breeding}, {when}" for breeding, when in columns)]
    rules = next(iter(found.values()))
    rows = [[rule, *(format_interval(found[breeding][rule][when]) for breeding, when in columns)] for rule in rules]
    panels = {
        breeding: {rule: 100 * np.mean(figures["curves"], axis=0) for rule, figures in by_rule.items()}
        for breeding, by_rule in found.items()
    }
    numbers = {"seeds": options.seeds, "generations": options.generations, "found": found}
    chart = Chart("By generation", panels, "generation", legend="imitated", top=80)
    return Results({"table": [head, *rows]}, numbers, chart)


BEGINNINGS: dict[str, Arguments | None] = {
    "newborn": None,
    "Lamarckian": ["--inheritance.kind", "lamarckian"],
    "Baldwinian": [],
    "Reptile": ["--inheritance.kind", "reptile"],
}
"""What is changed in configs/meta.yaml; None for no run at all."""
UNSEEN: dict[str, Arguments] = {
    "night": ["--env.preset", "night"],
    "rivals": ["--env.preset", "rivals"],
    "meadow, mirrored": ["--env.preset", "meadow", "--env.codec", "benchmarks.words:Mirrored"],
}
"""The worlds that no run has seen. In the last one words mean their opposite, so that what was learned is wrong."""


def adaptation_stages(options: Namespace) -> list[Groups]:
    """First the runs that make the beginnings; then, from each of them in each world, two runs without breeding.

    The run "before" has one generation and learns nothing: this is the score before the first rollout of "after".
    """
    makers: Groups = {}
    learners: Groups = {}
    config = ["--config", CONFIGS / "meta.yaml", "--generations", options.generations, *options.keys]
    for name, changes in BEGINNINGS.items():
        founders: Arguments = []
        if changes is not None:
            makers["beginnings", name] = runs_of(options, ("beginnings", name), [*config, *changes])
            founders = ["--init_from", makers["beginnings", name]]
        for world in options.unseen:
            keys = [*UNSEEN[world], "--evolution.enabled", "false", "--held_out_episodes", HELD_OUT_EPISODES]
            runs = runs_of(options, (world.replace(",", ""), name), [*keys, *options.keys, *founders])
            for part, own in {
                "before": ["--learn.algorithm", "none", "--generations", 1],
                "after": ["--generations", options.rollouts],
            }.items():
                learners[world, name, part] = [
                    run._replace(run_dir=run.run_dir / part, arguments=[*run.arguments, *own]) for run in runs
                ]
    return [makers, learners]


def evaluate_adaptation(groups: Groups, options: Namespace) -> Results:
    """Shares of the planner's food before the first rollout and after each, and the mean: the area under the curve."""

    def curve(before: Run, after: Run) -> list[float]:
        planner = after.evaluation["food_eaten"]["planner"]["mean"]
        return [line["food_eaten_mean"] / planner for run in (before, after) for line in run.metrics]

    curves = {  # (seeds, rollouts + 1)
        (world, name): np.array(list(map(curve, groups[world, name, "before"], groups[world, name, "after"])))
        for world in options.unseen
        for name in BEGINNINGS
    }
    head = ["world", "beginning", "before learning", "after one life", f"after {options.rollouts}", "area"]
    rows = [
        [*name, *map(summarise, (shares[:, 0], shares[:, 1], shares[:, -1], shares.mean(axis=1)))]
        for name, shares in curves.items()
    ]
    panels = {
        f"{world}: never seen before": {name: 100 * curves[world, name].mean(axis=0) for name in BEGINNINGS}
        for world in options.unseen
    }
    shares = {
        f"{world} {name} {seed}": curves[world, name][seed].tolist()
        for seed in range(options.seeds)
        for name in BEGINNINGS
        for world in options.unseen
    }
    size = (2 + 3.5 * len(panels), 3.6)
    chart = Chart("Adaptation", panels, "lives", legend="beginning", top=80, size=size)
    return Results({"table": [head, *rows]}, {"generations": options.generations, "shares": shares}, chart)


PLANNER: Arguments = ["--distillation.teacher", "planner", "--distillation.temperature", 1]
WHOLE: Arguments = [
    *("--model.name", "custom-50m", "--distillation.trains", "model"),
    *("--learn.learning_rate", 3e-4, "--learn.epochs", 2, "--learn.max_grad_norm", 1),
]
STUDENTS: dict[str, tuple[str, Arguments]] = {
    "half the layers, adapters": ("full model", []),
    "half the layers, adapters (planner)": ("planner", PLANNER),
    "50 MB from scratch, all weights": ("full model", WHOLE),
    "50 MB from scratch, all weights (planner)": ("planner", [*WHOLE, *PLANNER]),
    "full model, adapters (planner)": ("planner", ["--model.name", "smollm2-135m", *PLANNER]),
}
"""Teacher, and what is changed in configs/distill.yaml."""
ALONE = "half the layers, learns and evolves by itself"
TEACHER = "full model (the teacher)"
LARGER = "gemma3-270m"
LARGER_TEACHER = f"{LARGER} (a larger teacher)"


def distillation_stages(options: Namespace) -> list[Groups]:
    """First the teachers; then their students, and the same small model without a teacher.

    The name of a group is that of the student and that of its teacher.
    """
    model_folder("smollm2-half"), model_folder("custom-50m")  # made once, not by two runs at a time
    keys, lessons = common(options, options.generations), common(options, options.lessons, "distill.yaml")
    full = runs_of(options, ["teacher"], keys)
    teachers: Groups = {(TEACHER, "nobody"): full}
    students: Groups = {}
    for name, (teacher, changes) in STUDENTS.items():
        given: Arguments = ["--distillation.teacher", full] if teacher == "full model" else []
        students[name, teacher] = runs_of(options, [name], [*lessons, *given, *changes])
    students[ALONE, "nobody"] = runs_of(options, [ALONE], ["--model.name", "smollm2-half", *keys])
    if options.gemma:
        larger = Run(options.runs / "gemma" / "seed_0", 0, [*keys, "--model.name", LARGER])
        teachers[LARGER_TEACHER, "nobody"] = [larger]
        name, given = f"half the layers, adapters ({LARGER})", ["--distillation.teacher", larger.run_dir]
        students[name, LARGER] = runs_of(options, [name], [*lessons, *given])
    return [teachers, students]


def evaluate_distillation(groups: Groups, options: Namespace) -> Results:
    """Score, decision time and memory of teachers and students; the costs are those of the first seed."""
    best = final_shares(groups[TEACHER, "nobody"])
    rows: list[list[str]] = []
    numbers: dict[str, Any] = {"teachers": best}

    def add(name: str, teacher: str, shares: list[float], cost: dict[str, float]) -> None:
        kept = [share / whole for share, whole in zip(shares, best, strict=False)]  # some have one seed only
        texts = [summarise(values) if len(values) > 1 else f"{values[0]:.0%}" for values in (shares, kept)]
        costs = [f"{cost['step_ms']:.1f}", f"{cost['peak_mb']:.0f}", f"{cost['megabytes']:.0f}"]
        rows.append([name, teacher, *texts, *costs])

    for (name, teacher), runs in groups.items():
        shares, cost = final_shares(runs), measure(runs[0].run_dir)
        add(name, teacher, shares, cost)
        if name != TEACHER:
            numbers[LARGER if name == LARGER_TEACHER else name] = {"shares": shares, "cost": cost}
        if "50 MB" in name and teacher != "planner":
            small = f"{name}, then 8 bits"
            numbers[small] = cost = measure(runs[0].run_dir, "compact")
            add(small, teacher, [cost["share"]], cost)
    head = ["student", "teacher", "share of the planner's food", "of the full model's"]
    head += ["ms a step", "memory, MB", "weights, MB"]
    students = {name: runs for (name, _), runs in groups.items() if name not in (TEACHER, LARGER_TEACHER)}
    lines = {name: 100 * np.mean(shares_on_the_way(runs), axis=0) for name, runs in students.items()}
    level = TEACHER, 100 * float(np.mean(best))
    chart = Chart("By generation", {"": lines}, "generation", legend="student", top=85, level=level, size=(9, 4))
    return Results({"table": [head, *rows]}, numbers, chart)


POOLED: Arguments = ["--coevolution.enabled", "false", "--coevolution.hall_of_fame_episodes", 0]
RIVALS: dict[tuple[str, ...], Arguments] = {
    ("rivals",): [],
    ("rivals without a hall of fame",): ["--coevolution.hall_of_fame_episodes", 0],
    ("one gene pool",): [*POOLED, "--evolution.parents", 5, "--evolution.elites", 5],
    ("no rivals",): ["--env.populations", 1, "--env.agents", 10, *POOLED],
}
"""What is changed in configs/rivals.yaml. One gene pool: the same world, in which all breed with all."""


def evaluate_rivals(groups: Groups, options: Namespace) -> Results:
    """Champions of several generations of a run all play each other; so do the last champions of a seed's runs."""
    named = {name: runs for (name,), runs in groups.items()}
    with threads_kept():
        races = {
            name: list(map(champions.arms_race, runs)) for name, runs in named.items() if name.startswith("rivals")
        }
        by_seed = [{name: runs[seed] for name, runs in named.items()} for seed in range(options.seeds)]
        finals = [champions.tournament(runs, "rivals") for runs in by_seed]
    shares = {name: final_shares(runs) for name, runs in named.items()}
    head = ["population", "share of the planner's food", "rating of its last champion among all"]
    ends = [[name, summarise(shares[name]), summarise([final[name] for final in finals], ".0f")] for name in named]
    stages = races["rivals"][0]["stages"]
    ratings = {name: np.mean([race["rating"] for race in found], axis=2) for name, found in races.items()}
    counts = ["beats older rivals", "circles"]
    rows = [
        [name, *(summarise(column, ".0f") for column in ratings[name].T)]
        + [summarise([race[count] for race in found]) for count in counts]
        for name, found in races.items()
    ]
    columns = ["", *(f"generation {generation}" for generation in stages), *counts]
    panels = {name: {str(seed): line for seed, line in enumerate(lines)} for name, lines in ratings.items()}
    labels = "generation of the champion", "rating (Elo), the second at 0"
    chart = Chart("Ratings of champions by generation", panels, *labels, x=stages)
    numbers = {"generations": options.generations, "races": races, "finals": finals, "shares": shares}
    return Results({"champions": [head, *ends], "race": [columns, *rows]}, numbers, chart)


EXPERIMENTS = {
    "social": Experiment(
        "does culture speed up or replace breeding? whom agents imitate, with and without evolution",
        partial(one_stage, "social.yaml", IMITATION),
        evaluate_imitation,
        folder="social",
    ),
    "adaptation": Experiment(
        "how fast does a population learn in worlds it has never seen, by what it began with?",
        adaptation_stages,
        evaluate_adaptation,
        folder="meta",
        generations=15,
        options={
            "--rollouts": {"type": int, "default": 8, "help": "generations in each new world (8)"},
            "--unseen": {"nargs": "+", "default": list(UNSEEN), "choices": UNSEEN, "metavar": "WORLD"},
        },
    ),
    "distillation": Experiment(
        "what does a small student keep of a large teacher, and how much faster and smaller is it?",
        distillation_stages,
        evaluate_distillation,
        folder="distillation",
        options={
            "--lessons": {"type": int, "default": 12, "help": "generations of the students (12)"},
            "--gemma": {"action": "store_true", "help": f"also a larger teacher, {LARGER}, which takes longer"},
        },
    ),
    "rivals": Experiment(
        "two populations compete for food: is it progress or circles, and are rivals better foragers?",
        partial(one_stage, "rivals.yaml", RIVALS),
        evaluate_rivals,
        folder="rivals",
        sections=("champions", "race"),
        least_generations=champions.STAGES,
    ),
}
