"""A tiny Llama with random weights, made on the spot: for tests, and for benchmarks that make thousands of runs."""

from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from agents.codecs.codec import NUMBERS
from agents.codecs.forage import ForageCodec
from agents.codecs.others import CODECS

WORDS = [
    *NUMBERS,
    *ForageCodec.action_words,
    "go",
    "food",
    "no",
    "grown",
    "new",
    "home",
    "here",
    "dusk",
    "night",
]
LATER = {"toggle"}  # with another number of tokens all random weights would be others, and what is tested on them
OTHER_WORDS = {word for codec in CODECS.values() for word in codec.action_words} - LATER | set(
    ["goal", "hole", "key", "door", "wall", "with", "nothing", "spot", "near", "far", "rock", "going", "was"]
)


def write_tiny_llama(folder: Path, layers: int = 4) -> Path:
    """Write a Llama of a few layers with random weights, whose tokens are the words of the codecs."""
    words = dict.fromkeys([*WORDS, *sorted(OTHER_WORDS)])
    vocabulary = ["<unk>", ",", ".", "\n", *(f" {word}" for word in words)]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r" ?\w+|[^\w]"), behavior="isolated")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>").save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.3,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=0,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder
