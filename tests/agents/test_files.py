"""Whatever happens while it is written, a file or folder is the old one or the new one, and nothing lies beside it."""

import os
import stat
from pathlib import Path

import pytest

from agents.files import sync, whole_file, whole_folder


def fill(path: Path, text: str, whole) -> None:
    """Write a text as the file, or into a file of the folder."""
    file = path / "a" / "b.txt" if whole is whole_folder else path
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)


def held(path: Path, whole) -> str:
    """The text that is there."""
    return (path / "a" / "b.txt" if whole is whole_folder else path).read_text()


@pytest.fixture(params=[whole_file, whole_folder])
def whole(request):
    return request.param


@pytest.fixture(params=[False, True], ids=["own", "shared"])
def shared(request):
    return request.param


def test_what_was_written_is_there_when_the_block_ends_and_not_before(whole, shared, tmp_path):
    place = tmp_path / "new" / "x"
    with whole(place, shared=shared) as partial:
        fill(partial, "one", whole)
        assert not place.exists()
    assert held(place, whole) == "one"
    assert list(place.parent.iterdir()) == [place]


def test_an_error_leaves_the_old_one_and_nothing_else(whole, shared, tmp_path):
    place = tmp_path / "x"
    with whole(place, shared=shared) as partial:
        fill(partial, "one", whole)
    with pytest.raises(ZeroDivisionError), whole(place, shared=shared) as partial:
        fill(partial, str(1 / 0), whole)
    assert held(place, whole) == "one"
    assert list(tmp_path.iterdir()) == [place]


def test_an_older_one_is_replaced(whole, tmp_path):
    place = tmp_path / "x"
    for text in ("one", "two"):
        with whole(place) as partial:
            assert not partial.is_file()
            fill(partial, text, whole)
    assert held(place, whole) == "two"


def test_nothing_of_an_older_folder_stays(tmp_path):
    for name in ("one", "two"):
        with whole_folder(tmp_path / "x") as partial:
            (partial / name).touch()
    assert [entry.name for entry in (tmp_path / "x").iterdir()] == ["two"]


def test_what_a_killed_process_left_is_not_taken_up(whole, tmp_path):
    (tmp_path / ".x.partial").mkdir()
    (tmp_path / ".x.partial" / "half").touch()
    with whole(tmp_path / "x") as partial:
        assert not (partial / "half").exists()
        fill(partial, "one", whole)
    assert [entry.name for entry in tmp_path.iterdir()] == ["x"]


def test_two_that_make_the_same_do_not_disturb_each_other(whole, tmp_path):
    place = tmp_path / "x"
    with whole(place, shared=True) as slow:
        fill(slow, "the same", whole)
        with whole(place, shared=True) as fast:
            fill(fast, "the same", whole)
        assert held(place, whole) == "the same"
    assert held(place, whole) == "the same"
    assert list(tmp_path.iterdir()) == [place]


def test_a_folder_that_another_process_made_stays_and_one_that_nobody_made_is_missed(tmp_path, monkeypatch):
    place = tmp_path / "x"
    with whole_folder(place, shared=True) as partial:
        place.mkdir()
        (place / "theirs").touch()
        (partial / "ours").touch()
    assert [entry.name for entry in place.iterdir()] == ["theirs"]

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(PermissionError), whole_folder(tmp_path / "y", shared=True):
        pass


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
def test_others_may_read_what_others_may_read_elsewhere(whole, shared, tmp_path):
    plain = tmp_path / "plain"
    plain.mkdir() if whole is whole_folder else plain.touch()
    with whole(tmp_path / "x", shared=shared) as partial:
        fill(partial, "one", whole)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_a_file_that_may_not_be_written_any_more_is_synced_too(tmp_path):
    with whole_folder(tmp_path / "x") as partial:
        (partial / "a").write_text("one")
        (partial / "a").chmod(0o444)
    assert (tmp_path / "x" / "a").read_text() == "one"


def test_all_is_handed_to_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    synced, real = [], os.fsync

    def note(handle):
        synced.append((os.fstat(handle).st_ino, (tmp_path / "x").exists()))
        real(handle)

    monkeypatch.setattr(os, "fsync", note)
    with whole_folder(tmp_path / "x") as partial:
        (partial / "a").write_text("one")
        (partial / "b").mkdir()
        (partial / "b" / "c").write_text("two")
        inodes = {path.stat().st_ino for path in (*partial.rglob("*"), partial)}
    assert {inode for inode, is_there in synced if not is_there} == inodes
    assert (tmp_path.stat().st_ino, True) in synced


def test_where_folders_cannot_be_opened_or_synced_all_is_written_all_the_same(whole, tmp_path, monkeypatch):
    real_open, files = os.open, []

    def windows_open(path, flags, *rest, **more):
        if Path(path).is_dir():
            raise PermissionError(13, "Permission denied", str(path))
        handle = real_open(path, flags, *rest, **more)
        files.append(flags & (os.O_RDWR | os.O_WRONLY))
        return handle

    monkeypatch.setattr(os, "open", windows_open)
    with whole(tmp_path / "x") as partial:
        fill(partial, "one", whole)
    assert held(tmp_path / "x", whole) == "one"
    assert files
    assert all(files), "Windows syncs only what was opened for writing"


def test_a_disk_that_fails_is_told_of(tmp_path, monkeypatch):
    (tmp_path / "x").write_text("one")

    def fail(_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    sync(tmp_path)  # file systems of networks refuse folders
    with pytest.raises(OSError, match="Input/output"), whole_file(tmp_path / "x") as partial:
        partial.write_text("two")
    assert (tmp_path / "x").read_text() == "one"
