"""Watch the agents of a run in a held-out world, in the terminal or as a GIF.

python -m trainers.watch RUN_DIR [--generation G] [--seed N] [--fps N] [--gif FILE]
"""

import sys
import time
from pathlib import Path

from trainers.command_line import parse_run_arguments, run_command


def main(argv: list[str] | None = None) -> None:
    """Watch a run from the command line."""
    options = parse_run_arguments(
        "watch",
        argv,
        seed=(int, 0, "which held-out world"),
        fps=(float, 8.0, "steps a second"),
        gif=(Path, None, "write the episode to this file instead of the terminal"),
    )
    if not 0 < options.fps <= 100:
        run_command(lambda: _refuse(options.fps))
    run_command(lambda: watch(options.run_dir, options.generation, options.seed, options.fps, options.gif))


def _refuse(fps: float) -> None:
    raise ValueError(f"fps = {fps}: must be above 0 and at most 100")


def watch(run_dir: Path, generation: int | None, seed: int, fps: float, gif: Path | None) -> None:
    """Play one held-out episode with the adapters of a generation and show it."""
    import numpy as np

    from envs import ForageBatch
    from envs.render import ansi, rgb_array
    from trainers.evaluate import held_out_seeds
    from trainers.rollout import rollout
    from trainers.run_folder import open_run
    from trainers.run_log import gif_bytes

    colony, config, generation = open_run(run_dir, generation)
    life = rollout(
        colony.policy,
        colony.codec,
        ForageBatch(config.env),
        held_out_seeds(1, seed),
        np.random.default_rng(seed),
        keep_states=True,
    )
    if gif:
        gif.write_bytes(gif_bytes([rgb_array(state) for state in life.states], int(1000 / fps)))
        print(f"wrote {gif}: {len(life.states)} frames of generation {generation}")
        return
    for state in life.states:
        print(f"\x1b[H\x1b[2J{ansi(state)}", flush=True) if sys.stdout.isatty() else print(ansi(state))
        time.sleep(1 / fps if sys.stdout.isatty() else 0)


if __name__ == "__main__":
    main()
