"""The frozen language model that all agents share. Knows no adapters and no agents."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from agents.types import ModelConfig, UserError
from agents.weights.compact import BlockEmbedding, Blocks, compact_file, load_compact, spare_memory
from agents.weights.fetch import MODELS, ModelNotFound, gguf_file, model_folder
from agents.weights.llama import Llama, load_llama
from agents.weights.llama_config import LlamaConfig, known_config
from agents.weights.tokenizer import plain_tokenizer
from agents.weights.whole import check_finite, check_folder, panics_as_errors, weight_files


class BaseModel(NamedTuple):
    """A frozen causal language model with its tokenizer."""

    causal_lm: Any  # with its head, no gradients: a `Llama` of ours, or a model of transformers
    tokenizer: Any  # a `PlainTokenizer`, or one of transformers
    folder: Path  # where it was read from
    name: str  # as the user gave it
    begins_with_space: bool = False  # whether the tokenizer puts a space before any text, as Llama 2's and Phi-3's do
    blocks: Mapping[str, Blocks] = {}  # stored compactly: the layers' linear weights, which the model then lacks

    @property
    def public_name(self) -> str:
        """Where others find the model: its id on the hub if it is a known one, else the name as given."""
        return MODELS[self.name].hub_id if self.name in MODELS else self.name

    @property
    def gguf(self) -> Path:
        """The same model as a GGUF file; ModelNotFound where there is none."""
        return gguf_file(self.name)

    @property
    def layers(self) -> int:
        """How many layers the model has."""
        return self.causal_lm.config.num_hidden_layers

    @property
    def decoder(self) -> Any:
        """The model without its output head."""
        return self.causal_lm.base_model

    def head_rows(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """What the output head has for A tokens, in float32: weights (A, D) and biases (A,)."""
        head, embedding = self.causal_lm.get_output_embeddings(), self.causal_lm.get_input_embeddings()
        is_tied_to_blocks = isinstance(embedding, BlockEmbedding) and head.weight.is_meta
        weight = embedding.rows(ids) if is_tied_to_blocks else head.weight[ids]
        bias = torch.zeros(len(ids)) if head.bias is None else head.bias[ids]
        return weight.float(), bias.float()

    def tokens(self, text: str) -> list[int]:
        """Token ids of a text within a prompt, no special tokens added."""
        text = text.removeprefix(" ") if self.begins_with_space else text
        return self.tokenizer.encode(text, add_special_tokens=False)

    @property
    def beginning(self) -> list[int]:
        """Tokens that the tokenizer puts before any text. Gemma and Llama 2 are lost without theirs; most have none."""
        begins, ends = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        return [token for token in self.tokenizer.encode("") if token != ends or token == begins]

    def one_token(self, word: str) -> int:
        """The single token of " word" (with its leading space); ValueError if the tokenizer needs more than one."""
        ids = self.tokens(" " + word)
        if len(ids) != 1 or ids[0] == self.tokenizer.unk_token_id:
            raise UserError(f"word {word!r} is {ids} to {self.name}: must be a word of one known token")
        return ids[0]


def load_base_model(config: ModelConfig, by_transformers: bool = False) -> BaseModel:
    """Load the model of `config.name` frozen, in float32, fetching it first at need.

    by_transformers: as transformers has it, also where it could be built here. Raises `ModelNotFound` (a ValueError)
    where there is no such model.
    """
    folder = model_folder(config.name)
    if config.threads:
        torch.set_num_threads(config.threads)
    blocks: Mapping[str, Blocks] = {}
    check_folder(folder, config.name)
    try:
        opened = _Opened(config.name, folder, None if by_transformers else known_config(folder))
        with panics_as_errors():
            tokenizer = _tokenizer(opened)
            one, two = (tokenizer.encode(text, add_special_tokens=False) for text in ("go", " go"))
        if config.weight_storage == "compact":
            file = compact_file(folder, config.name, opened.whole)
            causal_lm, blocks = load_compact(file, opened.empty())
            spare_memory()
        else:
            causal_lm = opened.whole()
    except UserError:
        raise
    except Exception as error:  # of kinds that differ with the architecture and the tokenizer
        needs_code = "trust_remote_code" in str(error)  # which transformers advises to allow
        reason = "it needs code of its own (auto_map)" if needs_code else " ".join(str(error).split())
        raise ModelNotFound(f"model.name = {config.name!r}: {folder} cannot be loaded: {reason}") from error
    return BaseModel(causal_lm.eval().requires_grad_(False), tokenizer, folder, config.name, one == two[1:], blocks)


class _Opened(NamedTuple):
    """A model folder that was looked at; its config, if the model is one that can be built here."""

    name: str
    folder: Path
    config: LlamaConfig | None

    def whole(self) -> Any:
        """The whole model in float32, all numbers finite."""
        causal_lm: Any = load_llama(self.config, weight_files(self.folder, self.name)) if self.config else None
        if causal_lm is None:
            from agents.weights.by_transformers import load_model

            causal_lm = load_model(self.name, self.folder)
        check_finite(self.folder, causal_lm.named_parameters())
        return causal_lm

    def empty(self) -> Any:
        """The model without its weights."""
        if self.config:
            return Llama(self.config)
        from agents.weights.by_transformers import empty_model

        return empty_model(self.folder)


def _tokenizer(opened: _Opened) -> Any:
    plain = plain_tokenizer(opened.folder, opened.config.model_type) if opened.config else None
    if plain:
        return plain
    from agents.weights.by_transformers import load_tokenizer

    return load_tokenizer(opened.folder)
