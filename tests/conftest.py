"""What all tests share: a tiny random Llama made on the spot, and the real model for tests marked `real`."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from agents.codecs.codec import NUMBERS
from agents.codecs.forage import ForageCodec
from agents.codecs.others import CODECS
from agents.policy import Policy, make_policy
from agents.types import AdapterConfig, ModelConfig
from agents.weights import products
from envs.worlds.foreign import ForeignWorld

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
OTHER_WORDS = {word for codec in CODECS.values() for word in codec.action_words} | set(
    ["goal", "hole", "key", "door", "wall", "with", "nothing", "spot", "near", "far", "rock", "going", "was"]
)
TINY_ADAPTER = AdapterConfig(rank=2, alpha=4.0, top_layers=2)


def write_tiny_llama(folder: Path, layers: int = 4) -> Path:
    """Write a Llama of a few layers with random weights, whose tokens are the words of all codecs."""
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


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with a tiny random Llama."""
    return write_tiny_llama(tmp_path_factory.mktemp("model") / "tiny-llama")


@pytest.fixture(scope="session")
def tiny_deep_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with as many layers as carry adapters unless told otherwise."""
    return write_tiny_llama(tmp_path_factory.mktemp("model") / "tiny-deep-llama", AdapterConfig().top_layers)


@pytest.fixture
def tokens() -> str:
    """On which tokens the adapters of `tiny_policy` act; a test that means both modes parametrises this."""
    return "answer"


@pytest.fixture
def tiny_policy(tiny_model: Path, tokens: str) -> Policy:
    """Six agents on a tiny random Llama, each with another adapter."""
    model, adapter = ModelConfig(name=str(tiny_model), dtype="float32"), replace(TINY_ADAPTER, tokens=tokens)
    policy = make_policy(model, adapter, ForageCodec(view_radius=3), agents=6, seed=0)
    generator = torch.Generator().manual_seed(1)
    bank = policy.network.bank
    bank.values += 0.3 * torch.randn(bank.values.shape, generator=generator)
    return policy


@pytest.fixture(autouse=True)
def closing_worlds(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Foreign worlds that a test makes are closed when it ends."""
    made, begin = [], ForeignWorld.__init__

    def note(self: ForeignWorld, *args: object, **kwargs: object) -> None:
        begin(self, *args, **kwargs)
        made.append(self)

    monkeypatch.setattr(ForeignWorld, "__init__", note)
    yield
    for world in made:
        world.close()


def _absent(weight: torch.Tensor) -> torch.Tensor:
    raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute '_reorder_linear_weight'")


def _refuse(weight: torch.Tensor) -> torch.Tensor:
    raise RuntimeError("mkldnn_reorder_linear_weight: not on this processor")


def _refuse_bfloat16(weight: torch.Tensor) -> torch.Tensor:
    return _refuse(weight) if weight.dtype == torch.bfloat16 else torch.ops.mkldnn._reorder_linear_weight(weight)


PROCESSORS = {
    "as it is": None,
    "no bfloat16": _refuse_bfloat16,  # AVX2 alone
    "no oneDNN": _absent,  # as in torch for a Mac
    "no packed products": _refuse,
    "wrong packed products": lambda weight: weight.mul(2.0).to_mkldnn(),
}
"""What packs a weight for oneDNN on processors that can do less than this one."""


@pytest.fixture(params=PROCESSORS)
def processor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A processor from which operations were taken away, by its name in PROCESSORS."""
    if PROCESSORS[request.param]:
        monkeypatch.setattr(products, "_reorder", PROCESSORS[request.param])
    products.has_packed.cache_clear()
    products.fastest_dtype.cache_clear()
    yield request.param
    products.has_packed.cache_clear()
    products.fastest_dtype.cache_clear()
