"""Watch the agents of a run in a held-out forage world: in the terminal, in a window, or as a film.

python -m trainers.watch RUN_DIR [--generation G] [--seed N] [--fps N] [--window] [--out FILE.gif|FILE.mp4]

A window needs a display and the extra `render`, an .mp4 file the extra `video`.
"""

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agents.types import UserError, log, require
from envs.extras import advice
from evolution.commands import a_path
from trainers.cli.command_line import parse_run_arguments, run_command
from trainers.cli.parser import read_config
from trainers.env_config import EnvConfig

if TYPE_CHECKING:
    import numpy as np

    from envs.types import WorldState

Details = Callable[[int], list[str]]
Show = Callable[["WorldState", Details], None]


def main(argv: list[str] | None = None) -> None:
    """Watch a run from the command line."""
    options = parse_run_arguments(
        "watch",
        argv,
        seed=(int, 0, "which held-out world"),
        fps=(float, 8.0, "steps a second, at most 100"),
        out=(a_path, None, "write the episode to this .gif or .mp4 file"),
        window=(bool, False, "open a window"),
    )
    run_command(lambda: watch(**vars(options)))


def watch(
    run_dir: Path, generation: int | None, seed: int, fps: float, out: Path | None = None, window: bool = False
) -> None:
    """Play one held-out episode with the adapters of a generation, and show it live or write it to `out`.

    Raises UserError for an `fps` that is not between 0.01 and 100, a file that cannot be written, a missing extra,
    or a run that cannot be read.
    """
    require(0.01 <= fps <= 100, "fps", fps, "between 0.01 and 100")
    require(not (window and out), "out", str(out), "left out with --window")
    if out:
        is_fine = out.suffix in FILMS and out.parent.is_dir() and not out.is_dir()
        require(is_fine, "out", str(out), "a .gif or .mp4 file in a folder that exists")
        is_there = out.suffix != ".mp4" or find_spec("av") is not None
        require(is_there, "out", str(out), f"a .gif, or needs {advice('video')} for an .mp4")
    env = read_config(run_dir).env
    require(env.is_forage, "env.id", env.id, "forage: of other worlds there is no picture")
    show = in_window(env, fps, run_dir.name) if window else in_terminal(env, fps)
    log.info("loading libraries")
    from trainers.records.opening import open_run

    population, _, generation = open_run(run_dir, generation)
    if out:
        states = play(population, env, seed, lambda state, details: None)
        FILMS[out.suffix](frames_of(states, env), out, fps)
        print(f"wrote {out}: {len(states)} frames of {run_dir.name}, generation {generation}")
    elif window:
        last = play(population, env, seed, show)[-1]
        while True:  # until it is closed
            show(last, lambda agent: ["the end of the episode"])
    else:
        play(population, env, seed, show)


def play(population: Any, env: EnvConfig, seed: int, show: Show) -> "list[WorldState]":
    """Live through a held-out episode, shown step by step; returns its states, the first before the first step."""
    import numpy as np

    from envs.worlds.world import ForageWorld
    from trainers.comparison import held_out_seeds
    from trainers.rollout import Observed, collect_rollout
    from trainers.stages import States

    words = population.codec.action_words

    class Shown(States):
        def step(self, seen: Observed) -> None:
            def details(agent: int) -> list[str]:
                if not seen.transition["is_lived"][agent]:
                    return ["starved"]
                odds = np.exp(seen.transition["log_probs"][agent])
                pairs = zip(words, odds, strict=True)
                choices = ", ".join(f"{word} {share:.0%}" for word, share in pairs if share >= 0.005)
                read = seen.texts[seen.transition["text"][agent]]
                return [f"before, it read:{read}", f"and chose among: {choices}"]

            super().step(seen)
            show(self.states[-1], details)

    rng, seeds, shown = np.random.default_rng(seed), held_out_seeds(1, seed), Shown()
    collect_rollout(population.policy, population.codec, ForageWorld(env), seeds, rng, observers=[shown])
    return shown.states


def in_terminal(env: EnvConfig, fps: float) -> Show:
    """Shows states in the terminal, in colour, at most so many a second; in ASCII where it can show no more."""
    from envs.rendering.terminal import IN_ASCII, ansi

    is_terminal = sys.stdout.isatty()
    letters = {} if _can_show(IN_ASCII) else IN_ASCII

    def show(state: "WorldState", details: Details) -> None:
        picture = ansi(state, env).translate(letters)
        print(("\x1b[H\x1b[2J" if is_terminal else "") + picture, flush=True)
        time.sleep(1 / fps if is_terminal else 0)

    return show


def _can_show(letters: Iterable[int]) -> bool:
    try:
        return bool("".join(map(chr, letters)).encode(sys.stdout.encoding))
    except UnicodeEncodeError:
        return False


def in_window(env: EnvConfig, fps: float, title: str) -> Show:
    """Shows states in a window; a click tells what an agent read. UserError where no window can be opened."""
    try:
        from envs.rendering.window import Window

        window = Window(env, fps, title)
    except (ImportError, RuntimeError) as error:
        way_out = "leave it out to watch in the terminal, or write a film with --out FILE.gif"
        raise UserError(f"--window: {error}; {way_out}") from error

    def show(state: "WorldState", details: Details) -> None:
        window.show(state, details)
        if not window.is_open:
            raise SystemExit(0)

    return show


def frames_of(states: "Sequence[WorldState]", env: EnvConfig) -> "list[np.ndarray]":
    """Pictures (H, W, 3) uint8."""
    from envs.rendering.render import rgb_array

    return [rgb_array(state, env, cell=16) for state in states]


def write_gif(frames: "Sequence[np.ndarray]", file: Path, fps: float) -> None:
    """An animated GIF that loops."""
    from trainers.records.run_log import gif_bytes

    file.write_bytes(gif_bytes(frames, int(1000 / fps)))


def write_mp4(frames: "Sequence[np.ndarray]", file: Path, fps: float) -> None:
    """H.264 in an MP4 file, as browsers play it. Needs the package `av`."""
    import av

    height, width, _ = frames[0].shape
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(100_000), options={"crf": "20"})
        stream.height, stream.width, stream.pix_fmt = height - height % 2, width - width % 2, "yuv420p"
        for frame in frames:  # yuv420p knows even sides only
            picture = av.VideoFrame.from_ndarray(frame[: stream.height, : stream.width].copy(), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


FILMS: "dict[str, Callable[[Sequence[np.ndarray], Path, float], None]]" = {".gif": write_gif, ".mp4": write_mp4}
"""How to write a film, by the ending of its file."""


if __name__ == "__main__":
    main()
