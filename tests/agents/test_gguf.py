"""A GGUF file of each architecture and precision answers as plain transformers does with weights rounded the same way."""

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from tokenizers import ByteLevelBPETokenizer, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from agents.fetch import ModelNotFound, model_folder
from agents.forage_codec import ForageCodec
from agents.policy import make_policy
from agents.types import AdapterConfig, ModelConfig

SHAPE = {  # blocks of a quantised tensor are 32 numbers long
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
    "tie_word_embeddings": True,
}
ARCHITECTURES = {
    "llama": (gguf.MODEL_ARCH.LLAMA, SHAPE),
    "phi3": (gguf.MODEL_ARCH.PHI3, SHAPE),
    "gemma3_text": (gguf.MODEL_ARCH.GEMMA3, SHAPE | {"head_dim": 16}),
    "gpt2": (gguf.MODEL_ARCH.GPT2, {"n_embd": 64, "n_layer": 2, "n_head": 4, "initializer_range": 0.2}),
}
"""What transformers reads from GGUF, of the architectures in test_architectures.py."""
UNREADABLE = {"gpt_neox": gguf.MODEL_ARCH.GPTNEOX, "phi": gguf.MODEL_ARCH.PHI2}
TEXTS = [" no food, going east", " food three west", " no food, going north, home north west"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("TERRARIUM_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE, like SmolLM2's, to which each word of the codec is one token."""
    codec = ForageCodec(view_radius=3)
    words = [codec.instructions, *TEXTS, *(f" {word}" for word in (*codec.action_words, codec.answer))]
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(words, vocab_size=1000, min_frequency=1, special_tokens=["<end>"], show_progress=False)
    assert pre_tokenizers.ByteLevel.alphabet()
    return PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, eos_token="<end>", bos_token="<end>")


def random_model(architecture: str, shape: dict, vocabulary: int):
    special = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}
    torch.manual_seed(0)
    config = AutoConfig.for_model(architecture, vocab_size=vocabulary, **special, **shape)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def as_llama_cpp_has_it(name: str, weight: np.ndarray, config) -> np.ndarray:
    """What llama.cpp's converters do to some tensors; transformers undoes it."""
    if config.model_type == "llama" and ("q_proj" in name or "k_proj" in name):
        heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
        return weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)
    if config.model_type == "gemma3_text" and "norm" in name:
        return weight + 1
    if config.model_type == "gpt2" and weight.ndim == 2 and ".h." in name:
        return weight.T
    return weight


def write_gguf(file: Path, model, arch: gguf.MODEL_ARCH, tokenizer, kind: Kind) -> dict[str, torch.Tensor]:
    """Write `model`, its matrices as `kind`; returns the state dict that a reader should get."""
    config = model.config
    writer = gguf.GGUFWriter(file, gguf.MODEL_ARCH_NAMES[arch])
    writer.add_context_length(config.max_position_embeddings)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(getattr(config, "intermediate_size", 4 * config.hidden_size))
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(getattr(config, "num_key_value_heads", config.num_attention_heads))
    writer.add_layer_norm_rms_eps(getattr(config, "rms_norm_eps", 1e-6))
    writer.add_layer_norm_eps(getattr(config, "layer_norm_epsilon", 1e-5))
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_rope_dimension_count(head)
    writer.add_key_length(head)
    write_tokenizer(writer, tokenizer)
    names, expected = gguf.get_tensor_name_map(arch, config.num_hidden_layers), {}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight":
            continue
        stem, _, suffix = name.rpartition(".")
        weight = as_llama_cpp_has_it(name, tensor.numpy(), config).astype(np.float32)
        precision = kind if weight.ndim == 2 else Kind.F32
        data = gguf.quants.quantize(np.ascontiguousarray(weight), precision)
        writer.add_tensor(f"{names.get_name(stem)}.{suffix}", data, raw_dtype=precision)
        rounded = gguf.quants.dequantize(data, precision)
        expected[name] = tensor + torch.from_numpy(undone(name, rounded - weight, config))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return expected
