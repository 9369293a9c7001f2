"""The frozen language model that all agents share. Knows no adapters and no agents."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from agents.types import ModelConfig, UserError, log
from agents.weights.compact import BlockEmbedding, Blocks, compact_file, load_compact, spare_memory
from agents.weights.fetch import MODELS, ModelNotFound, gguf_file, model_folder
from agents.weights.old_architectures import modernise
from agents.weights.whole import check_finite, check_folder, panics_as_errors


class BaseModel(NamedTuple):
    """A frozen causal language model with its tokenizer."""

    causal_lm: Any  # transformers model with its head, no gradients
    tokenizer: Any  # transformers tokenizer
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


def load_base_model(config: ModelConfig) -> BaseModel:
    """Load the model of `config.name` frozen, in float32, fetching it first at need.

    Raises `ModelNotFound` (a ValueError) where there is no such model.
    """
    folder = model_folder(config.name)
    if config.threads:
        torch.set_num_threads(config.threads)
    transformers_logging.disable_progress_bar()
    blocks: Mapping[str, Blocks] = {}
    check_folder(folder, config.name)
    try:
        with panics_as_errors():
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            one, two = (tokenizer.encode(text, add_special_tokens=False) for text in ("go", " go"))
        if config.weight_storage == "compact":
            file = compact_file(folder, config.name, partial(_load, config.name, folder))
            causal_lm, blocks = load_compact(file, AutoConfig.from_pretrained(folder, trust_remote_code=False))
            spare_memory()
        else:
            causal_lm = _load(config.name, folder)
    except UserError:
        raise
    except Exception as error:  # of kinds that differ with the architecture and the tokenizer
        needs_code = "trust_remote_code" in str(error)  # which transformers advises to allow
        reason = "it needs code of its own (auto_map)" if needs_code else " ".join(str(error).split())
        raise ModelNotFound(f"model.name = {config.name!r}: {folder} cannot be loaded: {reason}") from error
    return BaseModel(causal_lm.eval().requires_grad_(False), tokenizer, folder, config.name, one == two[1:], blocks)


def _load(name: str, folder: Path) -> Any:
    """The whole model in float32."""
    causal_lm, loading = _load_weights(folder)
    if loading["missing_keys"]:  # transformers would go on with random numbers in their place
        missing = sorted(loading["missing_keys"])
        raise ModelNotFound(f"model.name = {name!r}: {folder} lacks {len(missing)} tensors, such as {missing[0]}")
    if loading["unexpected_keys"]:
        unused = sorted(loading["unexpected_keys"])
        log.warning(f"note: model.name = {name!r} has {len(unused)} tensors that are not used, such as {unused[0]}")
    check_finite(folder, causal_lm.named_parameters())
    modernise(causal_lm)
    if not hasattr(causal_lm.base_model, "layers"):
        raise UserError(
            f"model.name = {name!r}: {causal_lm.config.model_type} is built the old way in transformers; "
            "must be an architecture like Llama, Qwen, Gemma, Phi or GPT-NeoX"
        )
    return causal_lm


def _load_weights(folder: Path) -> tuple[Any, dict[str, Any]]:
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    for part in (config, config.get_text_config(decoder=True)):
        if not getattr(part, "quantization_config", True):
            part.quantization_config = None  # {} says nothing, and transformers stumbles over it
    settings = {"dtype": torch.float32, "use_safetensors": True, "output_loading_info": True}
    loaded: Any = AutoModelForCausalLM.from_pretrained(folder, config=config, trust_remote_code=False, **settings)
    return loaded
