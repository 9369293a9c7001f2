"""Whatever a command line or a config holds, it is a config, or refused in one sentence: never a traceback.

TERRARIUM_EXAMPLES=10000 tries so many of each kind, which takes an hour; by default it is a few.
"""

import io
import os
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import fields, is_dataclass
from unittest import mock

import pytest
import yaml
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from trainers import train as program
from trainers.cli.parser import RENAMED_KEYS, SHORT_KEYS, config_from_file, config_to_yaml
from trainers.variants import FullConfig

GIVEN = os.environ.get("TERRARIUM_EXAMPLES")
QUIET = {"deadline": None, "suppress_health_check": list(HealthCheck), "derandomize": not GIVEN, "database": None}
QUIET["phases"] = [Phase.explicit, Phase.generate]  # shrinking takes long, as each parse does
FEW = settings(max_examples=int(GIVEN or 25), **QUIET)
MANY = settings(max_examples=int(GIVEN or 300), **QUIET)


def keys_of(config, prefix=""):
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            yield f"{prefix}{field.name}"
            yield from keys_of(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}"


KEYS = list(keys_of(FullConfig()))
SECTIONS = {f.name: type(getattr(FullConfig(), f.name)) for f in fields(FullConfig())}
NUMBERS = [0, 1, 2, 3, 20, 64, -1, 0.5, 1e-3, 1e30, -1e30, 1e400, 10**400, float("nan"), 2**31, 2**63, 2**64, 5e-324]
WORDS = [
    *("", " ", "null", "~", "~nobody/x", "true", "no", "0x1F", "1_000", "1e5", "1e400", "nan", ".inf", "9" * 400),
    *(
        "ppo",
        "online",
        "distil",
        "none",
        "planner",
        "maze",
        "night",
        "forage",
        "FrozenLake-v1",
        "mpe2.simple_spread_v3",
    ),
    *("restart", "text", "compact", "int8", "reptile", "baldwinian", "best", "model", "rank", "safe", "merge", "auto"),
    *(
        "[]",
        "{}",
        "[maze]",
        "[maze, night]",
        "{a: 1}",
        "{a: {b: 1}}",
        "[[1]]",
        "[",
        "{",
        "a: b",
        "- x",
        "&a [*a]",
        "*a",
    ),
    *(
        "!!python/object:os.system {}",
        "!!binary x",
        "2026-01-01",
        "1:30",
        "\t",
        "'",
        '"',
        "#",
        "%",
        "@x",
        "`",
        "é",
        "☃",
    ),
    *("\ud800", "a.b:C", "a:b:c", ":", "..", "/", "--", "-", "?", "|", ">", "=", "quick", "nowhere.yaml", "\n", "a\nb"),
]
ANYTHING = st.recursive(
    st.sampled_from(NUMBERS) | st.sampled_from(WORDS) | st.none() | st.booleans() | st.text(max_size=8) | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=4,
)
KEY = st.sampled_from(KEYS) | st.sampled_from(
    [*RENAMED_KEYS, *(k[2:] for k in SHORT_KEYS), "no.such", "env", "learn", ""]
)
WORD = st.sampled_from(WORDS) | st.sampled_from(NUMBERS).map(str) | st.text(st.characters(exclude_characters="\0"))
PAIR = st.tuples(KEY, WORD).flatmap(
    lambda pair: st.sampled_from([[f"--{pair[0]}", pair[1]], [f"--{pair[0]}={pair[1]}"], [f"--{pair[0]}"], [pair[1]]])
)
REST = st.sampled_from([[], [], [], ["--print_config"], ["--help"], ["--help", "env"], ["--resume", "."], ["--resume"]])
LINE = st.tuples(st.lists(PAIR, max_size=4), REST).map(
    lambda parts: [word for pair in parts[0] for word in pair] + parts[1]
)


def said(argv):
    """What a command line comes to: the config that it asks for, or None where it was refused or only printed."""
    asked, err, code = [], io.StringIO(), 0
    note = lambda config, resume=None, dashboard=False, strict=False: asked.append(config)  # noqa: E731
    with mock.patch.object(program, "train", note), redirect_stderr(err), redirect_stdout(io.StringIO()):
        try:
            program.main(argv)
        except SystemExit as end:
            code = end.code or 0
    assert code in (0, 2), (argv, code)
    if code:
        lines = err.getvalue().split("\n")
        assert lines[0].startswith("error: "), (argv, lines)
        assert lines[1:] == [""], (argv, lines)
    return asked[0] if asked else None


@MANY
@given(st.sampled_from(sorted(SECTIONS)), st.data())
def test_any_section_is_made_or_refused_by_name(section, data):
    kind = SECTIONS[section]
    if not is_dataclass(kind):
        values = {section: data.draw(st.sampled_from(NUMBERS[:-1]) if kind in (int, float) else st.sampled_from(WORDS))}
        _make(FullConfig, values)
        return
    own = {f.name: type(getattr(kind(), f.name)) for f in fields(kind)}
    names = data.draw(st.lists(st.sampled_from(sorted(own)), max_size=4, unique=True))
    values = {name: data.draw(_of(own[name])) for name in names}
    made = _make(kind, values)
    if made is not None:
        _make(FullConfig, {section: made})


def _of(kind):
    """Values of a field's own type: others the parser refuses."""
    simple = {bool: st.booleans(), int: st.sampled_from([n for n in NUMBERS if isinstance(n, int)])}
    simple |= {float: st.sampled_from(NUMBERS), str: st.sampled_from(WORDS)}
    simple |= {list: st.lists(st.sampled_from(WORDS), max_size=2), dict: st.just({}) | st.just({"a": 1})}
    return simple[kind]


def _make(kind, values):
    try:
        return kind(**values)
    except ValueError as error:
        said_why = str(error)
    assert ": must be " in said_why, (values, said_why)
    return None


@FEW
@given(argv=LINE)
@example(argv=["--resume", "."])
@example(argv=["--resume"])
@example(argv=["--resume", ".", "--learn=two\nlines\x1b[2J"])
@example(argv=["--config"])
@example(argv=["--config="])
@example(argv=["--help", "nothing"])
@example(argv=["--generations", "9" * 5000])
def test_any_command_line_is_a_config_or_refused_in_one_sentence(argv):
    said(argv)


@pytest.mark.parametrize(
    "text", ["{", "[" * 3000, "a: [b", "\t", "seed: 1\n - x", "%", "&a [*a]", "- 1", "seed: &a [*a]"]
)
def test_a_file_that_is_no_yaml_is_refused_in_one_sentence(text, tmp_path):
    (tmp_path / "config.yaml").write_text(text)
    assert said(["--config", str(tmp_path / "config.yaml")]) is None
    assert said(["--resume", str(tmp_path)]) is None


@FEW
@given(
    flat=st.dictionaries(KEY | st.text(max_size=5), ANYTHING, max_size=4),
    is_nested=st.booleans(),
    cut=st.integers(0, 60),
)
def test_any_file_is_a_config_or_refused_in_one_sentence(tmp_path_factory, flat, is_nested, cut):
    values = {}
    for key, value in flat.items():
        section, _, name = key.partition(".")
        if is_nested and name and isinstance(values.setdefault(section, {}), dict):
            values[section][name] = value
        else:
            values[key] = value
    text = yaml.safe_dump(values, allow_unicode=True)
    file = tmp_path_factory.mktemp("config") / "config.yaml"
    file.write_text(text[: len(text) - cut] if cut < 20 else text, encoding="utf-8", errors="surrogatepass")
    config = said(["--config", str(file)])
    said(["--resume", str(file.parent)])
    if config is not None:
        file.write_text(config_to_yaml(config), encoding="utf-8")
        assert config_from_file(file) == config
