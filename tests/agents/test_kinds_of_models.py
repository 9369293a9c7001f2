"""Each kind of model, however its config is set, answers as transformers does, or is refused in one sentence.

A new architecture goes into AGREES, or with its reason into REFUSED.
"""

from typing import get_args

import pytest
import torch
from test_architectures import FEW_HEADS, GPT_NEO, LOCAL, MIXED, SHAPE, TEXTS, write_checkpoint
from transformers import AutoModelForCausalLM

from agents.codecs.forage import ForageCodec
from agents.policy import make_policy
from agents.policy_network import PolicyNetwork
from agents.types import AdapterConfig, ModelConfig, UserError, WeightStorage
from agents.weights.compact import EMBEDDING
from agents.weights.frozen import Columns, FrozenLinear
from agents.weights.old_architectures import modernise

KV = SHAPE | {"num_key_value_heads": 2}
HD = KV | {"head_dim": 8}
GEMMA = SHAPE | FEW_HEADS
UNCAPPED = GEMMA | {"attn_logit_softcapping": None, "final_logit_softcapping": None}
GPT2 = {"n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 256, "initializer_range": 0.3}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}


def rope(kind: str, **settings: object) -> dict:
    return KV | {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, **settings}}


def longrope(long: list[float], reach: int) -> dict:
    short = {"short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": long, "original_max_position_embeddings": reach}
    return rope("longrope", **short) | {"original_max_position_embeddings": reach}


LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
AGREES = {
    "llama": ("llama", KV | {"tie_word_embeddings": True}),
    "llama, biases": ("llama", KV | {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": False}),
    "llama, wide heads": ("llama", KV | {"head_dim": 16}),
    "llama, rope for llama 3": ("llama", rope("llama3", **LLAMA3)),
    "llama, linear rope": ("llama", rope("linear", factor=4.0)),
    "llama, yarn": ("llama", rope("yarn", factor=4.0, original_max_position_embeddings=64)),
    "llama, dynamic rope": ("llama", rope("dynamic", factor=4.0)),
    "mistral": ("mistral", KV | {"sliding_window": 200}),
    "mixtral": ("mixtral", KV | {"num_local_experts": 4}),
    "qwen3": ("qwen3", HD),
    "qwen3, experts": ("qwen3_moe", HD | EXPERTS),
    "gemma": ("gemma", HD),
    "gemma2, no caps": ("gemma2", UNCAPPED),
    "gemma3": ("gemma3_text", GEMMA | {"layer_types": MIXED}),
    "gemma3 of bfloat16": ("gemma3_text", GEMMA | {"layer_types": MIXED, "hidden_size": 40, "dtype": "bfloat16"}),
    "phi": ("phi", SHAPE),
    "phi, qk norm": ("phi", SHAPE | {"partial_rotary_factor": 1.0, "qk_layernorm": True}),
    "phi3": ("phi3", KV),
    "phi3, partial rope": ("phi3", KV | {"partial_rotary_factor": 0.5}),
    "phi3, longrope": ("phi3", longrope([2.0, 3.0, 4.0, 5.0], reach=128)),
    "granite of factors one": ("granite", KV),
    "granite, factors inside": ("granite", KV | {"residual_multiplier": 0.3, "attention_multiplier": 0.2}),
    "cohere of factor one": ("cohere", KV | {"logit_scale": 1.0}),
    "cohere2 of factor one": ("cohere2", KV | {"logit_scale": 1.0}),
    "olmo": ("olmo", KV | {"clip_qkv": 0.5}),
    "olmo2": ("olmo2", KV),
    "starcoder2": ("starcoder2", KV),
    "gpt2": ("gpt2", GPT2 | {"scale_attn_by_inverse_layer_idx": True}),
    "gpt2, untied": ("gpt2", GPT2 | {"tie_word_embeddings": False, "scale_attn_weights": False}),
    "gpt_neo": ("gpt_neo", GPT_NEO | LOCAL),
    "gpt_neox": ("gpt_neox", SHAPE),
    "gpt_neox in a row": ("gpt_neox", SHAPE | {"use_parallel_residual": False, "attention_bias": False}),
    "smollm3": ("smollm3", KV),
    "glm4": ("glm4", HD),
    "helium": ("helium", HD),
}
REFUSED = {
    "granite, logits": ("granite", KV | {"logits_scaling": 8.0}, "its logits are"),
    "granite, logits by little": ("granite", KV | {"logits_scaling": 1.02}, "its logits are"),
    "granite, embedding": ("granite", KV | {"embedding_multiplier": 3.0}, "its logits are"),
    "cohere": ("cohere", KV, "its logits are"),
    "gemma2": ("gemma2", GEMMA, "its attention has a soft cap or sinks"),
    "gemma2, last cap": ("gemma2", UNCAPPED | {"final_logit_softcapping": 30.0}, "its logits are"),
    "gemma3, last cap": ("gemma3_text", GEMMA | {"layer_types": MIXED, "final_logit_softcapping": 9.0}, "its logits"),
    "gpt-oss": ("gpt_oss", HD | {"num_local_experts": 4, "num_experts_per_tok": 2}, "its attention has a soft cap"),
    "mistral, window": ("mistral", KV | {"sliding_window": 8}, "must be at most 8 for"),
    "phi3, longrope": ("phi3", longrope([2.0, 3.0, 4.0, 5.0], reach=16), "must be at most 16 for"),
    "stablelm": ("stablelm", KV, "its layers do not pass their keywords on to attention"),
    "nemotron": ("nemotron", KV, "its layers do not pass their keywords on to attention"),
    "doge": ("doge", KV, "its layers mask attention in a way of their own"),
    "diffllama": ("diffllama", KV, r"diffllama cannot be used yet: .*\(RuntimeError\)"),
    "gpt_neox_japanese": ("gpt_neox_japanese", SHAPE, "not all its layers ask for an attention function"),
    "falcon": ("falcon", {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}, "built the old way"),
}
MODULES = {"gpt_neox": ["query_key_value"], "gpt_neox_japanese": ["query_key_value"], "falcon": ["query_key_value"]}
MODULES |= {"phi3": ["o_proj"], "gpt2": [], "gpt_neo": []}


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("TERRARIUM_CACHE", str(tmp_path / "cache"))


def network_on(folder, architecture: str, storage: str) -> PolicyNetwork:
    adapter = AdapterConfig(rank=1, top_layers=2, modules=MODULES.get(architecture, ["q_proj"]))
    model = ModelConfig(name=str(folder), dtype="float32", weight_storage=storage)
    return make_policy(model, adapter, ForageCodec(view_radius=3), agents=1, seed=0).network


def as_transformers_has_it(network: PolicyNetwork):
    """The model as transformers opens it, with the network's own weights: rounded, where they are in blocks."""
    causal_lm = AutoModelForCausalLM.from_pretrained(network.base.folder, dtype=torch.float32).eval()
    modernise(causal_lm)  # the names of layers; what they compute stays
    for path, module in network.base.decoder.named_modules():
        if isinstance(module, FrozenLinear | Columns) and not path.endswith(".whole"):
            causal_lm.base_model.get_submodule(path.removesuffix(".base")).weight.data = module.weight()
    if network.is_compact:
        causal_lm.get_input_embeddings().weight.data = network.base.blocks[EMBEDDING].unpacked()
    return causal_lm


@pytest.mark.parametrize("storage", get_args(WeightStorage))
@pytest.mark.parametrize("kind", AGREES)
@torch.no_grad()
def test_it_answers_as_transformers_does(kind, storage, tiny_model, tmp_path):
    architecture, shape = AGREES[kind]
    network = network_on(write_checkpoint(tmp_path / "model", tiny_model, architecture, shape), architecture, storage)
    theirs = as_transformers_has_it(network)
    for text, ours in zip(TEXTS, network.action_logits(TEXTS, None), strict=True):
        ids = torch.tensor([[*network.instruction_ids, *network.base.tokens(text), network.answer_id]])
        torch.testing.assert_close(ours, theirs(ids).logits[0, -1, network.action_ids], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("storage", get_args(WeightStorage))
@pytest.mark.parametrize("kind", REFUSED)
def test_it_is_refused_in_one_sentence(kind, storage, tiny_model, tmp_path):
    architecture, shape, reason = REFUSED[kind]
    folder = write_checkpoint(tmp_path / "model", tiny_model, architecture, shape)
    with pytest.raises(UserError, match=reason) as caught:
        network_on(folder, architecture, storage).action_logits(TEXTS, None)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)
