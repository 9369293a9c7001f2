"""What the cache keeps is whole, checked whenever it is used, and nobody else's files are lost in it."""

import hashlib
from pathlib import Path
from threading import Event, Timer

import pytest

from agents import sums
from agents.mapped import mapped_zeros
from agents.sums import SUMS, sha256_of
from agents.types import UserError
from agents.weights import cache as cache_module
from agents.weights import fetch
from agents.weights.cache import damage, kept_folder, made


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("TERRARIUM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def put(file: Path, content: bytes) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


def write_pair(box: Path) -> None:
    put(box / "one", b"1")
    put(box / "deep" / "two", b"2")


def test_what_is_kept_is_made_once_and_its_list_is_that_of_sha256sum(cache):
    folder = kept_folder(cache / "pair", write_pair, "making it")
    one, two = (hashlib.sha256(content).hexdigest() for content in (b"1", b"2"))
    assert (folder / SUMS).read_text() == f"{two}  deep/two\n{one}  one\n"
    assert kept_folder(folder, lambda _: pytest.fail("it was made again"), "making it") == folder


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda f: (f / "deep" / "two").write_bytes(b"3"), "two is damaged"),
        (lambda f: (f / "one").unlink(), "one is missing"),
    ],
)
def test_what_is_damaged_is_named_and_made_anew(cache, caplog, spoil, told):
    folder = kept_folder(cache / "pair", write_pair, "making it")
    spoil(folder)
    assert kept_folder(folder, write_pair, "making it") == folder
    assert told in caplog.text
    assert ((folder / "one").read_bytes(), (folder / "deep" / "two").read_bytes()) == (b"1", b"2")
    assert list(cache.iterdir()) == [folder]


@pytest.mark.parametrize("content", [None, b"\xff", b"nonsense", b""])
def test_a_folder_without_a_list_is_renamed_with_all_that_is_in_it(cache, caplog, content):
    """As earlier versions made it: nobody knows what in it is the user's."""
    for name in ("pair.old", "pair.old2"):
        folder = kept_folder(cache / "pair", write_pair, "making it")
        put(folder / "mine.gguf", name.encode())
        (folder / SUMS).unlink() if content is None else (folder / SUMS).write_bytes(content)
        assert kept_folder(folder, write_pair, "making it") == folder
        assert f"{folder} has no {SUMS} that can be read, so it was written by an earlier version" in caplog.text
        assert f"it was renamed to {cache / name}; delete that" in caplog.text
        assert (cache / name / "mine.gguf").read_bytes() == name.encode()
        assert (cache / name / "one").exists()
        assert not (folder / "mine.gguf").exists()


@pytest.mark.parametrize("stranger", ["mine.gguf", "Thumbs.db", "deep/note.txt", ".DS_Store"])
def test_a_file_that_somebody_put_there_is_left_alone_and_never_deleted(cache, caplog, stranger):
    folder = kept_folder(cache / "pair", write_pair, "making it")
    put(folder / stranger, b"mine")
    assert kept_folder(folder, lambda _: pytest.fail("it was made again"), "making it") == folder
    (folder / "one").write_bytes(b"3")
    assert kept_folder(folder, write_pair, "making it") == folder
    assert (folder / "one").read_bytes() == b"1"
    assert (cache / "pair.old" / stranger).read_bytes() == b"mine"
    assert "one is damaged" in caplog.text
    assert f"renamed to {cache / 'pair.old'}" in caplog.text


@pytest.mark.parametrize(
    ("is_listed", "told"),
    [
        (True, r"pair: is damaged and cannot be deleted .*Permission denied.*; delete it"),
        (False, r"pair: cannot be renamed .*Permission denied.*; rename or delete it"),
    ],
)
def test_what_is_damaged_and_cannot_be_moved_is_said(cache, monkeypatch, is_listed, told):
    folder = kept_folder(cache / "pair", write_pair, "making it")
    (folder / "one").write_bytes(b"3")
    if not is_listed:
        (folder / SUMS).unlink()

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "replace", refuse)
    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(UserError, match=told):
        kept_folder(folder, write_pair, "making it")


def test_a_process_hashes_a_file_once_until_somebody_writes_it(tmp_path, monkeypatch):
    file, reads, read = put(tmp_path / "file", b"1"), [], sums._read_sha256
    monkeypatch.setattr(sums, "_read_sha256", lambda path: reads.append(path) or read(path))
    first = sha256_of(file)
    assert sha256_of(file) == first
    assert len(reads) == 2, "it was written a moment ago, and a clock may be too coarse to tell"
    monkeypatch.setattr(sums, "SETTLED", 0.0)
    assert {sha256_of(file) for _ in range(3)} == {first}
    assert len(reads) == 3
    file.write_bytes(b"22")
    assert sha256_of(file) != first
    assert len(reads) == 4


def test_what_is_hashed_ahead_is_not_read_again_and_who_asks_meanwhile_waits(tmp_path, monkeypatch):
    files, reads, read = [put(tmp_path / name, b"1") for name in "ab"], [], sums._read_sha256
    begun, may_go_on = Event(), Event()
    monkeypatch.setattr(sums, "SETTLED", 0.0)

    def slow(path: Path) -> str:
        reads.append(path)
        begun.set()
        may_go_on.wait(10)
        return read(path)

    monkeypatch.setattr(sums, "_read_sha256", slow)
    thread = sums.hash_ahead([tmp_path / "missing", *files])
    assert begun.wait(10)
    Timer(0.05, may_go_on.set).start()
    assert [sha256_of(file) for file in files] == [read(file) for file in files]
    thread.join()
    assert sorted(reads) == files


def test_what_is_damaged_after_it_was_hashed_ahead_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(sums, "SETTLED", 0.0)
    folder = kept_folder(tmp_path / "kept", write_pair, "making it")
    sums.hash_ahead(sorted(folder.iterdir())).join()
    assert damage(folder) is None
    (folder / "one").write_bytes(b"3")
    assert "one is damaged" in damage(folder)


def test_a_cache_in_which_nothing_can_be_written_is_said(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TERRARIUM_CACHE", str(tmp_path / "file"))
    told = "TERRARIUM_CACHE = .*file': must be a folder in which files can be written"
    for need in (lambda: fetch.model_folder("smollm2-135m"), lambda: mapped_zeros(3)):
        with pytest.raises(UserError, match=told):
            need()
    monkeypatch.setenv("TERRARIUM_CACHE", str(tmp_path / "cache"))

    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(cache_module.tempfile, "TemporaryFile", refuse)  # root may write anywhere
    with pytest.raises(UserError, match=r"must be a folder in which files can be written .*Permission denied"):
        made(tmp_path / "cache")
