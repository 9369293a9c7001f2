"""Before a run goes on: look through all that it wrote, make anew what can be, and set aside what is damaged.

What is set aside goes into a folder `damaged` beside it. Imports no torch.
"""

import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from agents.files import remove_leftovers, whole_file
from agents.sums import SUMS
from agents.types import UserError, log
from trainers.records.manifest import (
    LOGS,
    MANIFEST,
    MOST_OF_LOG,
    Account,
    check_checkpoint,
    checkpoints,
    damaged_generations,
    lines_by_generation,
    named,
    read_manifest,
    whole_lines,
)
from trainers.records.sealed import (
    DamagedRun,
    check_file,
    check_folder,
    decoded,
    read_document,
    read_json,
    sealed_json,
    sha256,
)

OWN_FOLDERS = ("checkpoints", "adapters", "recordings", "model", "hall")
"""Folders of a run in which nobody else writes, as `trainers.export` does in exports/."""

Report = Callable[[str], None]


def repair(run_dir: Path, strict: bool = False) -> None:
    """Check every file of a run, and leave it so that it can go on from its newest whole checkpoint.

    Each damage is said. strict: raise DamagedRun for the first, and change nothing. Raises DamagedRun as well where
    nothing is left to go on from.
    """

    def report(damage: str) -> None:
        if strict:
            raise DamagedRun(f"{damage}; with --strict a run must be whole to go on")
        log.warning(f"warning: {damage}")

    generation, newest = _newest_whole(run_dir, report)
    for name in ("config.yaml", "run.json"):
        _document(run_dir / name, newest, report)
    accounts = _manifest(run_dir, generation, newest, report)
    for name in LOGS:
        _log(run_dir, name, accounts, report)
    state = read_json(newest / "state.json", dict[str, Any], MOST_OF_LOG)
    for account in accounts:
        for name, expected in account.files.items():
            _file(run_dir / name, expected, state["first"], report)
    _results(run_dir / "results.json", report)
    for folder in (run_dir, *(run_dir / name for name in OWN_FOLDERS)):
        remove_leftovers(folder)


def refuse_if_done(run_dir: Path, generations: int) -> None:
    """Raise UserError where a run has ended, whole, after so many generations or more; changes nothing."""
    done = max(checkpoints(run_dir), default=-1) + 1
    if done < generations or not (run_dir / "results.json").is_file():
        return
    with suppress(DamagedRun):
        read_document(run_dir / "results.json", dict)
        check_checkpoint(checkpoints(run_dir)[done - 1])
        raise UserError(f"generations = {generations}: must be above the {done} already done")


def _newest_whole(run_dir: Path, report: Report) -> tuple[int, Path]:
    """The newest checkpoint that is whole; all that are damaged are set aside."""
    found = checkpoints(run_dir)
    damage = {generation: error for generation, folder in found.items() if (error := _damage(folder))}
    whole = {generation: folder for generation, folder in found.items() if generation not in damage}
    if not whole:
        why = f" ({damage[max(damage)]})" if damage else ""
        raise DamagedRun(f"{run_dir / 'checkpoints'}: holds no whole checkpoint to go on from{why}")
    for generation, error in damage.items():
        report(f"{error}; the checkpoint is set aside")
        _set_aside(found[generation])
    _say_what_is_lost(run_dir, max(whole), max(found), report)
    return max(whole), whole[max(whole)]


def _damage(checkpoint: Path) -> str:
    """What is wrong with a checkpoint, "" if nothing: nobody can go on from one without its champions, either."""
    run_dir = checkpoint.parents[1]
    try:
        check_checkpoint(checkpoint)
        for line in whole_lines(checkpoint / MANIFEST):
            for name, expected in decoded(line, str(checkpoint / MANIFEST), Account).files.items():
                if Path(name).parent.name == "hall":
                    check_file(run_dir / name, expected)
    except DamagedRun as error:
        return str(error)
    return ""


def _say_what_is_lost(run_dir: Path, generation: int, newest: int, report: Report) -> None:
    """Say which generations are done again: one that was killed before its checkpoint was whole is nothing special."""
    sealed = 0
    for line in whole_lines(run_dir / MANIFEST):
        with suppress(DamagedRun):
            sealed = max(sealed, decoded(line, "", Account).generation)
    last = max(newest, sealed - 1)
    if last > generation:
        report(f"{run_dir}: going on from generation {generation}; {last - generation} later ones are done again")


def _document(file: Path, newest: Path, report: Report) -> None:
    """Put the newest checkpoint's copy in the place of a damaged document."""
    kind = str if file.suffix == ".yaml" else dict
    try:
        read_document(file, kind)
    except DamagedRun as error:
        copy = newest / file.name
        read_document(copy, kind)
        report(f"{error}; it is made anew from its copy in {newest}")
        _replace(file, copy.read_bytes())


def _manifest(run_dir: Path, generation: int, newest: Path, report: Report) -> list[Account]:
    """The accounts up to a generation, as many as can still be vouched for."""
    try:
        return [account for account in read_manifest(run_dir, newest) if account.generation <= generation]
    except DamagedRun as error:
        damage = error
    copies = [line for copy in run_dir.glob(f"checkpoints/gen_*/{MANIFEST}") for line in whole_lines(copy)]
    known = {sha256(line): line for line in [*whole_lines(run_dir / MANIFEST), *copies]}
    lines, wanted = [], sha256(whole_lines(newest / MANIFEST)[0])
    while wanted in known:  # from the newest back, as each vouches for the one before
        lines.append(known[wanted])
        wanted = decoded(lines[-1], MANIFEST, Account).previous
    first = generation + 1 - len(lines)
    lost = f"; what generations before {first} wrote can no longer be checked" if first else ""
    report(f"{damage}; it is made anew{lost}")
    _replace(run_dir / MANIFEST, b"".join(reversed(lines)))
    return read_manifest(run_dir, newest)


def _log(run_dir: Path, name: str, accounts: Sequence[Account], report: Report) -> None:
    """Make damaged lines anew where a checkpoint has a copy; say where none has, and leave them as they are."""
    file = run_dir / name
    found, wrong = lines_by_generation(file)
    damaged = damaged_generations(name, found, accounts)
    if not (damaged or wrong):
        return
    sums = {account.generation: account.lines.get(name, "") for account in accounts}
    mended = []
    for generation in damaged:
        copy = run_dir / "checkpoints" / f"gen_{generation:04d}" / name
        lines = b"".join(whole_lines(copy))
        if sha256(lines) == sums[generation]:
            found[generation] = lines
            mended.append(generation)
    lost = [generation for generation in damaged if generation not in mended]
    parts = [f"lines of generation {named(mended)} are made anew"] * bool(mended)
    parts += [f"lines of generation {named(lost)} stay damaged"] * bool(lost)
    why = f" ({wrong[0]})" if wrong else ""
    report(f"{file}: missing lines, or others than the run wrote{why}; {', '.join(parts) or 'they are put in order'}")
    if mended or not lost:
        _replace(file, b"".join(text for generation, text in sorted(found.items()) if generation <= max(sums)))


def _file(file: Path, expected: str, first: dict[str, Any], report: Report) -> None:
    """A file that was written once; recordings and adapters may be missing, as anybody may delete them."""
    try:
        check_file(file, expected)
        if file.name == SUMS:
            check_folder(file.parent)
    except DamagedRun as error:
        if file.name == "first.json":
            report(f"{error}; it is made anew")
            _replace(file, sealed_json(first).encode())
        elif file.parent.name == "hall":  # without it nobody can go on
            raise
        elif (part := file.parent if file.name == SUMS else file).exists():
            report(f"{error}; it is set aside")
            _set_aside(part)


def _results(file: Path, report: Report) -> None:
    """Without them a run that has ended compares its last generation once more."""
    try:
        if file.exists():
            read_document(file, dict)
    except DamagedRun as error:
        report(f"{error}; it is set aside, and made anew when the run ends")
        _set_aside(file)


def _set_aside(path: Path) -> None:
    """Move a file or folder into `damaged` beside it, under a name that is free."""
    if path.exists() or path.is_symlink():
        path.replace(_free_place(path))


def _free_place(path: Path) -> Path:
    folder = path.parent / "damaged"
    folder.mkdir(exist_ok=True)
    number = 0
    while (place := folder / (f"{path.name}.{number}" if number else path.name)).exists():
        number += 1
    return place


def _replace(file: Path, content: bytes) -> None:
    """Write a file anew, with the old one in `damaged`; where that fails, the old one is also still in its place."""
    with whole_file(file) as partial:
        partial.write_bytes(content)
        if not file.is_file():
            _set_aside(file)
            return
        place = _free_place(file)
        try:
            os.link(file, place)
        except OSError:  # not every file system has links
            shutil.copyfile(file, place)
