"""Watch the agents of a run in a held-out forage world, in the terminal or as a GIF.

python -m trainers.watch RUN_DIR [--generation G] [--seed N] [--fps N] [--gif FILE]
"""

import sys
import time
from pathlib import Path

from agents.types import require
from trainers.command_line import parse_run_arguments, run_command


def main(argv: list[str] | None = None) -> None:
    """Watch a run from the command line."""
    options = parse_run_arguments(
        "watch",
        argv,
        seed=(int, 0, "which held-out world"),
        fps=(float, 8.0, "steps a second, at most 100"),
        gif=(Path, None, "write the episode to this .gif file instead of the terminal"),
    )
    run_command(lambda: watch(options.run_dir, options.generation, options.seed, options.fps, options.gif))


def watch(run_dir: Path, generation: int | None, seed: int, fps: float, gif: Path | None) -> None:
    """Play one held-out episode with the adapters of a generation, and show it or write it to `gif`.

    Raises UserError for an `fps` that is not above 0 and at most 100, or a run that cannot be read.
    """
    require(0 < fps <= 100, "fps", fps, "above 0 and at most 100")
    if gif:
        is_fine = gif.suffix == ".gif" and gif.parent.is_dir() and not gif.is_dir()
        require(is_fine, "gif", str(gif), "a .gif file in a folder that exists")
    import numpy as np

    from envs.look.render import ansi, rgb_array
    from envs.worlds.world import ForageWorld
    from trainers.evaluate import held_out_seeds
    from trainers.rollout import rollout
    from trainers.run_folder import open_run
    from trainers.run_log import gif_bytes

    colony, config, generation = open_run(run_dir, generation)
    require(config.env.is_forage, "env.id", config.env.id, "forage: of other worlds there is no picture")
    life = rollout(
        colony.policy,
        colony.codec,
        ForageWorld(config.env),
        held_out_seeds(1, seed),
        np.random.default_rng(seed),
        keep_states=True,
    )
    if gif:
        frames = [rgb_array(state, config.env, cell=12) for state in life.states]
        gif.write_bytes(gif_bytes(frames, int(1000 / fps)))
        print(f"wrote {gif}: {len(frames)} frames of generation {generation}")
        return
    is_terminal = sys.stdout.isatty()
    for state in life.states:
        print(("\x1b[H\x1b[2J" if is_terminal else "") + ansi(state, config.env), flush=True)
        time.sleep(1 / fps if is_terminal else 0)


if __name__ == "__main__":
    main()
