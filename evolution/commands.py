"""What the commands of Terrarium are called, and how they read a path.

Here, because `evolution` imports nothing of ours, and everybody may import it.
"""

import os
import shlex
import shutil
import sys
from pathlib import Path

COMMANDS = {
    "train": ("trainers.train", "let a population live, learn and evolve"),
    "evaluate": ("trainers.evaluate", "compare a run's agents with bots on worlds that no agent trained on"),
    "watch": ("trainers.watch", "watch a run's agents in the terminal, in a window, or as a film"),
    "dashboard": ("dashboard", "serve a page that shows runs in a browser"),
    "export": ("agents.export", "write an agent for PEFT, llama.cpp or ONNX Runtime"),
    "lineage": ("evolution.lineage", "print who descends from whom, and whether selection is at work"),
}
"""What `terrarium` runs: by name, the module and what it does."""


def command(module: str, *words: object) -> str:
    """The shell command that runs a module of ours, as whoever started this process can type it where they are."""
    started = Path(sys.argv[0] if sys.argv else "")
    if started.stem == "terrarium":
        name = next(name for name, (of, _) in COMMANDS.items() if of == module)
        program = [_shown(str(started)), name]
    else:
        program = [_shown(sys.executable), "-m", module]
    return shlex.join([*program, *map(str, words)])


def script(name: str, *words: object) -> str:
    """The shell command for a program of another package, as `tensorboard`, that was installed beside this Python."""
    return shlex.join([_shown(str(Path(sys.executable).parent / name)), *map(str, words)])


def _shown(program: str) -> str:
    """A program by its bare name where the shell finds it, relative if it is below this folder."""
    name = Path(program).name
    if shutil.which(name) in (program, os.path.abspath(program)):
        return name
    here = os.path.relpath(program) if os.path.splitdrive(program)[0] == os.path.splitdrive(os.getcwd())[0] else program
    return program if here.startswith(os.pardir) else here


def a_path(text: str) -> Path:
    """A path on a command line; the shell leaves the ~ of `--out=~/x` to the program."""
    return Path(text).expanduser()
