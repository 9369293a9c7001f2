"""Live progress in the terminal: generation, stage, who is alive, fitness, time left."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.text import Text

from envs.worlds.successes import BY_TASK
from trainers.config import TrainConfig

FIRST_GUESS = {
    "breeding": 0.1,
    "collecting": 1.0,
    "learning": 0.5,
    "evaluating": 1.0,
    "competing": 2.0,
    "comparing": 2.0,
}
"""How long stages take, compared with each other, where one of them has not been timed yet."""

ENOUGH = 0.1
"""From this share of a stage on, what it took so far says how long it takes; first steps have more to read."""


@contextmanager
def counted(total: int) -> Iterator[Callable[[str], None]]:
    """A bar with the time left, where there is a terminal; within the block, show what begins, `total` times."""
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("left"), TimeRemainingColumn()
    with Bar(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task, begun = bar.add_task("", total=total), 0

        def show(what: str) -> None:
            nonlocal begun
            bar.update(task, description=what, completed=begun)
            begun += 1

        yield show


class Clock:
    """How long a run will still take: each stage as long as it took the last time, first guesses until then."""

    def __init__(
        self,
        config: TrainConfig,
        first_generation: int = 0,
        after_evaluation: Sequence[str] = (),
        now: Callable[[], float] = perf_counter,
    ):
        """after_evaluation: stages that variants add."""
        self._config, self._after_evaluation, self._now = config, after_evaluation, now
        self._generation = first_generation
        self._took: dict[str, float] = {}  # seconds, by stage
        self._stage, self._share, self._begun = "", 0.0, now()
        self._ahead: list[str] = []  # stages of this generation, after the one that goes on

    def generation(self, generation: int) -> None:
        """A generation begins."""
        self._finish()
        self._generation, self._ahead = generation, self._plan(generation)

    def begin(self, stage: str) -> None:
        """A stage begins, and with it the one before has ended."""
        self._finish()
        self._stage, self._begun = stage, self._now()
        if stage in self._ahead:  # what was to come before it did not
            del self._ahead[: self._ahead.index(stage) + 1]

    def go_on(self, share: float) -> None:
        """So much of the stage is done: between 0 and 1."""
        self._share = share

    def left(self) -> float | None:
        """Seconds until the run ends; None while nothing is known."""
        elapsed, share = self._now() - self._begun, self._share
        took = self._took | ({self._stage: elapsed / share} if share >= ENOUGH else {})
        if not took:
            return None
        per_guess = sum(took.values()) / sum(FIRST_GUESS[stage] for stage in took)
        expected = {stage: took.get(stage, guess * per_guess) for stage, guess in FIRST_GUESS.items()}
        rest = max(0.0, expected[self._stage] - elapsed) if self._stage else 0.0
        last = self._config.generations  # not a generation but the report
        for plan, times in (
            (self._ahead, 1),
            (self._plan(1), max(0, last - self._generation - 1)),  # all generations but the first have the same
            (self._plan(last), int(self._generation < last)),
        ):
            rest += times * sum(expected[stage] for stage in plan)
        return rest

    def _finish(self) -> None:
        if self._stage:
            self._took[self._stage] = self._now() - self._begun
        self._stage, self._share = "", 0.0

    def _plan(self, generation: int) -> list[str]:
        """The stages of a generation, in their order; after the last generation is the report's."""
        evolution = self._config.evolution
        if generation == self._config.generations:
            return ["comparing"]
        return [
            *(["breeding"] if generation > 0 and evolution.enabled else []),
            *(["collecting", "learning"] * self._config.rollouts_per_generation),
            "evaluating",
            *self._after_evaluation,
            *(["comparing"] if generation == 0 else []),
        ]


class TimeLeft(ProgressColumn):
    """What a clock says, at each refresh."""

    def __init__(self, clock: Clock):
        super().__init__()
        self._clock = clock

    def render(self, task: Task) -> Text:
        """As 1:05, or 2:01:05."""
        left = self._clock.left()
        if left is None:
            return Text("left -:--")
        minutes, seconds = divmod(round(left), 60)
        hours, minutes = divmod(minutes, 60)
        return Text(f"left {hours}:{minutes:02d}:{seconds:02d}" if hours else f"left {minutes}:{seconds:02d}")


class Progress:
    """A bar over a run where there is a terminal, and a line for each generation anywhere."""

    def __init__(self, config: TrainConfig, first_generation: int = 0, after_evaluation: Sequence[str] = ()):
        self._config = config
        self._clock = Clock(config, first_generation, after_evaluation)
        self._started = perf_counter()
        console = Console()
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=12),
            TextColumn("{task.fields[stage]}"),
            TextColumn("{task.fields[fitness]}"),
            TimeLeft(self._clock),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._task = self._bar.add_task("", total=1.0, stage="", fitness="")
        self.check: Callable[[], None] = lambda: None
        """Called at each step, where nothing is half done; may raise to end the run."""

    def __enter__(self) -> "Progress":
        self._bar.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()

    def generation(self, generation: int) -> None:
        """A generation begins."""
        self._clock.generation(generation)
        shown = min(generation, self._config.generations - 1)
        self._bar.update(self._task, description=f"generation {shown}/{self._config.generations - 1}")

    def stage(self, name: str) -> None:
        """A stage begins, one of `FIRST_GUESS`."""
        self._clock.begin(name)
        self.detail(name)

    def step(self, step: int, alive: int, agents: int) -> None:
        """A step is done of the rollout that this stage is."""
        self._clock.go_on(step / self._config.env.max_steps)
        self.detail(f"step {step}/{self._config.env.max_steps}, {alive}/{agents} alive")

    def detail(self, text: str) -> None:
        """Show something else about the stage."""
        self.check()
        elapsed, left = perf_counter() - self._started, self._clock.left()
        done = 0.0 if left is None else elapsed / (elapsed + left)
        self._bar.update(self._task, stage=text, completed=done)

    def done(self, figures: dict[str, float]) -> None:
        """A generation is over: leave a line about it."""
        self._bar.update(self._task, fitness=f"fitness {figures['fitness_mean']:.1f}")
        seconds = figures["wall_s"]
        gained = f"  food {figures['food_eaten_mean']:5.2f}" if "food_eaten_mean" in figures else _successes(figures)
        self._bar.console.print(
            f"generation {figures['generation']:>3.0f}  "
            f"fitness {figures['fitness_mean']:6.2f} (best {figures['fitness_max']:6.2f})"
            f"{gained}  lived {figures['lifetime_mean']:5.1f}  {seconds:.{1 if seconds < 100 else 0}f} s",
            highlight=False,
            soft_wrap=True,
        )


def _successes(figures: dict[str, float]) -> str:
    """As "  success 41% (goto 60%, open 22%), 38% while learning, after 20,480 steps", where the world says so."""
    if "success_mean" not in figures:
        return ""
    ending = "_mean"
    of_task = {key[len(BY_TASK) : -len(ending)]: share for key, share in figures.items() if key.startswith(BY_TASK)}
    tasks = ", ".join(f"{task} {share:.0%}" for task, share in of_task.items())
    shown = f" ({tasks})" if tasks else ""
    learning = f", {figures['rollout_success_mean']:.0%} while learning," if "rollout_success_mean" in figures else ""
    return f"  success {figures['success_mean']:.0%}{shown}{learning} after {figures['env_steps']:,.0f} steps"
