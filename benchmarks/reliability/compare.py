"""What a run folder says, but for times and for what a process happened to have read, and where two differ."""

import json
import re
from pathlib import Path
from typing import Any

OF_A_PROCESS = {
    *("wall_s", "decide_ms", "learn_s", "update_ms"),
    *("texts_known", "texts_read", "text_hit_rate", "prefix_cache_mb"),
}
"""Figures of the process and not of the run."""
NOT_COMPARED = ("tb", ".lock", "run.json", "manifest.jsonl", "SHA256SUMS", "damaged", "exports")
"""Names of files and folders with times or sums of these in them, or with what was set aside."""
ABSENT, NO_FILE = "missing", "no regular file"


def differences(expected: Path, found: Path) -> list[str]:
    """The files in which two run folders differ; [] where they are equal."""
    return different(contents(expected), contents(found))


def different(expected: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """The names whose values differ, or that one of the two lacks."""
    names = sorted({*expected, *found})
    return [name for name in names if expected.get(name, ABSENT) != found.get(name, ABSENT)]


def contents(folder: Path, root: Path | None = None) -> dict[str, Any]:
    """What each file in a folder says, by its path in it. root: a folder above whose name does not count; the same."""
    files = ((path.relative_to(folder), path) for path in folder.rglob("*") if not path.is_dir())
    compared = {name.as_posix(): path for name, path in files if not set(name.parts) & set(NOT_COMPARED)}
    return {name: _content(path, root or folder) for name, path in compared.items()}


def _content(file: Path, root: Path) -> Any:
    if not file.is_file():
        return NO_FILE
    data = file.read_bytes().replace(str(root).encode(), b"ROOT")
    try:
        if file.suffix == ".safetensors":  # whose header's order is chance
            size = int.from_bytes(data[:8], "little")
            return json.loads(data[8 : 8 + size]), data[8 + size :]
        if file.suffix == ".jsonl":
            lines = [json.loads(line) for line in data.decode().splitlines()]
            return [{key: value for key, value in line.items() if key not in OF_A_PROCESS} for line in lines]
        if file.suffix == ".yaml":
            text = data.rpartition(b"# sha256: ")[0] or data  # the sum of a text with the folder's name in it
            return re.sub(rb"(?m)^run_dir: .*$", b"", text)  # a copy of a run that has ended keeps the name
        return json.loads(data) if file.suffix == ".json" else data
    except (ValueError, AttributeError):
        return data  # damaged
