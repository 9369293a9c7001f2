"""Models as transformers opens and computes them: whatever is not built in `agents.weights.llama`.

transformers takes seconds to import, so this file is imported only where one of its models is wanted. Its layers then
attend as `agents.attention` has it.
"""

from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from transformers import AttentionInterface, AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from agents.attention import terrarium_attention
from agents.types import UserError, log
from agents.weights.cache import ModelNotFound
from agents.weights.old_architectures import modernise

AttentionInterface.register("terrarium", terrarium_attention)
transformers_logging.disable_progress_bar()


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a model folder."""
    return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)


def load_model(name: str, folder: Path) -> Any:
    """The whole model in float32; UserError where it is not whole, or built in an old way."""
    causal_lm, loading = _load_weights(folder)
    if loading["missing_keys"]:  # transformers would go on with random numbers in their place
        missing = sorted(loading["missing_keys"])
        raise ModelNotFound(f"model.name = {name!r}: {folder} lacks {len(missing)} tensors, such as {missing[0]}")
    if loading["unexpected_keys"]:
        unused = sorted(loading["unexpected_keys"])
        log.warning(f"note: model.name = {name!r} has {len(unused)} tensors that are not used, such as {unused[0]}")
    modernise(causal_lm)
    if not hasattr(causal_lm.base_model, "layers"):
        raise UserError(
            f"model.name = {name!r}: {causal_lm.config.model_type} is built the old way in transformers; "
            "must be an architecture like Llama, Qwen, Gemma, Phi or GPT-NeoX"
        )
    return causal_lm


def empty_model(folder: Path) -> Any:
    """The model of a folder without its weights (on the meta device)."""
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    with init_empty_weights(include_buffers=False):
        causal_lm = AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)
        modernise(causal_lm)
    return causal_lm


def _load_weights(folder: Path) -> tuple[Any, dict[str, Any]]:
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    for part in (config, config.get_text_config(decoder=True)):
        if not getattr(part, "quantization_config", True):
            part.quantization_config = None  # {} says nothing, and transformers stumbles over it
    settings = {"dtype": torch.float32, "use_safetensors": True, "output_loading_info": True}
    loaded: Any = AutoModelForCausalLM.from_pretrained(folder, config=config, trust_remote_code=False, **settings)
    return loaded
