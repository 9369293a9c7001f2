"""Live progress in the terminal: generation, step, who is alive, fitness, time left."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from trainers.config import TrainConfig


@contextmanager
def counted(total: int) -> Iterator[Callable[[str], None]]:
    """A bar with the time left, where there is a terminal; within the block, tell what begins, `total` times."""
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("left"), TimeRemainingColumn()
    with Bar(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task, begun = bar.add_task("", total=total), 0

        def tell(what: str) -> None:
            nonlocal begun
            bar.update(task, description=what, completed=begun)
            begun += 1

        yield tell


class Progress:
    """A bar over generations where there is a terminal, and a line for each generation anywhere."""

    def __init__(self, config: TrainConfig):
        self._config = config
        console = Console()
        self._bar = Bar(
            TextColumn("generation {task.fields[generation]}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[stage]}"),
            TextColumn("{task.fields[fitness]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._task = self._bar.add_task("", total=config.generations, generation="", stage="", fitness="")
        self._generation = self._life = 0

    def __enter__(self) -> "Progress":
        self._bar.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()

    def generation(self, generation: int) -> None:
        """A generation begins."""
        self._generation, self._life = generation, -1
        self._bar.update(
            self._task, completed=generation, generation=f"{generation}/{self._config.generations - 1}", stage=""
        )

    def life(self) -> None:
        """The generation begins another life."""
        self._life += 1

    def step(self, step: int, alive: int, agents: int) -> None:
        """A step of a life is done; lives count for half of their generation's time."""
        share = 0.5 * (self._life + step / self._config.env.max_steps) / self._config.lives
        stage = f"step {step}/{self._config.env.max_steps}, {alive}/{agents} alive"
        self._bar.update(self._task, completed=self._generation + share, stage=stage)

    def stage(self, name: str) -> None:
        """Something that is not a step begins."""
        self._bar.update(self._task, stage=name)

    def done(self, figures: dict[str, float]) -> None:
        """A generation is over: leave a line about it."""
        self._bar.update(self._task, fitness=f"fitness {figures['fitness_mean']:.1f}")
        food = f"food {figures['food_eaten_mean']:5.2f}   " if "food_eaten_mean" in figures else ""
        self._bar.console.print(
            f"generation {figures['generation']:>3.0f}   "
            f"fitness {figures['fitness_mean']:6.2f} (best {figures['fitness_max']:6.2f})   "
            f"{food}lived {figures['lifetime_mean']:5.1f} steps   "
            f"{figures['decide_ms']:5.1f} ms/step   {figures['wall_s']:4.1f} s",
            highlight=False,
            soft_wrap=True,
        )
