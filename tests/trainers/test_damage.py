"""What changes in a run folder is noticed: made anew, set aside or refused, and always said."""

import errno
import json
import os
import random
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save

from agents.types import UserError
from trainers.cli.parser import parse, read_config
from trainers.lineage import lineage
from trainers.records import report
from trainers.records.checkpoint import load_newest
from trainers.records.manifest import LOGS, MANIFEST, checkpoints
from trainers.records.opening import open_fittest, open_run
from trainers.records.reading import check_written, read_log
from trainers.records.repair import repair
from trainers.records.run_folder import replace_text
from trainers.records.sealed import DamagedRun, check_folder, read_document, sealed_json
from trainers.train import main, train

NEWEST = "checkpoints/gen_0002"


def flip(data: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]


HARMS = {
    "cut": lambda data, rng: data[: len(data) // 2],
    "empty": lambda data, rng: b"",
    "flip": flip,
    "remove": None,
    "last line": lambda data, rng: data[: data[:-1].rfind(b"\n") + 1],
}


def harm(file: Path, kind: str, rng: random.Random) -> None:
    if kind == "remove":
        file.unlink()
    else:
        file.write_bytes(HARMS[kind](file.read_bytes(), rng))


def content(run_dir: Path) -> dict[str, bytes]:
    """All that counts: what was set aside does not, nor TensorBoard's files."""
    names = ((f, f.relative_to(run_dir)) for f in run_dir.rglob("*") if f.is_file())
    return {n.as_posix(): f.read_bytes() for f, n in names if not {"tb", "damaged", ".lock"} & set(n.parts)}


@pytest.fixture
def copy(finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture(scope="session")
def longer(finished, tmp_path_factory, tiny_arguments):
    """The same run, two generations longer, never stopped."""
    run_dir = tmp_path_factory.mktemp("longer") / "run"
    return run_dir, train(parse([*tiny_arguments, "--generations", "5", "--run_dir", str(run_dir)])[0])


@pytest.mark.parametrize("kind", HARMS)
def test_no_change_of_any_file_goes_unnoticed(finished, tmp_path, caplog, kind):
    whole, rng = content(finished[0]), random.Random(kind)
    for name in sorted(whole):
        run_dir = tmp_path / "copy"
        shutil.copytree(finished[0], run_dir)
        harm(run_dir / name, kind, rng)
        caplog.clear()
        may_go = name.startswith(("recordings/", "adapters/")) or name == "results.json"
        try:
            repair(run_dir)
        except DamagedRun as error:
            pytest.fail(f"{name}: {error}")
        left = content(run_dir)
        assert caplog.messages or content(run_dir) == {k: v for k, v in whole.items() if k != name}, name
        assert caplog.messages or (may_go and kind == "remove"), name
        assert all(whole[k] == left[k] for k in left), name
        gone = {k.rpartition("/agent_")[0] or k for k in whole.keys() - left.keys()}
        part = name if name.startswith("recordings/") else "/".join(name.split("/")[:2])
        assert all(k.startswith(part) for k in gone), (name, gone)
        caplog.clear()
        if not may_go:
            repair(run_dir, strict=True)  # now it is whole
            assert not caplog.messages
        shutil.rmtree(run_dir)


def test_strict_changes_nothing(copy):
    (copy / NEWEST / "state.json").write_text("{}")
    before = {f: f.read_bytes() for f in copy.rglob("*") if f.is_file()}
    with pytest.raises(DamagedRun, match=r"state\.json: damaged.*--strict a run must be whole"):
        repair(copy, strict=True)
    assert {f: f.read_bytes() for f in copy.rglob("*") if f.is_file()} == before


def test_what_a_killed_process_left_half_made_or_half_removed_is_deleted(copy, caplog):
    before = content(copy)
    shutil.copytree(copy / NEWEST, copy / "checkpoints" / ".gen_0000.removed")
    (copy / "adapters" / ".gen_0003.partial").mkdir()
    (copy / ".results.json.partial").write_text("{")
    (copy / "exports").mkdir()
    (copy / "exports" / ".agent.gguf.partial").touch()
    repair(copy)
    (copy / "exports" / ".agent.gguf.partial").unlink()  # another process may be writing it
    assert content(copy) == before
    assert not list(copy.rglob(".*.partial")) + list(copy.rglob(".*.removed"))
    assert not caplog.messages, "nothing is lost by it"


def test_a_line_that_claims_another_generation_harms_no_other_line(copy, caplog):
    shutil.rmtree(copy / "checkpoints" / "gen_0000")
    whole = (copy / "metrics.jsonl").read_bytes()
    (copy / "metrics.jsonl").write_bytes(whole.replace(b'{"generation": 1,', b'{"generation": 9,'))
    repair(copy)
    assert (copy / "metrics.jsonl").read_bytes() == whole
    assert "lines of generation 1 are made anew" in caplog.text


def test_what_a_file_manager_puts_beside_is_no_damage_and_a_passing_fault_moves_nothing(copy, monkeypatch, caplog):
    for folder in (copy / NEWEST, *(copy / "adapters").glob("gen_*")):
        (folder / ".DS_Store").write_text("x")
    before = content(copy)
    repair(copy)
    assert not caplog.messages

    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as forbidden:
        forbidden.setattr("trainers.records.sealed.sha256_of", refuse)
        with pytest.raises(PermissionError):
            repair(copy)
    assert content(copy) == before


def test_a_log_is_in_its_place_until_its_mended_version_is(copy, monkeypatch):
    lines = (copy / "metrics.jsonl").read_text().splitlines(keepends=True)
    (copy / "metrics.jsonl").write_text(
        "".join([*lines[:-1], lines[-1].replace('"generation": 2,', '"generation": 2, ')])
    )
    harmed = (copy / "metrics.jsonl").read_bytes()
    with monkeypatch.context() as full:
        full.setattr("agents.files.os.fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space")))
        with pytest.raises(OSError, match="No space"):
            repair(copy)
    assert (copy / "metrics.jsonl").read_bytes() == harmed
    repair(copy)
    assert (copy / "metrics.jsonl").read_text() == "".join(lines)
    assert harmed in [file.read_bytes() for file in (copy / "damaged").iterdir()]


def test_a_run_that_has_ended_is_refused_before_anything_is_mended(copy):
    shutil.rmtree(next((copy / "adapters").glob("gen_*")) / "agent_00")
    before = content(copy)
    with pytest.raises(UserError, match="generations = 3: must be above the 3 already done"):
        train(*parse(["--resume", str(copy)]))
    assert content(copy) == before


def test_documents_are_the_same_bytes_where_lines_end_otherwise(tmp_path, monkeypatch):
    write = Path.write_text
    monkeypatch.setattr(Path, "write_text", lambda self, text, **more: write(self, text.replace("\n", "\r\n"), **more))
    replace_text(tmp_path / "run.json", sealed_json({"a": 1}))
    assert read_document(tmp_path / "run.json", dict)["a"] == 1


def test_documents_that_are_touched_while_a_run_goes_on_do_not_spoil_its_checkpoints(
    tiny_arguments, tmp_path, monkeypatch, caplog
):
    run_dir, record = tmp_path / "run", report.record

    def touch(run, *more):
        (run_dir / "run.json").write_text((run_dir / "run.json").read_text().rstrip("\n"))
        record(run, *more)

    with monkeypatch.context() as touched:
        touched.setattr(report, "record", touch)
        train(parse([*tiny_arguments, "--run_dir", str(run_dir)])[0])
    train(*parse(["--resume", str(run_dir), "--generations", "4"]))
    assert "run.json: damaged, or changed since the run wrote it" in caplog.text


def test_a_run_whose_model_was_moved_goes_on_with_it(copy, tiny_model, tmp_path):
    moved = shutil.copytree(tiny_model, tmp_path / "elsewhere")
    train(*parse(["--resume", str(copy), "--generations", "4", "--model.name", str(moved)]))
    assert read_config(copy).model.name == str(moved)
    (moved / "model.safetensors").write_bytes(other_weights(moved))
    with pytest.raises(DamagedRun, match="its weights are not those that the run began with"):
        train(*parse(["--resume", str(copy), "--generations", "5"]))


def other_weights(folder: Path) -> bytes:
    tensors = load_file(folder / "model.safetensors")
    return save({name: tensor * 2 for name, tensor in tensors.items()}, {"format": "pt"})


def test_a_reader_beside_a_run_is_not_disturbed_by_checkpoints_that_go(copy, monkeypatch):
    listed = iter([{7: copy / "checkpoints" / "gen_0007"}])
    stale = lambda run_dir: next(listed, None) or checkpoints(run_dir)  # noqa: E731
    monkeypatch.setattr("trainers.records.reading.checkpoints", stale)
    assert len(read_log(copy, "metrics.jsonl")) == 3
    listed = iter([{7: copy / "checkpoints" / "gen_0007"}])
    monkeypatch.setattr("trainers.records.checkpoint.checkpoints", stale)
    monkeypatch.setattr("trainers.records.opening.checkpoints", stale)
    assert load_newest(copy)[0] == 2
    listed = iter([{7: copy / "checkpoints" / "gen_0007"}])
    assert open_run(copy)[2] == 2


def test_checkpoints_that_a_killed_process_had_still_to_delete_are_deleted(tiny_arguments, tmp_path, monkeypatch):
    run_dir = tmp_path / "run"
    with monkeypatch.context() as killed:
        killed.setattr("trainers.records.report.prune_checkpoints", lambda *_: None)
        train(parse([*tiny_arguments, "--log.checkpoints", "1", "--run_dir", str(run_dir)])[0])
    assert len(checkpoints(run_dir)) == 3
    (run_dir / "results.json").unlink()
    train(*parse(["--resume", str(run_dir)]))
    assert len(checkpoints(run_dir)) < 3


def test_the_family_tree_ends_with_the_newest_complete_generation(copy):
    whole = lineage(copy)
    with (copy / "lineage.jsonl").open("a") as file:
        file.write(
            json.dumps({"event": "death", "generation": 3, "id": 0, "cause": "not_selected", "fitness": 1}) + "\n"
        )
    assert read_log(copy, "lineage.jsonl")[-1]["generation"] == 3
    assert lineage(copy) == whole
    shutil.rmtree(copy / "checkpoints")
    assert lineage(copy) == whole, "where none is complete, all that there is"


@pytest.mark.parametrize("name", ["metrics.jsonl", "lineage.jsonl"])
def test_lines_of_which_there_is_no_copy_stay_and_are_said_whenever_they_are_read(copy, caplog, name):
    shutil.rmtree(copy / "checkpoints" / "gen_0001")
    lines = (copy / name).read_text().splitlines(keepends=True)
    wrong = [line.replace('"generation": 1,', '"generation": 1, ') for line in lines]
    (copy / name).write_text("".join(wrong))
    repair(copy)
    assert "lines of generation 1 stay damaged" in caplog.text
    assert (copy / name).read_text() == "".join(wrong)
    with pytest.raises(DamagedRun, match=f"{name}: lines of generation 1 are missing, or not those"):
        read_log(copy, name)
    with pytest.raises(UserError, match="lines of generation 1"):
        lineage(copy, None)


def test_a_run_goes_on_from_the_checkpoint_before_as_if_it_had_never_stopped(copy, longer, capsys):
    file = copy / NEWEST / "tensors.safetensors"
    file.write_bytes(flip(file.read_bytes(), random.Random(0)))
    main(["--resume", str(copy), "--generations", "5"])
    said = capsys.readouterr().err
    assert "tensors.safetensors: damaged" in said
    assert "going on from generation 1; 1 later ones are done again" in said
    assert (copy / "checkpoints" / "damaged" / "gen_0002").is_dir()
    ends = [load_file(run / "checkpoints" / "gen_0004" / "tensors.safetensors") for run in (copy, longer[0])]
    assert all((ends[0][name] == tensor).all() for name, tensor in ends[1].items())
    results = [json.loads((run / "results.json").read_text()) for run in (copy, longer[0])]
    assert results[0] == results[1]
    assert read_log(copy, "lineage.jsonl") == read_log(longer[0], "lineage.jsonl")


def test_results_that_are_damaged_are_made_anew(copy, finished, capsys):
    whole = (copy / "results.json").read_text()
    (copy / "results.json").write_text(whole.replace("agents", "ageots", 1))
    main(["--resume", str(copy)])
    assert "results.json: damaged, or changed since the run wrote it" in capsys.readouterr().err
    assert (copy / "results.json").read_text() == whole


def test_who_only_looks_uses_the_checkpoint_before_and_changes_nothing(copy, caplog):
    (copy / NEWEST / "state.json").unlink()
    before = content(copy)
    assert open_run(copy)[2] == 2
    assert "state.json: missing; the exported adapters of that generation are used" in caplog.text
    shutil.rmtree(copy / "adapters" / "gen_0002")
    assert open_run(copy)[2] == 1
    assert "state.json: missing; the generation before it is used" in caplog.text
    open_fittest(copy)
    assert content(copy) == {name: data for name, data in before.items() if not name.startswith("adapters/gen_0002")}
    with pytest.raises(DamagedRun, match=r"state\.json: missing"):
        open_run(copy, 2)


def _exported(run_dir: Path) -> list[int]:
    return [int(folder.name[4:]) for folder in (run_dir / "adapters").glob("gen_*")]


def test_checkpoints_of_other_generations_and_runs_are_not_taken(copy, caplog):
    shutil.rmtree(copy / NEWEST)
    shutil.copytree(copy / "checkpoints" / "gen_0001", copy / NEWEST)
    repair(copy)
    assert "gen_0002: is of generation 1" in caplog.text
    (copy / "run.json").write_text(sealed_json({"command": "of another run"}))
    caplog.clear()
    before = content(copy)
    with pytest.raises(DamagedRun, match=r"holds no whole checkpoint to go on from .*is of another run"):
        repair(copy)
    assert content(copy) == before


@pytest.mark.parametrize("line", [0, 1, 2])
def test_a_line_of_the_manifest_is_made_anew_from_its_checkpoint(copy, caplog, line):
    lines = (copy / MANIFEST).read_bytes().splitlines(keepends=True)
    whole = b"".join(lines)
    lines[line] = lines[line].replace(b"metrics", b"netrics")
    (copy / MANIFEST).write_bytes(b"".join(lines))
    kept = (copy / "checkpoints" / f"gen_{line:04d}").is_dir()
    repair(copy)
    mended = (copy / MANIFEST).read_bytes()
    assert mended == whole if kept else whole.endswith(mended)
    assert kept or f"what generations before {line + 1} wrote can no longer be checked" in caplog.text
    read_log(copy, "metrics.jsonl")


@pytest.mark.parametrize("name", [*LOGS[:3], MANIFEST, "config.yaml", "run.json"])
def test_a_pipe_in_the_place_of_a_file_does_not_hang(copy, name):
    (copy / name).unlink()
    os.mkfifo(copy / name)
    with pytest.raises(UserError, match="is no regular file"):
        repair(copy, strict=True)
    if name.endswith(".jsonl"):
        with pytest.raises(UserError, match="is no regular file"):
            read_log(copy, "metrics.jsonl" if name == MANIFEST else name)


def test_a_config_that_was_changed_is_said_and_its_copy_is_used(copy, caplog):
    text = (copy / "config.yaml").read_text()
    config = read_config(copy)
    (copy / "config.yaml").write_text(text.replace("seed: ", "seed: 1"))
    assert read_config(copy) == config
    assert "config.yaml: damaged, or changed since the run wrote it" in caplog.text
    for end in range(0, len(text), len(text) // 40):
        (copy / "config.yaml").write_text(text[:end])
        assert read_config(copy) == config
    shutil.rmtree(copy / "checkpoints")
    with pytest.raises(UserError, match=r"config\.yaml: damaged, or changed"):
        read_config(copy)


@pytest.mark.parametrize(
    ("log", "line"),
    [
        ("metrics.jsonl", '{"generation": 3, "wall_s": NaN}'),
        ("metrics.jsonl", '{"generation": 3, "wall_s": "1"}'),
        ("metrics.jsonl", '{"generation": -3}'),
        ("metrics.jsonl", '{"wall_s": 1.0}'),
        ("metrics.jsonl", "[" * 100_000),
        ("lineage.jsonl", '{"event": "birth", "generation": 3, "id": 1}'),
        ("lineage.jsonl", '{"event": "marriage", "generation": 3, "id": 1}'),
        ("adapters.jsonl", '{"generation": 3, "ids": 3}'),
    ],
)
def test_a_line_that_no_account_covers_yet_must_be_of_the_right_kind(copy, log, line):
    with (copy / log).open("a") as file:
        file.write(line + "\n")
    with pytest.raises(DamagedRun, match=f"{log}, line [0-9]+: damaged"):
        read_log(copy, log)
    with (copy / log).open("a") as file:
        file.write("{")  # is being written
    with pytest.raises(DamagedRun, match=f"{log}, line [0-9]+: damaged"):
        read_log(copy, log)


def test_a_recording_and_adapters_are_what_the_run_wrote(copy):
    file = copy / "recordings" / "rollout_0001.safetensors"
    check_written(copy, file)
    file.write_bytes(flip(file.read_bytes(), random.Random(1)))
    with pytest.raises(DamagedRun, match=r"rollout_0001\.safetensors: damaged"):
        check_written(copy, file)
    generation = _exported(copy)[0]
    folder = copy / "adapters" / f"gen_{generation:04d}"
    (folder / "agent_00" / "more.txt").write_text("")
    with pytest.raises(DamagedRun, match=r"more\.txt: was not written by the run"):
        check_folder(folder)
