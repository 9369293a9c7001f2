"""The custom model is the same wherever it is made, of the promised size, and a working model folder."""

import json
import shutil
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from agents.codecs.forage import ForageCodec
from agents.policy import make_policy
from agents.sums import sha256_of
from agents.types import AdapterConfig, ModelConfig
from agents.weights import fetch
from agents.weights.base_model import load_base_model
from agents.weights.custom_model import write_custom_model
from agents.weights.fetch import model_folder

SHA256 = "97cafa45676cb2cd2f82aee64dbd40e982ba323713ae95e484d328041b4d87c5"
VOCABULARY = 49152


@pytest.fixture(scope="module")
def lender(tiny_model, tmp_path_factory) -> Path:
    """A model folder with SmolLM2's number of tokens and config, and the words of the tiny Llama."""
    folder = tmp_path_factory.mktemp("lender") / "model"
    shutil.copytree(tiny_model, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": VOCABULARY, "rms_norm_eps": 1e-5}))
    return folder


@pytest.fixture(scope="module")
def custom(lender, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("custom") / "model"
    write_custom_model(folder, lender)
    return folder


def test_the_bytes_are_those_of_every_other_machine(custom):
    assert sha256_of(custom / "model.safetensors") == SHA256


def test_neither_torchs_nor_numpys_random_state_matters(custom, lender, tmp_path):
    torch.manual_seed(5)
    np.random.seed(5)
    write_custom_model(tmp_path / "again", lender)
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (custom / "model.safetensors").read_bytes()


def test_it_has_fifty_megabytes_and_below_thirty_quantised(custom):
    assert 50e6 < (custom / "model.safetensors").stat().st_size < 51e6
    weights = load_file(custom / "model.safetensors")
    block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType.Q8_0]
    quantised = sum(w.numel() // block * size if w.ndim == 2 else 4 * w.numel() for w in weights.values())
    assert 26e6 < quantised < 27e6


def test_weights_are_spread_as_those_of_a_newborn_should_be(custom):
    weights = load_file(custom / "model.safetensors")
    assert {w.dtype for w in weights.values()} == {torch.bfloat16}
    for name, weight in weights.items():
        if weight.ndim == 1:
            assert (weight == 1).all(), name
        else:
            assert abs(weight.float().mean()) < 1e-3, name
            assert abs(weight.float().std() - 0.0625) < 1e-3, name
    first, second = (weights[f"model.layers.{i}.mlp.up_proj.weight"].flatten().float() for i in (0, 1))
    assert abs(torch.corrcoef(torch.stack([first, second]))[0, 1]) < 0.02, "layers must differ"


def test_it_opens_and_answers_in_both_ways(custom):
    model = ModelConfig(name=str(custom), dtype="float32")
    network = make_policy(model, AdapterConfig(), ForageCodec(view_radius=3), 2, seed=0).network
    with torch.no_grad():
        fast = network.action_logits([" no food, going east"], torch.tensor([1]))[0]
        torch.testing.assert_close(fast, network.plain_logits(" no food, going east", 1), atol=1e-4, rtol=1e-4)


def test_the_name_makes_it_once_in_the_cache(lender, tmp_path, monkeypatch):
    monkeypatch.setenv("TERRARIUM_CACHE", str(tmp_path))
    monkeypatch.setattr(fetch, "convert", lambda *_: lender)
    monkeypatch.setattr(fetch, "known_gguf", lambda _: Path("unused"))
    folder = model_folder("custom-50m")
    assert folder == tmp_path / "models" / "custom-50m"
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert load_base_model(ModelConfig(name="custom-50m")).public_name == "custom-50m"
    assert (folder / "model.safetensors").stat().st_mtime_ns == before
