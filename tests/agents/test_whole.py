"""What is not a whole, plain, finite model is refused in one sentence before anything of it is run or computed."""

import json
import pickle
import re
import shutil
from pathlib import Path
from typing import get_args

import pytest
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
    "no weights": (lambda f: (f / "model.safetensors").unlink(), r"has no weights: must have \*\.safetensors"),
    "empty": (empty, "has no config.json and no tokenizer.json"),
    "unknown": (lambda f: configure(f, model_type="llama9"), "is of model_type 'llama9', which transformers does not"),
    "nothing": (
        lambda f: (f / "config.json").write_text("{}"),
        "is of model_type None, which transformers does not know",
    ),
    "NaN": (lambda f: spoil(f, float("nan")), r"model.safetensors: tensor model.layers.2.mlp.up_proj.weight holds NaN"),
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
