"""MLX answers as torch does, with the adapters of the moment; what mlx-lm does not know as we do is refused."""

import json
import shutil

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from agents.backends import open_backend
from agents.codecs.forage import ForageCodec
from agents.policy import make_policy
from agents.policy_network import PolicyNetwork
from agents.types import AdapterConfig, ModelConfig, UserError
from envs import WorldConfig

pytest.importorskip("mlx_lm")
from agents.backends.mlx import Mlx

TEXTS = [
    " food two north one east, rock north",
    " no food",
    " food here",
    " no food, home south west, rock west",
    "",
]
SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
}
GEMMA = {"num_key_value_heads": 2, "head_dim": 8, "query_pre_attn_scalar": 8, "num_hidden_layers": 6}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 100.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
NEAR = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture
def network(tiny_policy) -> PolicyNetwork:
    return tiny_policy.network


@pytest.fixture
def mlx(network) -> Mlx:
    return Mlx(network)


def network_on(tiny_model, folder, architecture: str, **settings) -> PolicyNetwork:
    """Three different agents on a random model of an architecture, with the tokenizer of the tiny Llama."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    special = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}
    config = AutoConfig.for_model(architecture, vocab_size=len(tokenizer), **special, **(SHAPE | settings))
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    adapter = AdapterConfig(rank=2, alpha=4.0, top_layers=2)
    network = make_policy(
        ModelConfig(name=str(folder), dtype="float32"), adapter, ForageCodec(3), agents=3, seed=0
    ).network
    network.bank.values += 0.3 * torch.randn(network.bank.values.shape, generator=torch.Generator().manual_seed(1))
    return network


def test_every_agent_and_the_bare_base_answer_every_text_as_in_torch(network, mlx):
    adapters = np.repeat(np.arange(-1, 6), len(TEXTS))
    order = np.random.default_rng(0).permutation(len(adapters))
    texts = [(TEXTS * 7)[i] for i in order]
    answers = mlx.answer(texts, adapters[order])
    assert answers.dtype == np.float32
    np.testing.assert_allclose(answers, network.answer(texts, adapters[order]), **NEAR)
    in_rows = answers[np.argsort(order)].reshape(7, len(TEXTS), -1)
    assert np.abs(np.diff(in_rows, axis=0)).max(axis=(1, 2)).min() > 0.1, "the adapters must matter"


@pytest.mark.parametrize("adapter", [-1, 4])
def test_a_text_alone_is_answered_as_among_longer_ones(mlx, adapter):
    together = mlx.answer(TEXTS, np.full(len(TEXTS), adapter))
    for text, answer in zip(TEXTS, together, strict=True):
        np.testing.assert_allclose(mlx.answer([text], np.array([adapter]))[0], answer, **NEAR)


def test_a_changed_bank_changes_the_answers(network, mlx):
    everyone = np.arange(5)
    before = mlx.answer(TEXTS, everyone)
    network.bank.values[2] = network.bank.values[5]
    after = mlx.answer(TEXTS, everyone)
    assert (np.abs(after - before).max(axis=1) > 0.1).tolist() == [False, False, True, False, False]
    np.testing.assert_allclose(after, network.answer(TEXTS, everyone), **NEAR)


def test_nothing_asked_is_nothing_answered(mlx):
    assert mlx.answer([], np.array([], int)).shape == (0, 5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_base_of_half_precision_answers_nearly_the_same(network, dtype):
    adapters = np.array([-1, 0, 2, 3, 5])
    answers, exact = Mlx(network, dtype).answer(TEXTS, adapters), network.answer(TEXTS, adapters)
    assert answers.dtype == np.float32
    assert 0 < np.abs(answers - exact).max() < 0.1 * np.abs(exact).max()


@pytest.mark.parametrize(
    ("architecture", "settings"),
    [
        ("llama", {"num_key_value_heads": 1, "tie_word_embeddings": False, "rope_parameters": LLAMA3_ROPE}),
        ("qwen3", {"num_key_value_heads": 2, "rope_parameters": {"rope_type": "default", "rope_theta": 50.0}}),
        ("granite", {"num_key_value_heads": 2, "attention_multiplier": 0.2, "residual_multiplier": 0.5}),
        ("phi", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.25}}),
        ("gemma3_text", GEMMA),
    ],
)
def test_other_architectures_answer_as_in_torch(tiny_model, tmp_path, architecture, settings):
    network = network_on(tiny_model, tmp_path / "model", architecture, **settings)
    adapters = np.array([0, 1, -1, 2, 1])
    answers, exact = Mlx(network).answer(TEXTS, adapters), network.answer(TEXTS, adapters)
    # mlx-lm rounds the factor on a Gemma's embeddings to bfloat16
    np.testing.assert_allclose(answers, exact, **NEAR if architecture != "gemma3_text" else {"atol": 0.01})


@pytest.mark.parametrize("tokens", ["text"])
def test_adapters_on_the_whole_text_are_refused(network):
    with pytest.raises(UserError, match=r"adapter.tokens = 'text': must be 'answer' for MLX"):
        Mlx(network)


def test_an_architecture_that_mlx_lm_does_not_know_is_refused(tiny_model, tmp_path):
    network = network_on(tiny_model, tmp_path / "model", "arcee", num_key_value_heads=2)
    with pytest.raises(UserError, match=r"model.name = .*: mlx-lm cannot load it: Model type arcee not supported"):
        open_backend("mlx", network)


def test_an_architecture_that_mlx_lm_builds_in_its_own_way_is_refused(tiny_model, tmp_path):
    network = network_on(tiny_model, tmp_path / "model", "gpt_neox", intermediate_size=128)
    with pytest.raises(UserError, match="mlx-lm builds gpt_neox in a way of its own"):
        Mlx(network)


def test_a_model_that_mlx_lm_understands_otherwise_is_refused(tiny_model, tmp_path):
    network = network_on(tiny_model, tmp_path / "model", "gemma3_text", layer_types=["full_attention"] * 6, **GEMMA)
    with pytest.raises(UserError, match=r"otherwise than transformers, logits differ by .*%: must be at most 1%"):
        Mlx(network)


def test_a_folder_that_has_lost_its_weights_is_refused(network, tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    (folder / "model.safetensors").unlink()
    moved = network.base._replace(folder=folder, name="mine")
    network.base = moved
    with pytest.raises(UserError, match=r"model.name = 'mine': mlx-lm cannot load it: No safetensors found"):
        Mlx(network)


def test_an_unknown_number_format_an_absent_agent_and_a_text_too_long_are_refused(network, mlx):
    with pytest.raises(UserError, match="dtype = 'int4': must be one of float32, float16, bfloat16"):
        Mlx(network, "int4")
    with pytest.raises(IndexError, match="adapter 6: must be at most 5"):
        mlx.answer(TEXTS, np.array([0, 1, 6, -1, 2]))
    with pytest.raises(UserError, match="tokens: must be at most 256"):
        mlx.answer([" food" * 256], np.array([0]))


@pytest.mark.real
def test_the_real_model_chooses_as_in_torch():
    codec = ForageCodec(WorldConfig().view_radius)
    policy = make_policy(ModelConfig(dtype="float32"), AdapterConfig(), codec, agents=3, seed=0)
    network = policy.network
    network.bank.values += 0.1 * torch.randn(network.bank.values.shape, generator=torch.Generator().manual_seed(0))
    adapters = np.array([-1, 0, 2, 1])
    answers, exact = Mlx(network).answer(TEXTS[:4], adapters), network.answer(TEXTS[:4], adapters)
    np.testing.assert_allclose(answers, exact, atol=1e-3)
    ours, theirs = (torch.from_numpy(logits).softmax(dim=1).numpy() for logits in (answers, exact))
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    assert np.abs(exact - network.answer(TEXTS[:4], np.full(4, -1))).max() > 1.0, "the adapters must matter"


def test_a_module_that_the_config_names_is_never_run(tiny_model, tmp_path):
    """mlx-lm takes the architecture from `model_file`, where it is allowed to."""
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'was_run')!r}, 'w')")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_file": "evil.py"}))
    model = ModelConfig(name=str(folder), dtype="float32")
    Mlx(make_policy(model, AdapterConfig(rank=2, top_layers=2), ForageCodec(3), agents=1, seed=0).network)
    assert not (tmp_path / "was_run").exists()
