"""The campaign: which cases there are, trying them out, and what they came to as a table."""

import argparse
import json
import os
import random
import sys
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.reliability import crowd, disk, faults, harm, kills, power, soak, subjects
from benchmarks.reliability.case import GOOD, Case, empty
from benchmarks.reliability.reading import COMMANDS
from benchmarks.results import Table, check_sections, markdown, write_section
from trainers.records.run_folder import machine

LONG = {"kills": 500, "real": 20, "harm": 1600, "disk": 500, "power": 50}
SHORT = {"kills": 1, "harm": 2, "disk": 1, "power": 1}
"""How many cases of each test."""
SHORT_COMMANDS = ("lineage", "export")
"""That read a run folder and take little time."""
NEEDS_LIBRARY = {"disk", "power"}


def run(options: argparse.Namespace) -> None:
    """Try out what is not yet done, print the table, write it down if asked; exit code 1 where there are faults."""
    if options.page:
        check_sections(options.page, "table")
    load_libraries()
    lines, wanted = options.work / "cases.jsonl", set()
    for test in options.tests:
        if test in NEEDS_LIBRARY and not faults.is_preloaded():
            print(f"{test}: left out, because there is no C compiler (cc) to make the library that it needs")
        elif not options.short or test in SHORT:
            cases = cases_of(test, options)
            try_out(undone(cases, lines), lines, options.jobs)
            wanted |= {(case.test, case.name) for case in cases}
    finish([line for line in _read(lines) if (line["test"], line["name"]) in wanted], options)


def load_libraries() -> None:
    """Import what children need, once for all."""
    import trainers.begin
    import trainers.records.report  # noqa: F401


def cases_of(test: str, options: argparse.Namespace) -> list[Case]:
    """All cases of a test, the same for the same seed."""
    rng, work = random.Random(f"{test} {options.seed}"), options.work
    count = options.count or (SHORT if options.short else LONG).get(test, 0)
    if test == "kills":
        kinds = list(subjects.KINDS)[: 1 if options.short else None]
        return kills.cases([subjects.tiny(work, kind) for kind in kinds], count, rng)
    if test == "real":
        return [case._replace(test=test) for case in kills.cases([subjects.real(work)], count, rng)]
    subject = subjects.tiny(work)
    if test == "harm":
        folders = {"finished": subject.alone}
        if faults.is_preloaded() and not options.short:
            folders["interrupted"] = harm.interrupted(subject, work / "interrupted")
        commands = SHORT_COMMANDS if options.short else list(COMMANDS)
        return harm.cases(subject, folders, commands, work, count, options.seed)
    if test == "disk":
        return disk.cases(subject, count, rng)
    if test == "power":
        return power.cases(subject, count, rng)
    return soak.cases(subject, options.hours) if test == "soak" else crowd.cases(subject, phases=4)


def undone(cases: Sequence[Case], lines: Path) -> list[Case]:
    """The cases of which no line says what they came to."""
    done = {(line["test"], line["name"]) for line in _read(lines)}
    return [case for case in cases if (case.test, case.name) not in done]


def try_out(cases: Sequence[Case], lines: Path, jobs: int) -> None:
    """Try cases out, a share of them in each of so many processes, and append what they came to to a file."""
    workers = []
    for share in range(jobs):
        worker = os.fork()
        if worker == 0:
            code = 1
            try:
                _work(cases[share::jobs], lines)
                code = 0
            except BaseException:
                traceback.print_exc()
            os._exit(code)
        workers.append(worker)
    if any(os.waitpid(worker, 0)[1] for worker in workers):
        raise RuntimeError("a process of the campaign failed; what it said is above")


def _work(cases: Sequence[Case], lines: Path) -> None:
    folder = lines.parent / f"case-{os.getpid()}"
    for case in cases:
        started = time.monotonic()
        found = case.try_out(empty(folder))
        seconds = round(time.monotonic() - started, 1)
        line = {"test": case.test, "name": case.name, **found._asdict(), "seconds": seconds}
        with lines.open("a", encoding="utf-8") as out:
            out.write(json.dumps(line) + "\n")
        print(f"{seconds:6.1f} s  {case.test}: {case.name}: {found.outcome} {found.detail}"[:300], flush=True)


def table_of(found: Sequence[dict[str, Any]]) -> Table:
    """A row for each test: cases, how they ended, and how many of that are faults."""
    rows = [("test", "cases", "faults", "how they ended")]
    for test in dict.fromkeys(line["test"] for line in found):
        ends = Counter(line["outcome"] for line in found if line["test"] == test)
        faulty = sum(many for outcome, many in ends.items() if outcome not in GOOD)
        told = ", ".join(f"{outcome} {many}" for outcome, many in ends.most_common())
        rows.append((test, str(ends.total()), str(faulty), told))
    return rows


def _read(lines: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()] if lines.is_file() else []


def finish(found: Sequence[dict[str, Any]], options: argparse.Namespace) -> None:
    """Print and write what was found; exit code 1 where there are faults."""
    table, faulty = table_of(found), [line for line in found if line["outcome"] not in GOOD]
    print("\n" + markdown(table))
    if options.page:
        write_section(options.page, "table", markdown(table))
    if options.json:
        result = {"machine": machine(), "seed": options.seed, "table": table, "faults": faulty}
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    sys.exit(1 if faulty else 0)
