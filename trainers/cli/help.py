"""`--help` of the main program in two levels: what most people change, then every key of a section."""

import re

from trainers.variants import VARIANTS

COMMON = (
    *("config", "run_dir", "seed", "generations", "env.preset", "env.id", "model.name"),
    *("learn.algorithm", "evolution.enabled", "print_config"),
)
"""Keys that the first level explains."""

SECTIONS = ("run", "env", "model", "adapter", "learn", "evolution", "log", *VARIANTS, "all")
"""What may follow `--help`."""


_CHOICES = re.compile(r"type:\s+Literal\[[^]]*\],\s+")
"""What jsonargparse says of the type of a choice, whose words stand beside the flag already."""


def explain(everything: str, section: str | None, program: str) -> str:
    """The part of a parser's whole help that was asked for: the first level if `section` is None."""
    everything = _CHOICES.sub("", everything)
    if section == "all":
        return everything
    parts = everything.split("\n\n")
    if section is None:
        return _first_level(everything, parts[1], program)
    first = "run_dir" if section == "run" else f"{section}."
    return next(part for part in parts[2:] if re.search(rf"^  --{re.escape(first)}", part, re.MULTILINE))


def _first_level(everything: str, description: str, program: str) -> str:
    common = "".join(_option(everything, key) for key in COMMON)
    return (
        f"usage: {program} [--config NAME|FILE] [--KEY VALUE ...] [--dashboard]\n"
        f"       {program} --resume RUN_DIR [--generations N] [--strict] [--dashboard]\n\n"
        f"{description}\n\nwhat most people change:\n{common}"
        "  --dashboard           Show the run in a browser while it goes on.\n"
        "  --resume RUN_DIR      Go on with a run that was stopped, or to more generations;\n"
        "                        with --strict only if all its files are whole, with\n"
        "                        --model.name FOLDER if its model was moved, and with\n"
        "                        --model.device DEVICE on another device.\n\n"
        f"Every key, section by section: --help {', '.join(SECTIONS[:-1])}; or --help all."
    )


def _option(everything: str, key: str) -> str:
    """The lines about one key, from its flag to before the next."""
    found = re.search(rf"^  --{re.escape(key)}\b.*\n(?:    .*\n)*", everything, re.MULTILINE)
    assert found, key
    return found[0]
