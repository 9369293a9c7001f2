"""What a GGUF file says of its model is carried over into the config, or refused by name: nothing is lost silently."""

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from gguf import GGUFReader, GGUFValueType, RopeScalingType
from test_gguf import SHAPE, TEXTS, network_on, random_gguf, write_byte_level, write_sentencepiece
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from agents.formats.gguf import Shape, merge_gguf, rewrite_gguf
from agents.types import ModelConfig, UserError
from agents.weights.base_model import load_base_model
from agents.weights.fetch import ModelNotFound, model_folder

LLAMA3 = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3 |= {"original_max_position_embeddings": 64}
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
GEMMA3 = {"sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}}
GEMMA3 |= {"full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0}}
MIXED = {"layer_types": ["sliding_attention"] * 5 + ["full_attention"], "num_hidden_layers": 6}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("TERRARIUM_CACHE", str(tmp_path / "cache"))


def divisors() -> np.ndarray:
    """What llama.cpp's converter writes for LLAMA3: how much slower each frequency is than without."""
    config = LlamaConfig(**SHAPE, rope_parameters=LLAMA3)
    plain = 10000.0 ** (-np.arange(0, 16, 2) / 16)
    return (plain / ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")[0].numpy()).astype(np.float32)


def write_linear(writer) -> None:
    writer.add_rope_scaling_type(RopeScalingType.LINEAR)
    writer.add_rope_scaling_factor(4.0)


def scale_twice(writer) -> None:
    write_linear(writer)
    writer.add_tensor("rope_freqs.weight", divisors())


def write_gemma(writer) -> None:
    writer.add_rope_freq_base(1e6)
    writer.add_key_value("gemma3.rope.freq_base_swa", 10000.0, GGUFValueType.FLOAT32)
    writer.add_rope_scaling_type(RopeScalingType.LINEAR)
    writer.add_rope_scaling_factor(8.0)


CARRIED = {
    "rope of llama 3": ("llama", {"rope_parameters": LLAMA3}, lambda w: w.add_tensor("rope_freqs.weight", divisors())),
    "linear rope": ("llama", {"rope_parameters": LINEAR}, write_linear),
    "another base": (
        "llama",
        {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}},
        lambda w: w.add_rope_freq_base(5e5),
    ),
    "gemma3": ("gemma3_text", MIXED | {"rope_parameters": GEMMA3}, write_gemma),
    "what changes nothing": (
        "llama",
        {},
        lambda w: (w.add_expert_count(0), w.add_logit_scale(1.0), w.add_rope_scaling_type(RopeScalingType.NONE)),
    ),
}


@pytest.mark.parametrize("case", CARRIED)
@torch.no_grad()
def test_the_model_answers_as_the_one_that_was_written(case, tmp_path):
    architecture, settings, also = CARRIED[case]
    file = tmp_path / "model.gguf"
    write_tokenizer = write_sentencepiece if architecture == "gemma3_text" else write_byte_level
    plain = random_gguf(file, architecture, Kind.F32, write_tokenizer, settings, also)
    network = network_on(file, architecture)
    for text, answer in zip(TEXTS, network.action_logits(TEXTS, None), strict=True):
        ids = [*network.instruction_ids, *network.base.tokens(text), network.answer_id]
        expected = plain(torch.tensor([ids])).logits[0, -1, network.action_ids]
        torch.testing.assert_close(answer, expected, atol=1e-4, rtol=1e-4)


def test_linear_rope_and_divisors_act_together(tmp_path):
    random_gguf(tmp_path / "model.gguf", "llama", Kind.F32, write_byte_level, None, scale_twice)
    config = load_base_model(ModelConfig(name=str(tmp_path / "model.gguf"))).causal_lm.config
    np.testing.assert_allclose(config.rope_parameters["short_factor"], 4 * divisors(), rtol=1e-6)


def test_phi3s_window_bounds_a_prompt(tmp_path):
    file = tmp_path / "model.gguf"
    random_gguf(file, "phi3", Kind.F32, write_byte_level, None, lambda w: w.add_sliding_window(4))
    with pytest.raises(UserError, match="tokens: must be at most 4 for"):
        network_on(file, "phi3")


REFUSED = {
    "llama.rope.scaling.type = 'yarn'": lambda w: w.add_rope_scaling_type(RopeScalingType.YARN),
    "llama.rope.scaling.attn_factor = 1.5": lambda w: w.add_rope_scaling_attn_factors(1.5),
    "llama.rope.dimension_sections": lambda w: w.add_rope_dimension_sections([4, 4]),
    "llama.attention.value_length = 8": lambda w: w.add_value_length(8),
    "llama.attention.sliding_window = 8": lambda w: w.add_sliding_window(8),
    "llama.attention.scale = 0.5": lambda w: w.add_attention_scale(0.5),
    "llama.attention.clamp_kqv = 3.0": lambda w: w.add_clamp_kqv(3.0),
    "llama.attention.causal = False": lambda w: w.add_causal_attention(False),
    "llama.logit_scale = 0.25": lambda w: w.add_logit_scale(0.25),
    "llama.embedding_scale = 12.0": lambda w: w.add_embedding_scale(12.0),
    "llama.residual_scale = 0.5": lambda w: w.add_residual_scale(0.5),
    "llama.attn_logit_softcapping = 50.0": lambda w: w.add_attn_logit_softcapping(50.0),
    "llama.final_logit_softcapping = 30.0": lambda w: w.add_final_logit_softcapping(30.0),
    "llama.expert_count = 8": lambda w: w.add_expert_count(8),
    "llama.use_parallel_residual = True": lambda w: w.add_parallel_residual(True),
    "llama.something.new = 3": lambda w: w.add_uint32("llama.something.new", 3),
    "tensor blk.0.attn_q.bias (and 0 more)": lambda w: w.add_tensor("blk.0.attn_q.bias", np.ones(64, np.float32)),
    "tensor rope_freqs.weight of 5 numbers": lambda w: w.add_tensor("rope_freqs.weight", np.ones(5, np.float32)),
    "tensor rope_factors_long.weight": lambda w: w.add_tensor("rope_factors_long.weight", np.ones(8, np.float32)),
    "tensor output_norm.weight holds NaN": None,
}


@pytest.mark.parametrize("named", REFUSED)
def test_what_has_no_place_in_a_config_is_refused_by_name_and_nothing_is_left(named, tmp_path):
    file = tmp_path / "model.gguf"
    random_gguf(file, "llama", Kind.F32, write_byte_level, None, REFUSED[named] or (lambda _: None))
    if REFUSED[named] is None:
        (tensor,) = (t for t in GGUFReader(file, "r+").tensors if t.name == "output_norm.weight")
        tensor.data[5] = np.nan
    with pytest.raises(UserError) as caught:
        model_folder(str(file))
    assert f"{file}: {named}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "cache" / "models").iterdir())


def test_a_file_that_lacks_a_tensor_is_refused(tmp_path):
    random_gguf(tmp_path / "whole.gguf", "llama", Kind.F32, write_byte_level)
    reader = GGUFReader(tmp_path / "whole.gguf")
    reader.tensors = [t for t in reader.tensors if t.name != "blk.1.ffn_up.weight"]
    file = rewrite_gguf(reader, tmp_path / "model.gguf", lambda t: (t.data, t.tensor_type), {})
    with pytest.raises(ModelNotFound, match=r"model.gguf: lacks 1 tensors, such as blk.1.ffn_up.weight"):
        model_folder(str(file))


MISSHAPEN = {
    "half of its rows": ("blk.0.attn_q.weight", lambda a: a[:32], Kind.F32),
    "turned round": ("blk.0.ffn_up.weight", lambda a: a.T, Kind.F32),
    "in one row": ("blk.0.attn_q.weight", lambda a: a.reshape(-1), Kind.F32),
    "a norm that is short": ("output_norm.weight", lambda a: a[:5], Kind.F32),
    "a norm of two rows": ("output_norm.weight", lambda a: a.reshape(2, -1), Kind.F32),
    "fewer tokens": ("token_embd.weight", lambda a: a[:10], Kind.F32),
    "more tokens": ("token_embd.weight", lambda a: np.concatenate([a, a]), Kind.F32),
    "integers": ("blk.0.ffn_up.weight", lambda a: a.astype(np.int32), Kind.I32),
}


@pytest.mark.parametrize("case", MISSHAPEN)
def test_a_tensor_that_does_not_fit_is_refused_and_nothing_is_left(case, tmp_path):
    name, change, kind = MISSHAPEN[case]
    random_gguf(tmp_path / "whole.gguf", "llama", Kind.F32, write_byte_level)

    def changed(tensor):
        if tensor.name != name:
            return tensor.data, tensor.tensor_type
        return np.ascontiguousarray(change(tensor.data)), kind

    file = rewrite_gguf(GGUFReader(tmp_path / "whole.gguf"), tmp_path / "model.gguf", changed, {})
    with pytest.raises(ModelNotFound, match=r"model\.gguf: transformers cannot read this GGUF file") as caught:
        model_folder(str(file))
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "cache" / "models").iterdir())


@pytest.mark.parametrize("share", [0.001, 0.01, 0.2, 0.6, 0.999])
def test_a_file_cut_short_is_refused(share, tmp_path):
    random_gguf(tmp_path / "whole.gguf", "llama", Kind.F32, write_byte_level)
    content = (tmp_path / "whole.gguf").read_bytes()
    (tmp_path / "model.gguf").write_bytes(content[: int(share * len(content))])
    with pytest.raises(ModelNotFound, match=r"model.gguf: is no GGUF file, or is cut short or damaged \(.+\)$"):
        model_folder(str(tmp_path / "model.gguf"))


def test_a_name_in_capitals_will_do(tmp_path):
    random_gguf(tmp_path / "MODEL.GGUF", "llama", Kind.Q8_0, write_byte_level)
    base = load_base_model(ModelConfig(name=str(tmp_path / "MODEL.GGUF"), weight_storage="compact"))
    assert base.gguf == tmp_path / "MODEL.GGUF"
    assert base.layers == 2


def test_a_merged_model_keeps_its_scaled_rope(tmp_path):
    base = tmp_path / "model.gguf"
    random_gguf(base, "llama", Kind.F32, write_byte_level, None, scale_twice)
    network = network_on(base, "llama")
    shape = Shape.of(network.base.causal_lm.config)
    merged = GGUFReader(merge_gguf(base, tmp_path / "m.gguf", network.bank.read(0), shape, scaling=1.0, name="agent"))
    assert merged.fields["llama.rope.scaling.type"].contents() == "linear"
    assert merged.fields["llama.rope.scaling.factor"].contents() == 4.0
    (frequencies,) = (t.data for t in merged.tensors if t.name == "rope_freqs.weight")
    assert np.array_equal(frequencies, divisors())
