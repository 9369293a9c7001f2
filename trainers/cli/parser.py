"""The command line of the main program: any key of the config as a flag, a YAML file under it."""

import argparse
import re
import sys
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from threading import Lock
from typing import Any, NoReturn

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace, set_parsing_settings

from agents.files import read_bytes
from agents.types import UserError, require
from envs.presets import PRESETS
from evolution.commands import a_path, command
from trainers.cli.help import SECTIONS, explain
from trainers.config import TrainConfig
from trainers.records.sealed import MOST_BYTES, DamagedRun, document
from trainers.variants import FullConfig

SHORT_KEYS = {"--trainer": "--learn.algorithm", "--replay": "--replay.steps"}
"""What may be given for a longer key."""

RENAMED_KEYS = {
    "lives": "rollouts_per_generation",
    "founders": "init_from",
    "env.by_turns": "env.alternate",
    "model.memory": "model.weight_storage",
    "model.text_memory_mb": "model.prefix_cache_mb",
    "learn.replay": "replay.steps",
    "learn.social": "social.imitate",
    "learn.social_window": "social.window",
    "learn.teacher": "distillation.teacher",
    "learn.temperature": "distillation.temperature",
    "learn.trains": "distillation.trains",
    "evolution.births_in_life": "steady_state.enabled",
    "evolution.inheritance": "inheritance.kind",
    "evolution.reptile_step": "inheritance.reptile_step",
    "evolution.apart": "coevolution.enabled",
    "evolution.hall_episodes": "coevolution.hall_of_fame_episodes",
    "evolution.mutation_rate": "evolution.mutation_std",
}
"""Keys of earlier versions, and what they are called now."""

set_parsing_settings(docstring_parse_attribute_docstrings=True)

MOST_CONFIG = 256 << 10
"""Bytes of a config, which has about five thousand."""
MOST_DEPTH = 16
"""Levels of lists and keys in a config, which has three."""
REFUSALS = (ArgumentError, ValueError, TypeError, OverflowError, RecursionError, yaml.YAMLError, OSError)
"""What is raised where a text is no config: a wrong value, text that is no YAML or nested too deep, no such file."""

ONE_AT_A_TIME = Lock()
"""jsonargparse is not for several threads: it calls ast.parse, which in CPython 3.11 can raise SystemError when another
thread calls it too ("AST constructor recursion depth mismatch"), and then goes on with options missing."""


def parse(argv: list[str] | None = None) -> tuple[TrainConfig, Path | None]:
    """The config that a command line asks for, and the folder of the run to resume, if any.

    Raises UserError, naming the key, for an unknown key, a wrong type or a value out of range.
    """
    argv = [_whole_key(word) for word in (sys.argv[1:] if argv is None else argv)]
    if any(arg.split("=")[0] == "--resume" for arg in argv):
        return _parse_resume(argv)
    _refuse_renamed(word.removeprefix("--").partition("=")[0] for word in argv if word.startswith("--"))
    with ONE_AT_A_TIME:
        return _parse_keys(_with_config_files(argv)), None


def _parse_keys(argv: list[str]) -> TrainConfig:
    asks = [number for number, word in enumerate(argv) if word in ("--help", "-h")]
    section = argv[asks[0] + 1] if asks and asks[0] + 1 < len(argv) and argv[asks[0] + 1] in SECTIONS else None
    if asks and asks[0] + 1 < len(argv) and not section and not argv[asks[0] + 1].startswith("-"):
        raise UserError(f"--help {argv[asks[0] + 1]}: must be one of {', '.join(SECTIONS)}")
    keys = [word for number, word in enumerate(argv) if not asks or number not in (asks[0], asks[0] + bool(section))]
    try:
        only_keys = [arg for arg in keys if arg.split("=")[0] != "--print_config"]
        parser = _parser(preset=_parser().parse_args(only_keys, defaults=False).get("env.preset"))
        if len(only_keys) < len(keys):
            _instantiate(parser, parser.parse_args(only_keys))  # no config is printed that would be refused
        if asks:
            print(explain(parser.format_help(), section, command("trainers.train")))
            sys.exit()
        return _instantiate(parser, parser.parse_args(keys))
    except BrokenPipeError:  # nobody reads what is printed here
        raise
    except REFUSALS as error:
        raise UserError(_one_line(error)) from error


def config_from_file(file: Path) -> TrainConfig:
    """The config in a YAML file; UserError, naming the key, if it is not one."""
    return _config_in(_text_of(file), file)


def _config_in(text: str, file: Path) -> TrainConfig:
    try:
        text = _keys_in(text, file)
        with ONE_AT_A_TIME:
            parser = _parser(preset=_parser().parse_string(text, defaults=False).get("env.preset"))
            return _instantiate(parser, parser.parse_string(text))
    except REFUSALS as error:
        raise UserError(_one_line(error)) from error


def config_file(name: str) -> Path:
    """A YAML file, or by its name one that comes with Terrarium, as `quick`; UserError for what is neither."""
    file = Path(name).expanduser()
    beside = Path(__file__).parents[1] / "configs"  # in a wheel; in a checkout they stand at the top
    folder = beside if beside.is_dir() else Path(__file__).parents[2] / "configs"
    shipped = {known.stem: known for known in sorted(folder.glob("*.yaml"))}
    require(file.is_file() or name in shipped, "config", name, f"a YAML file, or one of {', '.join(shipped)}")
    return file if file.is_file() else shipped[name]


def read_config(run_dir: Path) -> TrainConfig:
    """The config of a run; UserError if the folder holds none that can be read."""
    if not run_dir.is_dir():
        raise UserError(f"{run_dir}: no such folder; must be the folder of a run")
    try:
        text = document(run_dir, "config.yaml", str)
    except DamagedRun as error:
        raise UserError(f"{error}; {run_dir} must be the folder of a run") from error
    try:
        return _config_in(text, run_dir / "config.yaml")
    except ValueError as error:
        raise UserError(f"{run_dir / 'config.yaml'}: made by another version ({error})") from error


def config_to_yaml(config: TrainConfig) -> str:
    """A config as YAML, all keys spelled out."""
    return yaml.safe_dump(asdict(config), sort_keys=False)


class _Parser(ArgumentParser):
    """jsonargparse's, but that it leaves the directory of the process alone while it reads a file.

    Other threads, and programs that they start, are in that directory as well.
    """

    def parse_path(self, path: Any, *args: Any, **kwargs: Any) -> Namespace:
        """What a file says, as `parse_string` has it; a file without keys says nothing."""
        return self.parse_string(_keys_in(_text_of(Path(path)), path), *args, **kwargs)


def _text_of(file: Path) -> str:
    try:
        return read_bytes(file, MOST_BYTES).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: {_one_line(error)}") from error


def _keys_in(text: str, file: object) -> str:
    """What the text of a file says, as jsonargparse reads it; UserError where that is no keys and values."""
    try:
        _check_bounds(text)
        says = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{file}: {_one_line(error)}") from error
    if not isinstance(says, dict | None):
        raise UserError(f"{file}: must hold keys and values, as `seed: 1`")
    nested = {f"{name}.{key}" for name, keys in (says or {}).items() if isinstance(keys, dict) for key in keys}
    _refuse_renamed([*(says or {}), *nested])
    # A comment after it: jsonargparse takes a file of one key without a value for something else
    return f"{text}\n#" if says else "{}"


def _check_bounds(text: str) -> None:
    """UserError where loading YAML could take time or memory without bound.

    A few lines of anchors and aliases can stand for gigabytes, and no config of ours has any.
    """
    depth, size = 0, len(text.encode())
    if size > MOST_CONFIG:
        raise UserError(f"{size} bytes: must be at most {MOST_CONFIG}")
    for event in yaml.parse(text, yaml.SafeLoader):
        place = f"line {event.start_mark.line + 1}"
        if getattr(event, "anchor", None):  # an alias has one too
            raise UserError(f"{place}: must be without the anchor or alias {event.anchor!r}")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MOST_DEPTH:
            raise UserError(f"{place}: lists and keys must be nested at most {MOST_DEPTH} levels deep")


class _PlainParser(argparse.ArgumentParser):
    """argparse's, but that it says what is wrong in one sentence, without the usage."""

    def error(self, message: str) -> NoReturn:
        raise UserError(message)


def _parser(preset: str | None = None) -> ArgumentParser:
    """With the values of a world's preset, if it is one, as the defaults of `env`: what is given overrides them."""
    parser = _Parser(
        prog=command("trainers.train"),
        description="Let a population of small language models live, learn and evolve.",
        epilog="--trainer stands for --learn.algorithm, --replay for --replay.steps; --dashboard besides shows the run "
        "in a browser. "
        f"To continue a run: {command('trainers.train')} --resume RUN_DIR [--generations N] [--strict], "
        "without other keys; --strict refuses a run that is damaged.",
        exit_on_error=False,
    )
    parser.color = False  # type: ignore[attr-defined] # Python 3.14 would colour the help, of which `explain` takes parts
    parser.add_argument(
        "--config", action="config", help="YAML file with any of the keys, or the name of a config that comes along"
    )
    parser.add_class_arguments(FullConfig)
    if preset in PRESETS:
        parser.set_defaults({f"env.{key}": value for key, value in asdict(PRESETS[preset]).items()})
    return parser


def _refuse_renamed(keys: Iterable[str]) -> None:
    """UserError for a key of an earlier version, which says what it is called now."""
    for key in keys:
        if key in RENAMED_KEYS:
            raise UserError(f"{key}: is now called {RENAMED_KEYS[key]}")


def _whole_key(word: str) -> str:
    key, equals, value = word.partition("=")
    return SHORT_KEYS.get(key, key) + equals + value


def _with_config_files(argv: list[str]) -> list[str]:
    """With the paths of configs in place of their names, in front: a key that is given overrides a file behind it."""
    words: list[str] = []
    for word in argv:
        if words[-1:] == ["--config"]:
            words[-1] = f"--config={config_file(word)}"
        else:
            words.append(f"--config={config_file(word[9:])}" if word.startswith("--config=") else word)
    return sorted(words, key=lambda word: not word.startswith("--config="))


def _instantiate(parser: ArgumentParser, parsed: Namespace) -> TrainConfig:
    defaults = parser.get_defaults()
    for key in [key for key, value in parsed.items() if value is None and key != "config"]:
        default = defaults.get(key)  # YAML's `key:` with nothing behind it
        require(default in ("", [], {}) or isinstance(default, Namespace), key, None, "a value, or be left out")
        parsed[key] = default
    values = parser.instantiate(parsed).as_dict()
    values.pop("config", None)
    return FullConfig(**values)


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()).replace("WorldConfig.", "env.")
    if wrong := re.search(r'Parser key "(\w+)\.(\w+)": Expected a \S*Literal\b.* Got value: (.*)', text):
        section, field, value = wrong.groups()
        try:
            type(getattr(FullConfig(), section))(**{field: value})  # which says it in its own words
        except ValueError as refusal:
            return str(refusal)
    hint = "; must be keys that --help lists" if "unrecognized arguments" in text else ""
    return text + hint


def _parse_resume(argv: list[str]) -> tuple[TrainConfig, Path]:
    parser = _PlainParser(prog=command("trainers.train"), allow_abbrev=False)
    parser.add_argument("--resume", required=True, type=a_path, metavar="RUN_DIR")
    parser.add_argument("--generations", type=int)
    parser.add_argument("--model.name", dest="name")
    parser.add_argument("--model.device", dest="device")
    options, others = parser.parse_known_args(argv)
    if others:
        allowed = "--generations, --strict, --model.name for a model that was moved, and --model.device"
        raise UserError(f"{others[0]}: must not be given with --resume, which takes only {allowed}")
    config = read_config(options.resume)
    config = replace(config, run_dir=str(options.resume))
    # A model's weights must be the same, wherever it is
    moved = {key: value for key in ("name", "device") if (value := getattr(options, key)) is not None}
    config = replace(config, model=replace(config.model, **moved))
    if options.generations is not None:
        is_same = options.generations == config.generations or config.learn.anneal_to == 1
        allowed = f"{config.generations}, as it was, since learn.anneal_to = {config.learn.anneal_to} counts on it"
        require(is_same, "--generations", options.generations, allowed)
        config = replace(config, generations=options.generations)
    return config, options.resume
