"""What the command lines have in common: how a mistake is said, and the arguments of those that read a run.

A mistake of the user's (`UserError`) is one sentence on standard error and exit code 2, a fault of the machine's (a
full disk) the same with exit code 74; anything else is a bug and shows its traceback. Never imports torch.
"""

import argparse
import io
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

from agents.types import UserError, log
from evolution.commands import a_path, command

NOBODY_READS = 128 + 13
"""The exit code, as a shell tells it, of a program that SIGPIPE has ended: `head` has read enough."""


class MachineFault(UserError):
    """The machine did not do what it should: a disk is full, read-only or broken, or files were taken away."""

    exit_code = 74  # EX_IOERR of sysexits.h


def fail(error: UserError) -> NoReturn:
    """Say what is wrong in one line and end with its exit code."""
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in f"error: {error}")
    print(line, file=sys.stderr)  # whatever was given, it is shown, and no terminal obeys it
    sys.exit(error.exit_code)


class ToStandardError(logging.Handler):
    """Prints what is logged, so that a command's own output stays alone on standard output."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print it at once."""
        print(self.format(record), file=sys.stderr, flush=True)


def refuse_no_folder(parser: argparse.ArgumentParser, json_file: Path | None) -> None:
    """End with one sentence where the file of --json would be in a folder that does not exist."""
    if json_file and not json_file.parent.is_dir():
        parser.error(f"--json {json_file}: must be in a folder that exists")


def refuse_out_of_range(
    parser: argparse.ArgumentParser, options: argparse.Namespace, allowed: Mapping[str, tuple[int, int]]
) -> None:
    """End with one sentence where an option is below its least or above its most value. allowed: both, by name."""
    for name, (least, most) in allowed.items():
        if not least <= getattr(options, name) <= most:
            parser.error(f"--{name.replace('_', '-')} {getattr(options, name)}: must be {least} to {most:,}")


def run_command(command: Callable[[], object]) -> None:
    """Run a command; a UserError ends it with one sentence, Ctrl-C is no error of anybody's.

    Letters that standard output cannot show become question marks. Once nobody reads it any more, the program ends.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    log.setLevel(logging.INFO)
    if not log.handlers:
        log.addHandler(ToStandardError())
    try:
        command()
        print(end="", flush=True)  # here, where it can still be told that nobody reads it
    except UserError as error:
        fail(error)
    except KeyboardInterrupt as interrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(128 + getattr(interrupt, "number", signal.SIGINT))
    except BrokenPipeError:
        _end_unread()
    except OSError as error:
        fail(MachineFault(" ".join(str(error).split())))
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # rich has caught it, and ends with another code
            _end_unread()
        raise


def _end_unread() -> NoReturn:
    # What is still in the buffer goes nowhere, or Python would complain at its end
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(NOBODY_READS)


def parse_run_arguments(
    program: str, argv: list[str] | None, **options: tuple[Callable[[str], object], object, str]
) -> argparse.Namespace:
    """Parse `RUN_DIR [--generation G]` and further options, given as name = (type, default, help)."""
    parser = argparse.ArgumentParser(prog=command(f"trainers.{program}"), allow_abbrev=False)
    parser.add_argument("run_dir", type=a_path, metavar="RUN_DIR", help="folder of the run")
    parser.add_argument("--generation", type=int, metavar="G", help="which generation; the newest if not given")
    for name, (kind, default, text) in options.items():
        if kind is bool:
            parser.add_argument(f"--{name}", action="store_true", help=text)
        else:
            shown = f"{text} (default: {default})" if default is not None else text
            parser.add_argument(f"--{name}", type=kind, default=default, help=shown)
    return parser.parse_args(argv)
