"""All commands behind one name: `terrarium COMMAND ...`, which is also `python -m trainers COMMAND ...`."""

import sys
from importlib import import_module
from importlib.metadata import version

from agents.types import UserError
from evolution.commands import COMMANDS
from trainers.cli.command_line import fail, run_command

USAGE = "usage: terrarium COMMAND ...   (terrarium COMMAND --help explains one)\n\n" + "\n".join(
    f"  {name:<10} {told}" for name, (_, told) in COMMANDS.items()
)


def main(argv: list[str] | None = None) -> None:
    """Run a command; exit code 2 for one that there is not."""
    words = sys.argv[1:] if argv is None else argv
    if not words or words[0] in ("--help", "-h", "help"):
        print(USAGE)
    elif words[0] == "--version":
        print(version("terrarium-lm"))
    elif words[0] not in COMMANDS:
        fail(UserError(f"command = {words[0]!r}: must be one of {', '.join(COMMANDS)}"))
    else:
        module = COMMANDS[words[0]][0]
        program = import_module("dashboard.__main__" if module == "dashboard" else module)
        run_command(lambda: program.main(words[1:]))


if __name__ == "__main__":
    main()
