"""The Llama that is built here comes to what transformers' does, and is built only where all of a config is known."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from agents.types import ModelConfig
from agents.weights.base_model import load_base_model
from agents.weights.llama import Llama, load_llama
from agents.weights.llama_config import known_config
from agents.weights.whole import weight_files

SHAPE = {
    **{"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "vocab_size": 50},
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512, "initializer_range": 0.3},
}
LLAMA3 = {
    **{"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    **{"original_max_position_embeddings": 64, "rope_theta": 500.0},
}
CASES = {
    "llama": ("llama", {}),
    "llama, tied": ("llama", {"tie_word_embeddings": True}),
    "llama with biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama with wide heads": ("llama", {"head_dim": 16}),
    "llama with a head each": ("llama", {"num_key_value_heads": 4}),
    "linear": ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 500.0}}),
    "llama3": ("llama", {"rope_parameters": LLAMA3}),
    "mistral": ("mistral", {"sliding_window": None}),
    "mistral with a window": ("mistral", {"sliding_window": 300, "tie_word_embeddings": True}),
    "qwen2": ("qwen2", {}),
    "qwen2, tied": ("qwen2", {"tie_word_embeddings": True}),
}


def write(folder: Path, kind: str, settings: dict) -> torch.nn.Module:
    """A random model of transformers, saved."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **SHAPE | settings)
    theirs = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "bias" in name or "norm" in name:
                parameter += 0.3 * torch.randn(parameter.shape)  # which are zero, or one, at first
    theirs.save_pretrained(folder, max_shard_size="30KB")
    return theirs


def ours_of(folder: Path) -> Llama | None:
    config = known_config(folder)
    return load_llama(config, weight_files(folder, str(folder))) if config else None


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_logits_are_those_of_transformers(case, tmp_path):
    theirs = write(tmp_path, *CASES[case])
    ours = ours_of(tmp_path)
    assert ours is not None
    assert {name: p.shape for name, p in ours.named_parameters()} == {
        name: p.shape for name, p in theirs.named_parameters()
    }
    ids = torch.randint(0, 50, (2, 200))
    expected = theirs(ids).logits
    torch.testing.assert_close(ours(ids).logits, expected, rtol=1e-4, atol=1e-4)
    before = ours.base_model(ids[:, :120], use_cache=True).past_key_values
    later = ours.base_model(ids[:, 120:], past_key_values=before).last_hidden_state
    torch.testing.assert_close(ours.lm_head(later), expected[:, 120:], rtol=1e-4, atol=1e-4)
    for name, size in (("num_attention_heads", 4), ("rms_norm_eps", theirs.config.rms_norm_eps), ("vocab_size", 50)):
        assert getattr(ours.config, name) == size
    assert ours.config.sliding_window == getattr(theirs.config, "sliding_window", None)


@torch.no_grad()
def test_older_files_say_the_same_in_other_words(tmp_path):
    theirs = write(tmp_path, "llama", {"rope_parameters": LLAMA3})
    config = json.loads((tmp_path / "config.json").read_text())
    rope = config.pop("rope_parameters")
    old = {"rope_theta": rope.pop("rope_theta"), "rope_scaling": rope, "torch_dtype": config.pop("dtype")}
    (tmp_path / "config.json").write_text(json.dumps(config | old))
    ours, ids = ours_of(tmp_path), torch.randint(0, 50, (1, 200))
    assert ours is not None
    torch.testing.assert_close(ours(ids).logits, theirs(ids).logits, rtol=1e-4, atol=1e-4)


UNKNOWN = {
    "a key that is not known": {"attention_multiplier": 1.0},
    "a number as a text": {"hidden_size": "32"},
    "a truth as a number": {"num_hidden_layers": True},
    "another activation": {"hidden_act": "gelu"},
    "another kind": {"model_type": "gemma"},
    "another rotation": {"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "rope_theta": 1e4}},
    "part of a head rotated": {
        "rope_parameters": {"rope_theta": 1e4, "rope_type": "default", "partial_rotary_factor": 0.5}
    },
    "a rotation without its base": {"rope_parameters": {"rope_type": "default"}},
    "two rotations": {"rope_scaling": {"type": "linear", "factor": 2.0}},
    "heads that do not divide": {"num_key_value_heads": 3},
    "no number": {"rms_norm_eps": float("nan")},
    "a number that no float holds": {"rms_norm_eps": 10**400},
    "a base that no float holds": {"rope_parameters": {"rope_type": "default", "rope_theta": 10**400}},
    "a token that is none": {"pad_token_id": 10**6},
    "code of its own": {"auto_map": {"AutoConfig": "evil.Config"}},
    "quantised": {"quantization_config": {}},
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_a_config_that_says_more_is_left_to_transformers(case, tiny_model, tmp_path):
    assert known_config(tiny_model)
    config = json.loads((tiny_model / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | UNKNOWN[case]))
    assert known_config(tmp_path) is None


@pytest.mark.parametrize("key", ["vocab_size", "rms_norm_eps", "num_key_value_heads", "rope_parameters"])
def test_so_is_one_that_says_less(key, tiny_model, tmp_path):
    config = json.loads((tiny_model / "config.json").read_text())
    del config[key]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert known_config(tmp_path) is None


@pytest.mark.parametrize("kind", ["mistral", "qwen2"])
def test_windows_that_differ_from_layer_to_layer_are_left_to_transformers(kind, tmp_path):
    settings = {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1} if kind == "qwen2" else {}
    write(tmp_path, kind, settings)
    config = json.loads((tmp_path / "config.json").read_text())
    if kind == "mistral":
        del config["sliding_window"]  # versions of transformers differ in what that means
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert known_config(tmp_path) is None


@pytest.mark.parametrize("change", ["missing", "more", "misshapen", "tied twice"])
def test_files_that_hold_other_tensors_are_left_to_transformers(change, tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    if change == "missing":
        del tensors["model.norm.weight"]
    elif change == "more":
        tensors["model.layers.0.more.bias"] = torch.zeros(3)
    elif change == "misshapen":
        tensors["model.norm.weight"] = torch.ones(33)
    else:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, folder / "model.safetensors")
    assert ours_of(tiny_model)
    assert ours_of(folder) is None


@pytest.mark.parametrize("storage", ["full", "compact"])
def test_a_model_that_is_known_is_built_here(storage, tiny_model):
    settings = ModelConfig(name=str(tiny_model), weight_storage=storage)
    assert isinstance(load_base_model(settings).causal_lm, Llama)
    theirs = load_base_model(settings, by_transformers=True)
    assert all(type(part).__module__.startswith("transformers.") for part in (theirs.causal_lm, theirs.tokenizer))


def test_weights_of_16_bits_are_read_as_float32(tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    tensors = {name: x.bfloat16() for name, x in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors")
    ours = ours_of(folder)
    assert ours is not None
    for name, parameter in ours.named_parameters():
        assert torch.equal(parameter, tensors[name].float())
