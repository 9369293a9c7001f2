"""What is not a whole, plain, finite model is refused in one sentence before anything of it is run or computed."""

import json
import os
import pickle
import re
import shutil
from pathlib import Path
from typing import get_args

import pytest
import torch
from safetensors.torch import load_file, save_file

from agents.types import ModelConfig, UserError, WeightStorage
from agents.weights.base_model import load_base_model


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("TERRARIUM_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tiny_model, tmp_path) -> Path:
    return shutil.copytree(tiny_model, tmp_path / "model")


def configure(folder: Path, file: str = "config.json", **settings: object) -> None:
    (folder / file).write_text(json.dumps(json.loads((folder / file).read_text()) | settings))


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def only_pickle(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({}))


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def lose_shard(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    index = {name: "model-00002-of-00002.safetensors" for name in weights}
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


def spoil(folder: Path, number: float, name: str = "model.layers.2.mlp.up_proj.weight") -> None:
    weights = load_file(folder / "model.safetensors")
    weights[name][3, 4] = number
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def panic(folder: Path) -> None:
    configure(folder, "tokenizer.json", normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"})


def integers(folder: Path, name: str) -> None:
    weights = load_file(folder / "model.safetensors")
    weights[name] = torch.ones(weights[name].shape if name in weights else 32, dtype=torch.int64)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


BROKEN = {
    "gptq": (
        lambda f: configure(f, quantization_config={"quant_method": "gptq", "bits": 4}),
        r"is quantised .*, gptq\)",
    ),
    "awq": (lambda f: configure(f, quantization_config={"quant_method": "awq"}), r"is quantised .*, awq\)"),
    "bitsandbytes": (
        lambda f: configure(f, quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}),
        r"is quantised .*, bitsandbytes\)",
    ),
    **{
        f"quantization_config = {value!r}": (
            lambda f, value=value: configure(f, quantization_config=value),
            re.escape(f"is quantised (quantization_config in config.json, {value!r}, no JSON object)"),
        )
        for value in ("x", [1], 5, True)
    },
    "quantised text model": (
        lambda f: configure(f, text_config={"quantization_config": {"quant_method": "gptq"}}),
        r"is quantised .*, gptq\)",
    ),
    **{
        f"model_type = {value!r}": (
            lambda f, value=value: configure(f, model_type=value),
            re.escape(f"is of model_type {value!r}, which transformers does not know"),
        )
        for value in ([], {}, 5, None)
    },
    **{
        f"{value} layers": (
            lambda f, value=value: configure(f, num_hidden_layers=value),
            f"num_hidden_layers = {value} in config.json: must be at least 1, and at most .* its tensors have, 4",
        )
        for value in (-1, 0, 5, 2**31)
    },
    "other weights": (lambda f: configure(f, transformers_weights="x.safetensors"), "transformers_weights = 'x.safe"),
    "deep config": (lambda f: (f / "config.json").write_text('{"a":' * 900 + "{}" + "}" * 900), "model_type None"),
    "panic": (panic, "cannot be loaded: Precompiled: "),
    "weights of integers": (
        lambda f: integers(f, "model.norm.weight"),
        "tensor model.norm.weight is of I64: must be F32, F16, BF16, F64",
    ),
    "bias of integers": (lambda f: integers(f, "a.bias"), "tensor a.bias is of I64: must be"),
    "pipe": (lambda f: os.mkfifo(f / "README.md"), "README.md must be an ordinary file"),
    "link to a device": (lambda f: (f / "README.md").symlink_to("/dev/zero"), "README.md must be an ordinary file"),
    "distributed": (
        lambda f: shutil.copy(f / "model.safetensors", f / "shard-00000-model-00001-of-00001.safetensors"),
        r"is a distributed checkpoint \(shard-00000-model-00001-of-00001.safetensors\): must have model.safetensors",
    ),
    "weights of another name": (
        lambda f: (f / "model.safetensors").rename(f / "optimizer.safetensors"),
        "has no weights: must have model.safetensors, or",
    ),
    "adapter": (lambda f: (f / "adapter_config.json").write_text("{}"), r"holds an adapter \(adapter_config.json\)"),
    "adapter's weights": (lambda f: (f / "adapter_model.safetensors").write_bytes(b""), "holds an adapter"),
    "no JSON": (lambda f: (f / "config.json").write_text("{'a': 1}"), r"config.json is not JSON \("),
    "no object": (lambda f: (f / "config.json").write_text("[]"), "config.json is a list: must be a JSON object"),
    "no text": (lambda f: (f / "config.json").write_bytes(b"\xff\xfe"), r"config.json is not JSON \("),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), r"has no tokenizer\.json"),
    "broken tokenizer": (lambda f: cut(f / "tokenizer.json"), "cannot be loaded: "),
    "weights cut short": (lambda f: cut(f / "model.safetensors"), r"model.safetensors is cut short or damaged \(.+\)"),
    "empty weights": (lambda f: (f / "model.safetensors").write_bytes(b""), "model.safetensors is cut short or"),
    "lost shard": (lose_shard, "index.json names model-00002-of-00002.safetensors, which is missing"),
    "pickle": (only_pickle, r"only a pickle \(pytorch_model.bin\), which can run code and is never opened: must have"),
    "no weights": (
        lambda f: (f / "model.safetensors").unlink(),
        "has no weights: must have model.safetensors, or model.safetensors.index",
    ),
    "empty": (empty, "has no config.json and no tokenizer.json"),
    "unknown": (lambda f: configure(f, model_type="llama9"), "is of model_type 'llama9', which transformers does not"),
    "nothing": (
        lambda f: (f / "config.json").write_text("{}"),
        "is of model_type None, which transformers does not know",
    ),
    "NaN": (lambda f: spoil(f, float("nan")), r"model: tensor model.layers.2.mlp.up_proj.weight holds NaN"),
    "infinity": (lambda f: spoil(f, -float("inf"), "model.embed_tokens.weight"), "tensor model.embed_tokens.weight ho"),
}


@pytest.mark.parametrize("storage", get_args(WeightStorage))
@pytest.mark.parametrize("case", BROKEN)
def test_it_is_refused_in_one_sentence(case, storage, folder):
    damage, reason = BROKEN[case]
    damage(folder)
    with pytest.raises(UserError, match=reason) as caught:
        load_base_model(ModelConfig(name=str(folder), weight_storage=storage))
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("storage", get_args(WeightStorage))
@pytest.mark.parametrize("empty", [None, {}])
def test_a_setting_that_is_empty_says_nothing(empty, storage, folder):
    configure(folder, quantization_config=empty, transformers_weights=None)
    load_base_model(ModelConfig(name=str(folder), weight_storage=storage))


def test_what_is_no_weight_of_the_model_is_not_judged_as_one(folder, tiny_model):
    weights = load_file(folder / "model.safetensors")
    weights["model.position_ids"] = torch.arange(9)
    weights["model.layers.0.self_attn.bias"] = torch.ones(1, 1, 9, 9, dtype=torch.bool).tril()
    weights["model.layers.0.self_attn.mask"] = torch.full((9, 9), -torch.inf).triu(1)
    weights["model.layers.1.self_attn.bias"] = torch.full((1, 1, 9, 9), -torch.inf).triu(1)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    moments = {"a.weight": torch.full((3,), torch.nan), "b.weight": torch.ones(3, dtype=torch.int64)}
    save_file(moments, folder / "optimizer.safetensors")
    (folder / "scheduler.safetensors").write_bytes(b"cut short")
    (folder / "README.md").symlink_to(folder / "absent")
    ours, theirs = (load_base_model(ModelConfig(name=str(f))).causal_lm.state_dict() for f in (folder, tiny_model))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_shards_that_an_index_names_are_opened_and_checked(folder):
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    parts = {"one.safetensors": names[::2], "two.safetensors": names[1::2]}
    for file, held in parts.items():
        save_file({name: weights[name] for name in held}, folder / file, {"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: file for file, held in parts.items() for name in held}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    load_base_model(ModelConfig(name=str(folder)))
    cut(folder / "two.safetensors")
    with pytest.raises(UserError, match=r"two\.safetensors is cut short or damaged"):
        load_base_model(ModelConfig(name=str(folder)))


def test_large_numbers_whose_sum_is_infinite_are_no_infinity(folder):
    weights = load_file(folder / "model.safetensors")
    weights["model.embed_tokens.weight"][:2] = 3e38
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    load_base_model(ModelConfig(name=str(folder)))
    with pytest.raises(
        UserError, match=r"model\.weight_storage = 'compact': must be full, as embedding holds numbers too large"
    ):
        load_base_model(ModelConfig(name=str(folder), weight_storage="compact"))


# Code in a model folder

EVIL = """
from pathlib import Path
Path({mark!r}).write_text("run")
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
class Config(LlamaConfig): model_type = {kind!r}
class Model(LlamaForCausalLM): config_class = Config
class Words(PreTrainedTokenizerFast): pass
"""
CLASSES = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model", "AutoModel": "evil.Model"}


@pytest.mark.parametrize("storage", get_args(WeightStorage))
@pytest.mark.parametrize(
    ("kind", "words", "refusal"),
    [
        ("llama", "PreTrainedTokenizerFast", None),
        ("llama", "Words", r"it needs code of its own \(auto_map\)$"),
        (
            "evil",
            "PreTrainedTokenizerFast",
            r"model_type 'evil', .* needs code of its own \(auto_map\), which is never",
        ),
    ],
)
def test_its_code_is_never_run_even_if_somebody_says_yes(kind, words, refusal, storage, folder, tmp_path, monkeypatch):
    mark = tmp_path / "was_run"
    (folder / "evil.py").write_text(EVIL.format(mark=str(mark), kind=kind))
    configure(folder, model_type=kind, architectures=["Model"], auto_map=CLASSES)
    tokenizer = {"AutoTokenizer": ["evil.Words", "evil.Words"]}
    configure(folder, "tokenizer_config.json", tokenizer_class=words, auto_map=tokenizer)
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # transformers asks, unless it is told
    if refusal:
        with pytest.raises(UserError, match=refusal):
            load_base_model(ModelConfig(name=str(folder), weight_storage=storage))
    else:
        base = load_base_model(ModelConfig(name=str(folder), weight_storage=storage))
        assert all(type(part).__module__.startswith("transformers.") for part in (base.causal_lm, base.tokenizer))
    assert not mark.exists()


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation", "experts_implementation"])
def test_a_kernel_of_the_hub_is_not_fetched(key, folder):
    configure(folder, **{key: "somebody/kernel"})
    with pytest.raises(
        UserError, match=f"{key} = 'somebody/kernel' in config.json names code of the hub, which is nev"
    ):
        load_base_model(ModelConfig(name=str(folder)))


OPENS = re.compile(r"Auto\w+\.from_(?:pretrained|config)\((?:[^()]|\([^()]*\))*\)")


def test_every_opening_of_a_model_forbids_its_code():
    """Wherever transformers is asked for one; a config that was opened so passes `**here` on, which says it."""
    root = Path(__file__).parents[2]
    rooms = ("agents", "trainers", "evolution", "dashboard", "benchmarks", "examples")
    calls = [call for room in rooms for file in (root / room).rglob("*.py") for call in OPENS.findall(file.read_text())]
    assert len(calls) >= 12
    assert [call for call in calls if not re.search(r"trust_remote_code=False|\*\*here|\*\*settings", call)] == []
