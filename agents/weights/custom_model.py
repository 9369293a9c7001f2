"""Small students, made here from SmolLM2 and the same on every machine: one from scratch, and one of half its layers.

The first is a Llama of random numbers: 25.2 million parameters: 50 MB in bfloat16, as it is kept, and 27 MB in
llama.cpp's Q8_0. Half of them are the embedding: it speaks SmolLM2's 49,152 tokens, so that teacher and student read
the same texts. The other half, an eighth of SmolLM2's, is what reading a token costs; it is deep and thin, as Liu et
al. 2024 (MobileLLM, arXiv:2402.14905) found best for so few.

Departures from SmolLM2, whose config it shares but for `SHAPE`: weights are uniform and not normal, their standard
deviation one over the root of the width. An integer times a constant is the same number everywhere, and NumPy promises
that the stream of a bit generator never changes (NEP 19); of a normal sampler neither is true.
"""

import json
import shutil
from pathlib import Path

import numpy as np

DEVIATION = 0.0625  # of the weights
SHAPE = {
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 16,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": 2048,
    "initializer_range": DEVIATION,
    "dtype": "bfloat16",
}
SEED = 0


def write_custom_model(folder: Path, smollm2: Path) -> None:
    """Write the model into `folder`; `smollm2`: model folder that lends config and tokenizer."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModelForCausalLM

    folder.mkdir(parents=True, exist_ok=True)
    config = json.loads((smollm2 / "config.json").read_text(encoding="utf-8")) | SHAPE
    config["_model_name_or_path"] = "custom-50m"
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    for file in smollm2.glob("tokenizer*.json"):
        shutil.copy(file, folder)
    with torch.device("meta"):
        shape = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        parameters = dict(AutoModelForCausalLM.from_config(shape, trust_remote_code=False).named_parameters())
    stream = np.random.Philox(key=SEED)
    weights = {
        name: torch.ones(like.shape) if like.ndim == 1 else torch.from_numpy(_uniform(stream, tuple(like.shape)))
        for name, like in sorted(parameters.items())  # tied weights once
    }
    save_file({name: w.bfloat16() for name, w in weights.items()}, folder / "model.safetensors", {"format": "pt"})


def write_half_model(folder: Path, smollm2: Path) -> None:
    """Write SmolLM2 with every second of its layers into `folder`.

    DistilBERT (Sanh et al. 2019, arXiv:1910.01108) begins so, with the layers 0, 2, 4, ... of its teacher; here the
    last layer is kept, from which the output head reads: 1, 3, 5, ...
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    whole = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.bfloat16, trust_remote_code=False)
    whole.model.layers = whole.model.layers[1::2]
    whole.config.num_hidden_layers = len(whole.model.layers)
    for number, layer in enumerate(whole.model.layers):
        layer.self_attn.layer_idx = number
    whole.save_pretrained(folder)
    AutoTokenizer.from_pretrained(smollm2, trust_remote_code=False).save_pretrained(folder)


def _uniform(stream: np.random.Philox, shape: tuple[int, ...]) -> np.ndarray:
    """The next numbers of `stream` as float32, mean 0, standard deviation `DEVIATION`: 16 bits each."""
    count = int(np.prod(shape))
    bits = stream.random_raw(-(-count // 4)).astype("<u8").view("<u2")[:count]
    reach = np.float32(DEVIATION * 3**0.5)
    return ((bits.astype(np.float32) - np.float32(32767.5)) / np.float32(32768) * reach).reshape(shape)
