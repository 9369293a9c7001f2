"""Whether the packages that Python finds are Terrarium's own.

`envs`, `agents` and `trainers` are common names: a folder of the user's, or another package (openai-agents brings a
package `agents`), can stand where ours should be. This file is in `evolution`, the least common of the names, so that
Python finds it. It imports nothing of ours.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

MARK = "Part of Terrarium"
"""Stands in the first lines of each package's __init__.py."""


def require_own(*packages: str) -> None:
    """Raise ImportError, naming the intruder, if another package or folder stands where one of these should be.

    A command of ours ends with that sentence and exit code 2.
    """
    for name in packages:
        place = _stranger(name)
        if place:
            message = (
                f"{place} is not Terrarium's package {name!r}, but Python finds it first; "
                "rename it, or run this in another folder or virtual environment"
            )
            started = sys.argv[0] if sys.argv else ""
            if started == "-m" or Path(started).stem == "terrarium":  # -m: Python still looks for the command
                print(f"error: {message}", file=sys.stderr)
                sys.exit(2)
            raise ImportError(message, name=name)


def _stranger(name: str) -> str | None:
    spec = find_spec(name)
    if spec is None:
        return None  # Python will say so itself
    if spec.origin is None:  # a folder without __init__.py
        return str(next(iter(spec.submodule_search_locations or []), name))
    with open(spec.origin, encoding="utf-8", errors="replace") as file:
        return None if MARK in file.read(2000) else spec.origin
