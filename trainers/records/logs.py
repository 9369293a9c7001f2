"""The logs of a run: metrics.jsonl, lineage.jsonl, adapters.jsonl and what variants add, and the account of them."""

import json
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from agents.files import sync, whole_file
from agents.types import UserError
from trainers.records.manifest import LOGS, MANIFEST, account, lines_by_generation, whole_lines
from trainers.records.sealed import sha256


class Logs:
    """The logs of one run, opened new or for going on after `last_generation`: later lines are dropped."""

    def __init__(self, run_dir: Path, last_generation: int = -1):
        self._run_dir = run_dir
        self._lines: dict[str, bytes] = {}  # of each log, since the last generation was sealed
        for log in (*LOGS, MANIFEST):
            _drop_later(run_dir / log, last_generation)
        sealed = whole_lines(run_dir / MANIFEST)
        self.newest = sha256(sealed[-1]) if sealed else ""
        """SHA-256 of the newest line of the manifest."""

    def append(self, log: str, records: Sequence[dict[str, Any]]) -> None:
        """Add lines to a log; UserError, before anything is written, for a number that JSON has no word for."""
        text = b"".join(_encoded(log, record) for record in records)
        with (self._run_dir / log).open("ab") as file:
            file.write(text)
        self._lines[log] = self._lines.get(log, b"") + text

    def seal(self, generation: int) -> dict[str, bytes]:
        """Have the disk hold all that a generation wrote, and account for it; return its lines of each log."""
        for log in self._lines:
            sync(self._run_dir / log)
        line = account(self._run_dir, generation, self._lines, self.newest)
        with (self._run_dir / MANIFEST).open("ab") as file:
            file.write(line)
        sync(self._run_dir / MANIFEST)
        self.newest = sha256(line)
        lines, self._lines = self._lines | {MANIFEST: line}, {}
        return lines


def _encoded(log: str, record: dict[str, Any]) -> bytes:
    for key, value in record.items():
        if isinstance(value, float) and not isfinite(value):
            message = f"{key} = {value} of generation {record.get('generation')}: must be finite"
            raise UserError(f"{log}: {message}; rewards may be too large, or learn.learning_rate")
    return json.dumps(record, allow_nan=False).encode() + b"\n"


def _drop_later(file: Path, last_generation: int) -> None:
    """Drop the lines after a generation, and a last one that a kill has cut: that generation will be done again."""
    if file.is_file():
        found, _ = lines_by_generation(file)
        kept = b"".join(text for generation, text in found.items() if generation <= last_generation)
        if file.stat().st_size > len(kept):
            with whole_file(file) as partial:
                partial.write_bytes(kept)
