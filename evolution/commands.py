"""What the commands of Terrarium are called, and how they read a path.

It is here because `evolution` imports no other package of ours, and every other one may import it.
"""

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import NoReturn

COMMANDS = {
    "train": ("trainers.train", "let a population live, learn and evolve"),
    "evaluate": ("trainers.evaluate", "compare a run's agents with bots on worlds that no agent trained on"),
    "watch": ("trainers.watch", "watch a run's agents in the terminal, in a window, or as a film"),
    "dashboard": ("dashboard", "serve a page that shows runs in a browser"),
    "export": ("trainers.export", "write an agent for PEFT, llama.cpp or ONNX Runtime"),
    "lineage": ("trainers.lineage", "print who descends from whom, and whether selection is at work"),
}
"""What `terrarium` runs: name -> (module, what it does)."""


def command(module: str, *words: object) -> str:
    """The shell command that runs a module of ours, as it can be typed in the current directory."""
    started = Path(sys.argv[0] if sys.argv else "")
    if started.stem == "terrarium":
        name = next(name for name, (of, _) in COMMANDS.items() if of == module)
        program = [_shown(str(started)), name]
    else:
        program = [_shown(sys.executable), "-m", module]
    return shlex.join([*program, *map(str, words)])


def end_renamed(module: str) -> NoReturn:
    """End a program that has moved to another module: say how it is started now, and end with exit code 2."""
    print(f"error: this command has moved: must be started as {command(module)}", file=sys.stderr)
    sys.exit(2)


def script(name: str, *words: object) -> str:
    """The shell command for a program of another package, as `tensorboard`, which is installed beside this Python."""
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
