"""Other architectures than Llama: a random checkpoint of each is opened, answers as the slow way does, and learns."""

from typing import get_args

import numpy as np
import peft.utils
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)

from agents.codecs.forage import ForageCodec
from agents.lora import default_modules
from agents.optimiser import StackedAdam
from agents.policy import Policy, make_policy
from agents.types import AdapterConfig, ModelConfig, Tokens, UserError
from agents.weights.base_model import load_base_model

SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
}
FEW_HEADS = {"num_key_value_heads": 2, "head_dim": 8, "query_pre_attn_scalar": 8}
MIXED = ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"]
USUAL = ["q_proj", "v_proj", "o_proj", "down_proj"]
GPT_NEO = {"hidden_size": 32, "num_layers": 4, "num_heads": 4, "max_position_embeddings": 256, "initializer_range": 0.3}
LOCAL = {"attention_types": [[["global", "local"], 2]], "window_size": 64}
ARCHITECTURES = {
    "llama": (SHAPE | {"num_key_value_heads": 2}, USUAL),
    "gpt_neox": (SHAPE, ["query_key_value"]),
    "gpt_neo": (GPT_NEO | LOCAL, ["q_proj", "v_proj"]),
    "gpt2": ({"n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 256, "initializer_range": 0.3}, ["c_attn"]),
    "phi": (SHAPE, ["q_proj", "v_proj", "fc1", "fc2"]),
    "phi3": (SHAPE | {"num_key_value_heads": 2}, ["qkv_proj", "o_proj", "down_proj"]),
    "gemma3_text": (SHAPE | FEW_HEADS | {"sliding_window": 64, "layer_types": MIXED}, USUAL),
}
TEXTS = [" no food, going east", " food three west", " no food, going north, home north west"]


def write_checkpoint(folder, tiny_model, architecture, shape):
    """Write a random model of an architecture with the tokenizer of the tiny Llama; returns its folder."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    special = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}
    config = AutoConfig.for_model(architecture, vocab_size=len(tokenizer), **special, **shape)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def policy_on(folder, modules=(), tokens="answer") -> Policy:
    """Three agents with different adapters, on the modules that suit the architecture or on those named."""
    adapter = AdapterConfig(rank=2, alpha=4.0, top_layers=2, modules=list(modules), tokens=tokens)
    model = ModelConfig(name=str(folder), dtype="float32")
    policy = make_policy(model, adapter, ForageCodec(view_radius=3), agents=3, seed=0)
    bank = policy.network.bank
    bank.values += 0.3 * torch.randn(bank.values.shape, generator=torch.Generator().manual_seed(1))
    return policy


@pytest.fixture(params=ARCHITECTURES)
def known(request, tiny_model, tmp_path, tokens):
    shape, modules = ARCHITECTURES[request.param]
    folder = write_checkpoint(tmp_path / "model", tiny_model, request.param, shape)
    return policy_on(folder, tokens=tokens), modules


@pytest.mark.parametrize("tokens", get_args(Tokens))
def test_what_is_remembered_answers_as_what_is_read_anew(known):
    network = known[0].network
    with torch.no_grad():
        fast = network.action_logits(TEXTS, torch.arange(3))
        slow = torch.stack([network.plain_logits(text, agent) for agent, text in enumerate(TEXTS)])
        bare = network.action_logits(TEXTS, None)
        anew = AutoModelForCausalLM.from_pretrained(network.base.folder)
        ids = [*network.instruction_ids, *network.base.tokens(TEXTS[2]), network.answer_id]
        plain = anew(torch.tensor([ids])).logits[0, -1, network.action_ids]
    torch.testing.assert_close(fast, slow, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(bare[2], plain, atol=1e-5, rtol=1e-4)
    assert (fast - bare).abs().max() > 0.05, "the adapters must matter"


def test_onnx_runtime_answers_as_the_network_does(known, tmp_path, monkeypatch):
    pytest.importorskip("onnxscript")
    onnx = pytest.importorskip("agents.backends.onnx")
    monkeypatch.setenv("TERRARIUM_CACHE", str(tmp_path))
    network, agents = known[0].network, np.array([2, -1, 0])
    if network.base.causal_lm.config.model_type in ("gpt2", "gpt_neo"):
        with pytest.raises(UserError, match="cannot be written as ONNX: it is built the old way"):
            onnx.Onnx(network)
        return
    np.testing.assert_allclose(onnx.Onnx(network).answer(TEXTS, agents), network.answer(TEXTS, agents), atol=1e-4)


def test_the_modules_are_those_that_suit_the_architecture(known):
    policy, modules = known
    assert sorted(policy.network.bank.config.modules) == sorted(modules)


@pytest.mark.parametrize("tokens", get_args(Tokens))
def test_gradients_reach_every_adapter_tensor(known):
    bank = known[0].network.bank
    with bank.gathering(slice(0, 3)) as gradients:
        known[0].network.action_logits(TEXTS, torch.arange(3)).square().sum().backward()
    for name, gradient in bank.unflatten(gradients[1]).items():
        assert gradient.abs().max() > 0, name


@pytest.mark.parametrize("tokens", get_args(Tokens))
def test_one_step_teaches_one_agent_and_leaves_the_others_alone(known):
    policy, bank = known[0], known[0].network.bank
    before = bank.values.clone()
    legal, north = torch.ones(3, 5, dtype=torch.bool), torch.ones(3, dtype=torch.long)
    log_prob, _ = policy.evaluate(TEXTS, torch.tensor([1]), north, legal)
    everyone = slice(0, 3)
    with bank.gathering(everyone) as gradients:
        (-log_prob).sum().backward()
    StackedAdam(bank).step(everyone, gradients, torch.full((3,), 1e-3), 0.5, torch.tensor([False, True, False]))
    assert torch.equal(bank.values[[0, 2]], before[[0, 2]])
    changes = bank.unflatten(bank.values[1] - before[1])
    assert all(change.abs().max() > 0 for change in changes.values())
    assert policy.evaluate(TEXTS, torch.tensor([1]), north, legal)[0].sum() > log_prob.sum()


@pytest.mark.parametrize("tokens", get_args(Tokens))
@torch.no_grad()
def test_a_saved_adapter_answers_the_same_in_peft(known, tmp_path):
    network = known[0].network
    network.save_adapter(1, tmp_path / "adapter")
    peft = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(network.base.folder), tmp_path / "adapter")
    for text in TEXTS:
        ids = torch.tensor([[*network.instruction_ids, *network.base.tokens(text), network.answer_id]])
        theirs = peft.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, -1, network.action_ids]
        torch.testing.assert_close(network.action_logits([text], torch.tensor([1]))[0], theirs, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("architecture", "shape"),
    [
        ("gemma3_text", SHAPE | FEW_HEADS | {"sliding_window": 16}),
        ("gpt_neo", GPT_NEO | LOCAL | {"window_size": 16}),
        ("gpt_neo", GPT_NEO | {"max_position_embeddings": 16, "attention_types": [[["global"], 4]]}),
    ],
)
def test_a_model_that_cannot_look_back_far_enough_is_refused(tiny_model, tmp_path, architecture, shape):
    with pytest.raises(UserError, match=r"tokens: must be at most 16 for "):
        policy_on(write_checkpoint(tmp_path / "model", tiny_model, architecture, shape)).values(TEXTS)


def test_a_gpt_neo_without_local_layers_has_no_window(tiny_model, tmp_path):
    shape = GPT_NEO | {"attention_types": [[["global"], 4]], "window_size": 16}
    assert len(policy_on(write_checkpoint(tmp_path / "model", tiny_model, "gpt_neo", shape)).values(TEXTS)) == 3


def test_another_architecture_of_the_old_build_is_refused(tiny_model, tmp_path):
    folder = write_checkpoint(tmp_path / "model", tiny_model, "bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 4})
    with pytest.raises(UserError, match="bloom is built the old way"):
        policy_on(folder, ["query_key_value"])


@pytest.mark.parametrize(
    ("architecture", "shape", "complaint"),
    [
        ("granite", SHAPE | {"logits_scaling": 8.0}, "granite cannot be used yet: its logits are"),
        ("gemma2", SHAPE | {"num_key_value_heads": 2, "head_dim": 8}, "soft cap"),
    ],
)
def test_a_model_that_computes_in_a_way_unknown_here_is_refused(tiny_model, tmp_path, architecture, shape, complaint):
    folder = write_checkpoint(tmp_path / "model", tiny_model, architecture, shape)
    with pytest.raises(UserError, match=complaint):
        policy_on(folder)


def test_the_output_heads_bias_counts(tiny_model, tmp_path):
    folder = write_checkpoint(tmp_path / "model", tiny_model, "phi", SHAPE)
    before = policy_on(folder).network.action_logits(TEXTS, None)
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.bias"] += torch.arange(len(weights["lm_head.bias"]))
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    network = policy_on(folder).network
    expected = before + torch.tensor(network.action_ids)
    torch.testing.assert_close(network.action_logits(TEXTS, None), expected, rtol=1e-4, atol=1e-4)


def test_where_nobody_knows_what_to_adapt_the_names_are_told():
    assert default_modules("llama", {"q_proj", "k_proj", "v_proj", "o_proj", "down_proj"})[:2] == ["q_proj", "v_proj"]
    assert default_modules("something_new", {"mixer"}) == []


def test_what_to_adapt_is_asked_of_peft_as_far_as_it_tells(monkeypatch):
    assert default_modules("gpt2", {"c_attn", "c_proj"}) == ["c_attn"]
    monkeypatch.delattr(peft.utils, "TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING")
    assert default_modules("gpt2", {"c_attn", "c_proj"}) == []


def test_a_tokenizer_that_begins_every_text_with_a_token_is_obeyed(tiny_model, tmp_path):
    folder = write_checkpoint(tmp_path / "model", tiny_model, "phi", SHAPE)
    plain = load_base_model(ModelConfig(name=str(folder)))
    assert plain.beginning == []
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<unk> $A", special_tokens=[("<unk>", 0)])
    tokenizer.save_pretrained(folder)
    assert load_base_model(ModelConfig(name=str(folder))).beginning == [0]
    assert policy_on(folder).network.instruction_ids[0] == 0
