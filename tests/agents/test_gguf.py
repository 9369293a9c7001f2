"""A GGUF file of each architecture and precision answers as plain transformers does with weights so rounded."""

import json
import re
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from tokenizers import ByteLevelBPETokenizer
from transformers import AutoConfig, AutoModelForCausalLM

from agents.codecs.forage import ForageCodec
from agents.policy import make_policy
from agents.policy_network import PolicyNetwork
from agents.types import AdapterConfig, ModelConfig
from agents.weights.base_model import load_base_model
from agents.weights.fetch import ModelNotFound, model_folder

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
READABLE = {
    "llama": (gguf.MODEL_ARCH.LLAMA, SHAPE),
    "phi3": (gguf.MODEL_ARCH.PHI3, SHAPE),
    "gemma3_text": (gguf.MODEL_ARCH.GEMMA3, SHAPE | {"head_dim": 16, "query_pre_attn_scalar": 16}),
    "gpt2": (gguf.MODEL_ARCH.GPT2, {"n_embd": 64, "n_layer": 2, "n_head": 4, "initializer_range": 0.2}),
}
UNREADABLE = {"gpt_neox": gguf.MODEL_ARCH.GPTNEOX, "phi": gguf.MODEL_ARCH.PHI2}
"""What the writer knows and transformers does not read; GPT-Neo is unknown to both."""
CODEC = ForageCodec(view_radius=3)
TEXTS = [" no food, going east", " food three west", " no food, going north, home north west"]
ALL_TEXT = " ".join([CODEC.instructions, *(text[1:] for text in TEXTS), *CODEC.action_words, CODEC.answer])


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("TERRARIUM_CACHE", str(tmp_path / "cache"))


def write_byte_level(writer: gguf.GGUFWriter) -> int:
    """Write a byte-level BPE, as SmolLM2 and GPT-2 have, to which each word is a token; returns its size."""
    bpe = ByteLevelBPETokenizer()
    special = ["<end>"]
    bpe.train_from_iterator([ALL_TEXT], vocab_size=1000, min_frequency=1, special_tokens=special, show_progress=False)
    vocabulary = bpe.get_vocab()
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL if t in special else gguf.TokenType.NORMAL for t in tokens])
    writer.add_token_merges([" ".join(pair) for pair in json.loads(bpe._tokenizer.to_str())["model"]["merges"]])
    for add in (writer.add_bos_token_id, writer.add_eos_token_id, writer.add_pad_token_id):
        add(vocabulary["<end>"])
    return len(tokens)


def write_sentencepiece(writer: gguf.GGUFWriter) -> int:
    """Write a tokenizer as Llama 2, Phi-3 and Gemma have, to which each word is a token; returns its size."""
    words = {"\u2581" + word for word in re.findall(r"\w+", ALL_TEXT)}
    begun = {word[:end] for word in words for end in range(2, len(word) + 1)}
    letters = sorted({"\u2581", ".", ",", "\n"}.union(*words))
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    tokens = [*special, *letters, *sorted(begun, key=lambda token: (len(token), token))]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(i) for i in range(len(tokens))])
    writer.add_token_types([gguf.TokenType.CONTROL if t in special else gguf.TokenType.NORMAL for t in tokens])
    adders = (writer.add_pad_token_id, writer.add_eos_token_id, writer.add_bos_token_id, writer.add_unk_token_id)
    for i, add in enumerate(adders):
        add(i)
    return len(tokens)


def random_gguf(file: Path, architecture: str, kind: Kind, write_tokenizer, settings=None, also=lambda _: None):
    """Write a random model, its matrices rounded to `kind`; returns it in plain transformers, rounded as well.

    settings: of the transformers config, beside the shape; also: writes what the file has for them.
    """
    arch, shape = READABLE[architecture]
    shape = shape | (settings or {})
    writer = gguf.GGUFWriter(file, gguf.MODEL_ARCH_NAMES[arch])
    special = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}
    config = AutoConfig.for_model(architecture, vocab_size=write_tokenizer(writer), **special, **shape)
    write_shape(writer, config)
    also(writer)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    for name, parameter in model.named_parameters():  # tied weights once
        stem, _, suffix = name.rpartition(".")
        turned = architecture == "gpt2" and ".h." in name and parameter.ndim == 2
        weight = (parameter.T if turned else parameter).detach().contiguous().numpy()
        precision = kind if weight.ndim == 2 else Kind.F32
        rounded = gguf.quants.dequantize(gguf.quants.quantize(weight, precision), precision)
        parameter.data = torch.from_numpy(rounded.T.copy() if turned else rounded)
        data = gguf.quants.quantize(as_llama_cpp_has_it(name, weight, config), precision)
        writer.add_tensor(f"{names.get_name(stem)}.{suffix}", data, raw_dtype=precision)
    close(writer)
    return model


def as_llama_cpp_has_it(name: str, weight: np.ndarray, config) -> np.ndarray:
    """What llama.cpp's converters do to some tensors: Llama's rotary pairs side by side, Gemma's norms about one."""
    if config.model_type == "llama" and ("q_proj" in name or "k_proj" in name):
        heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
        paired = weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2)
        return np.ascontiguousarray(paired.reshape(weight.shape))
    return weight + 1 if config.model_type == "gemma3_text" and "norm" in name else weight


def write_shape(writer: gguf.GGUFWriter, config) -> None:
    heads = config.num_attention_heads
    head = getattr(config, "head_dim", None) or config.hidden_size // heads
    writer.add_context_length(config.max_position_embeddings)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(getattr(config, "intermediate_size", 4 * config.hidden_size))
    writer.add_head_count(heads)
    writer.add_head_count_kv(getattr(config, "num_key_value_heads", heads))
    writer.add_layer_norm_rms_eps(getattr(config, "rms_norm_eps", 1e-6))
    writer.add_layer_norm_eps(getattr(config, "layer_norm_epsilon", 1e-5))
    writer.add_rope_dimension_count(head)
    writer.add_key_length(head)


def close(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def network_on(file: Path, architecture: str) -> PolicyNetwork:
    """A network of two agents whose adapters differ."""
    modules = ["qkv_proj", "o_proj"] if architecture == "phi3" else []
    adapter = AdapterConfig(rank=2, alpha=4.0, top_layers=1, modules=modules)
    network = make_policy(ModelConfig(name=str(file), dtype="float32"), adapter, CODEC, agents=2, seed=0).network
    network.bank.values += 0.3 * torch.randn(network.bank.values.shape, generator=torch.Generator().manual_seed(1))
    return network


@pytest.mark.parametrize("kind", ["F32", "F16", "Q8_0", "Q4_1", "Q4_0"])
@pytest.mark.parametrize("architecture", READABLE)
@torch.no_grad()
def test_a_file_answers_as_plain_transformers_does_with_the_same_rounding(tmp_path, architecture, kind):
    file = tmp_path / "model.gguf"
    write_tokenizer = write_sentencepiece if architecture == "gemma3_text" else write_byte_level
    plain = random_gguf(file, architecture, Kind[kind], write_tokenizer)
    network = network_on(file, architecture)
    bare = network.action_logits(TEXTS, None)
    for text, answer in zip(TEXTS, bare, strict=True):
        ids = [*network.instruction_ids, *network.base.tokens(text), network.answer_id]
        expected = plain(torch.tensor([ids])).logits[0, -1, network.action_ids]
        torch.testing.assert_close(answer, expected, atol=1e-4, rtol=1e-4)
    for agent in range(2):
        fast = network.action_logits(TEXTS[:1], torch.tensor([agent]))[0]
        torch.testing.assert_close(fast, network.plain_logits(TEXTS[0], agent), atol=1e-4, rtol=1e-4)
        assert (fast - bare[0]).abs().max() > 0.01, "the adapters must matter"


@pytest.mark.parametrize("architecture", ["llama", "phi3", "gemma3_text"])
def test_tokens_of_the_parts_are_tokens_of_the_whole_whoever_writes_the_first_space(tmp_path, architecture):
    file = tmp_path / "model.gguf"
    random_gguf(file, architecture, Kind.F32, write_sentencepiece)
    base = load_base_model(ModelConfig(name=str(file)))
    for text in TEXTS:
        whole = base.tokenizer.encode(CODEC.instructions + text + " " + CODEC.answer)
        parts = [*base.beginning, *base.tokens(CODEC.instructions), *base.tokens(text), base.one_token(CODEC.answer)]
        assert parts == whole
        assert base.tokenizer.unk_token_id not in whole


@pytest.mark.parametrize("architecture", UNREADABLE)
def test_a_file_that_transformers_cannot_read_is_refused_by_name(tmp_path, architecture):
    name = gguf.MODEL_ARCH_NAMES[UNREADABLE[architecture]]
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", name)
    write_byte_level(writer)
    close(writer)
    with pytest.raises(ModelNotFound, match=rf"model\.gguf: transformers cannot read .*{name}"):
        model_folder(str(tmp_path / "model.gguf"))
