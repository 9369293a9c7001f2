"""A model folder with a malformed file of any kind is refused in one sentence, by this process, which goes on.

The parsers of safetensors and tokenizers are native code: what broke them would end the tests.
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from agents.types import ModelConfig, UserError
from agents.weights.base_model import load_base_model

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
UP = "model.layers.2.mlp.up_proj.weight"
Spoil = Callable[[Path], object]


@pytest.fixture
def folder(tiny_model, tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("TERRARIUM_CACHE", str(tmp_path / "cache"))
    return shutil.copytree(tiny_model, tmp_path / "model")


def write(name: str, content: bytes | str) -> Spoil:
    return lambda folder: (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)


def header(change: Callable[[dict], object], **put: object) -> Spoil:
    """Write the header of the weights anew, with the data as they are; put: as `put_header`."""

    def spoil(folder: Path) -> None:
        content = (folder / WEIGHTS).read_bytes()
        length = int.from_bytes(content[:8], "little")
        entries = json.loads(content[8 : 8 + length])
        change(entries)
        put_header(folder, json.dumps(entries).encode(), content[8 + length :], **put)

    return spoil


def put_header(folder: Path, text: bytes, data: bytes, length: int | None = None, more: bytes = b"") -> None:
    size = len(text) if length is None else length
    (folder / WEIGHTS).write_bytes(size.to_bytes(8, "little") + text + data + more)


def only_header(text: bytes) -> Spoil:
    return lambda folder: put_header(folder, text, b"")


def entry(**settings: object) -> Spoil:
    return header(lambda entries: entries[UP].update(settings))


def tensors(change: Callable[[dict], object]) -> Spoil:
    def spoil(folder: Path) -> None:
        weights = load_file(folder / WEIGHTS)
        change(weights)
        save_file(weights, folder / WEIGHTS, {"format": "pt"})

    return spoil


def config(**settings: object) -> Spoil:
    def spoil(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | settings))

    return spoil


def tokenizer(**settings: object) -> Spoil:
    def spoil(folder: Path) -> None:
        file = folder / "tokenizer.json"
        content = json.loads(file.read_text())
        file.write_text(json.dumps(content | {"model": content["model"] | settings}))

    return spoil


def shards(name: str, save: Callable[[dict, Path], object] = lambda weights, file: save_file(weights, file)) -> Spoil:
    """Weights in another file, which the index names."""

    def spoil(folder: Path) -> None:
        weights = load_file(folder / WEIGHTS)
        (folder / WEIGHTS).unlink()
        save_file({"x": torch.zeros(1)}, folder / "other.safetensors")
        save(weights, folder / name)
        (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(weights, name)}))

    return spoil


def only_index(content: str) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / WEIGHTS).unlink()
        (folder / INDEX).write_text(content)

    return spoil


def pipe(name: str) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return spoil


def sparse(name: str) -> Spoil:
    return lambda folder: os.truncate(folder / name, 1 << 40)


def renamed(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "weights.safetensors")
    config(transformers_weights="weights.safetensors")(folder)


DAMAGED = r"model\.safetensors is cut short or damaged"
SAFETENSORS: dict[str, tuple[Spoil, str]] = {
    "nothing": (write(WEIGHTS, b""), DAMAGED),
    "seven bytes": (write(WEIGHTS, b"1234567"), DAMAGED),
    "a header of 2^63 bytes": (header(lambda _: None, length=2**63), DAMAGED),
    "a header of 2^40 bytes": (header(lambda _: None, length=2**40), DAMAGED),
    "a header of no bytes": (header(lambda _: None, length=0), DAMAGED),
    "a header longer than the file": (header(lambda _: None, length=1 << 20), DAMAGED),
    "a header that is no text": (only_header(b'{"\xff": 1}'), DAMAGED),
    "a header that is a list": (only_header(b"[]"), DAMAGED),
    "a header of brackets": (only_header(b"[" * 100_000), DAMAGED),
    "a header without entries": (only_header(b"{}"), "at most the number of layers that its tensors have, 0"),
    "an unknown type": (entry(dtype="F13"), DAMAGED),
    "a shape below 0": (entry(shape=[-1, 32]), DAMAGED),
    "a shape that overflows": (entry(shape=[2**40, 2**40]), DAMAGED),
    "a shape that is a text": (entry(shape="48 32"), DAMAGED),
    "a shape of other size": (entry(shape=[48, 33]), DAMAGED),
    "an end beyond the file": (entry(data_offsets=[0, 10**12]), DAMAGED),
    "an end before the beginning": (entry(data_offsets=[100, 0]), DAMAGED),
    "no offsets": (header(lambda entries: entries[UP].pop("data_offsets")), DAMAGED),
    "tensors on one another": (
        header(lambda entries: entries[UP].update(data_offsets=entries["model.norm.weight"]["data_offsets"])),
        DAMAGED,
    ),
    "metadata in metadata": (header(lambda entries: entries.update(__metadata__={"a": {}})), DAMAGED),
    "bytes left over": (header(lambda _: None, more=b"1234"), DAMAGED),
    "a terabyte of zeros": (sparse(WEIGHTS), DAMAGED),
    "a tensor that is missing": (tensors(lambda t: t.pop(UP)), f"lacks 1 tensors, such as {UP}"),
    "a tensor turned round": (tensors(lambda t: t.update({UP: t[UP].T.contiguous()})), "cannot be loaded"),
    "integers": (tensors(lambda t: t.update({UP: t[UP].int()})), f"tensor {UP} is of I32: must be F32, F16, BF16, F64"),
    "truths": (tensors(lambda t: t.update({UP: t[UP] > 0})), f"tensor {UP} is of BOOL: must be F32"),
    "complex numbers": (tensors(lambda t: t.update({UP: t[UP].to(torch.complex64)})), f"tensor {UP} is of C64"),
    "8-bit floats without scales": (
        tensors(lambda t: t.update({UP: t[UP].to(torch.float8_e4m3fn)})),
        f"tensor {UP} is of F8_E4M3: must be",
    ),
    "NaN": (tensors(lambda t: t[UP].fill_(torch.nan)), f"tensor {UP} holds NaN or infinity"),
    "NaN in 16 bits": (tensors(lambda t: t.update({UP: (t[UP] * torch.nan).half()})), f"tensor {UP} holds NaN"),
    "infinity, once in float32": (tensors(lambda t: t.update({UP: t[UP].double() * 1e300})), f"tensor {UP} holds NaN"),
}
OTHERS: dict[str, tuple[Spoil, str]] = {
    "shards that are pickles": (
        shards("weights.bin", torch.save),
        r"index\.json names 'weights\.bin': must be a \*\.safetensors beside it",
    ),
    "shards elsewhere": (shards("../weights.safetensors"), r"names '\.\./weights\.safetensors': must be a"),
    "weights of another name": (renamed, r"transformers_weights = 'weights\.safetensors' in config\.json: must be abs"),
    "an index that is no JSON": (only_index("{"), r"index\.json is not JSON"),
    "an index without a map": (only_index("{}"), "weight_map must name a file for each tensor"),
    "an index with a list": (only_index('{"weight_map": [1]}'), "weight_map must name a file for each tensor"),
    "an index of brackets": (only_index("[" * 100_000), r"index\.json is not JSON"),
    "a pipe for weights": (pipe(WEIGHTS), r"model\.safetensors must be an ordinary file"),
    "a pipe for settings": (pipe("generation_config.json"), r"generation_config\.json must be an ordinary file"),
    "a pipe for a template": (pipe("chat_template.jinja"), r"chat_template\.jinja must be an ordinary file"),
    "a terabyte of tokens": (sparse("tokenizer.json"), r"tokenizer\.json has 1099511627776 bytes: must have at most"),
    "a config of brackets": (write("config.json", "[" * 100_000), r"config\.json is not JSON"),
    "an endless integer": (
        write("config.json", '{"a": 1' + "0" * 5000 + "}"),
        r"config\.json is not JSON",
    ),
    "2^30 layers": (
        config(num_hidden_layers=2**30),
        "num_hidden_layers = 1073741824 in config.json: must be at least 1",
    ),
    "one layer too many": (config(num_hidden_layers=5), "at most the number of layers that its tensors have, 4"),
    "no heads": (config(num_attention_heads=0), "cannot be loaded"),
    "2^40 tokens": (config(vocab_size=2**40), "cannot be loaded"),
    "another width": (config(hidden_size=64), "cannot be loaded"),
    "an unknown activation": (config(hidden_act="something"), "cannot be loaded"),
    "a kernel of the hub, deep inside": (
        config(text_config={"_attn_implementation": "somebody/kernel"}),
        "names code of the hub, which is never run",
    ),
    "tokens that are nothing": (write("tokenizer.json", b""), "cannot be loaded"),
    "tokens of brackets": (write("tokenizer.json", "[" * 100_000), "cannot be loaded"),
    "tokens without an unknown one": (tokenizer(unk_token="nobody"), "cannot be loaded"),
    "tokens of an unknown kind": (tokenizer(type="Nothing"), "cannot be loaded"),
    "a token of number 2^64": (tokenizer(vocab={"go": 2**64}), "cannot be loaded"),
}


@pytest.mark.parametrize("case", [*SAFETENSORS, *OTHERS])
def test_it_is_refused_in_one_sentence(case, folder, monkeypatch):
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("a pickle was opened"))
    spoil, reason = (SAFETENSORS | OTHERS)[case]
    spoil(folder)
    with pytest.raises(UserError, match=reason) as caught:
        load_base_model(ModelConfig(name=str(folder), dtype="float32"))
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pickles_beside_the_weights_are_not_opened(folder, monkeypatch):
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("a pickle was opened"))
    for name in ("pytorch_model.bin", "model.pt", "optimizer.pt"):
        (folder / name).write_bytes(b"a pickle")
    (folder / "modeling.py").write_text("raise SystemExit")
    load_base_model(ModelConfig(name=str(folder), dtype="float32"))


def test_masks_of_integers_are_no_weights_and_what_is_not_used_is_said(folder, caplog):
    tensors(lambda t: t.update({"model.layers.0.attn.bias": torch.ones(1, 1, 4, 4, dtype=torch.bool)}))(folder)
    load_base_model(ModelConfig(name=str(folder), dtype="float32"))
    assert "has 1 tensors that are not used, such as model.layers.0.attn.bias" in caplog.text
