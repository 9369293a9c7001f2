"""Files that say what their bytes must be, so that whatever changes them afterwards is noticed.

A folder has a file SHA256SUMS, written last, as `sha256sum --check SHA256SUMS` reads it. A text ends in a comment with
its own SHA-256, and a JSON document has it as its last key. All this finds damage, not forgery: who changes a file on
purpose can write another sum. Imports no torch.
"""

import errno
import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec

from agents.files import read_bytes
from agents.sums import SUMS, files_in, read_sums, sha256_of
from agents.types import UserError, log

MOST_BYTES = 16 << 20
"""Of a document; larger ones are none of ours."""
OF_FILE_MANAGERS = (".", "Thumbs.db", "desktop.ini")
"""How files begin that appear in any folder somebody looks at."""
PASSING = ("EACCES", "EPERM", "EMFILE", "ENFILE", "ENOMEM", "EAGAIN", "EINTR", "ETIMEDOUT", "ESTALE")
"""Errors that say nothing about a file: it may be read when their cause is gone."""

Kind = TypeVar("Kind")


class DamagedRun(UserError):
    """A run folder lacks something, or something in it is not what the run wrote; the message names it."""


def sha256(data: bytes) -> str:
    """In hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def check_folder(folder: Path) -> None:
    """Raise DamagedRun, naming the file, unless a folder has just the files that its SHA256SUMS has.

    What file managers put there does not matter.
    """
    try:
        sums, found = read_sums(folder), files_in(folder)
    except (OSError, ValueError) as error:
        raise unreadable(folder / SUMS, error) from error
    for name in sorted(set(found) - {*sums}):
        if not name.rpartition("/")[2].startswith(OF_FILE_MANAGERS):
            raise DamagedRun(f"{folder / name}: was not written by the run")
    for name, expected in sums.items():
        check_file(folder / name, expected)


def check_file(file: Path, expected: str) -> None:
    """Raise DamagedRun unless a file has this SHA-256."""
    try:
        found = sha256_of(file)
    except OSError as error:
        raise unreadable(file, error) from error
    if found != expected:
        raise DamagedRun(f"{file}: damaged, as its SHA-256 is not that of what the run wrote")


def read_text(file: Path, most_bytes: int = MOST_BYTES) -> str:
    """What is in a text file; DamagedRun where that cannot be read."""
    try:
        return read_bytes(file, most_bytes).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(file, error) from error


def unreadable(file: Path, error: Exception) -> DamagedRun:
    """What to raise for a file that cannot be read; raises the error itself if it says nothing about the file."""
    if isinstance(error, OSError) and errno.errorcode.get(error.errno or 0) in PASSING:
        raise error
    return DamagedRun(f"{file}: missing" if isinstance(error, FileNotFoundError) else f"{file}: damaged ({error})")


def sealed_text(text: str) -> str:
    """A text of whole lines with its SHA-256 as a comment behind it."""
    return f"{text}# sha256: {sha256(text.encode())}\n"


def unsealed_text(sealed: str, file: Path) -> str:
    """The text that was sealed; DamagedRun, naming the file, if it is another."""
    text, mark, end = sealed.rpartition("# sha256: ")
    if not mark:
        raise DamagedRun(f"{file}: damaged, or made by an earlier version (its last line is not its SHA-256)")
    if end != f"{sha256(text.encode())}\n":
        raise DamagedRun(f"{file}: damaged, or changed since the run wrote it (its last line is not its SHA-256)")
    return text


def sealed_json(record: dict[str, Any]) -> str:
    """A JSON document with its own SHA-256 as its last key."""
    body = json.dumps(record, indent=2, allow_nan=False).removesuffix("\n}")
    return f'{body},\n  "sha256": "{sha256(body.encode())}"\n}}\n'


def unsealed_json(sealed: str, file: Path, kind: type[Kind]) -> Kind:
    """The record that was sealed, as `kind` has it; DamagedRun, naming the file, if it is another."""
    body, _, end = sealed.rpartition(',\n  "sha256": "')
    if end != f'{sha256(body.encode())}"\n}}\n':
        raise DamagedRun(f"{file}: damaged, or changed since the run wrote it (its last key is not its SHA-256)")
    return decoded(sealed.encode(), file, kind)


def decoded(data: bytes, where: object, kind: type[Kind]) -> Kind:
    """JSON as values of a kind; DamagedRun, saying where, for what is no JSON, too deep, or of another kind."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise DamagedRun(f"{where}: damaged, or made by another version ({error})") from error


def read_json(file: Path, kind: type[Kind], most_bytes: int = MOST_BYTES) -> Kind:
    """A JSON file as values of a kind; DamagedRun, naming it, where it cannot be read as that."""
    return decoded(read_text(file, most_bytes).encode(), file, kind)


def document(run_dir: Path, name: str, kind: type[Kind]) -> Kind:
    """A sealed file of a run, a text (str) or a JSON document; where it is damaged, the copy in the newest checkpoint
    that has a whole one takes its place, which is said. DamagedRun where there is none."""
    try:
        return read_document(run_dir / name, kind)
    except DamagedRun as error:
        copies = sorted(run_dir.glob(f"checkpoints/gen_*/{name}"), key=lambda copy: (len(copy.parent.name), copy))
        for copy in reversed(copies):  # the newest first
            with suppress(DamagedRun):
                found = read_document(copy, kind)
                log.warning(f"warning: {error}; its copy in {copy.parent} is used")
                return found
        raise


def read_document(file: Path, kind: type[Kind]) -> Kind:
    """A sealed file, a text (str) or a JSON document; DamagedRun, naming the file, if it is not what the run wrote."""
    text = read_text(file)
    return cast(Kind, unsealed_text(text, file)) if kind is str else unsealed_json(text, file, kind)
