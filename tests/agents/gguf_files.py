"""A transformers model folder as a GGUF file in float32, laid out as llama.cpp's converter does, without tokenizer."""

import json
from pathlib import Path

from gguf import GGUFWriter, get_tensor_name_map
from safetensors.numpy import load_file

from agents.formats.gguf import ARCHITECTURES, rope_order


def write_gguf(folder: Path, file: Path) -> Path:
    """Write the Llama or Gemma3 in `folder` to `file`, and return it."""
    config = json.loads((folder / "config.json").read_text())
    number, name, rotated = ARCHITECTURES[config["model_type"]]
    writer = GGUFWriter(file, name)
    writer.add_string("tokenizer.ggml.model", "none")
    writer.add_vocab_size(config["vocab_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    head = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    rope = config["rope_parameters"]
    writer.add_rope_freq_base(rope.get("full_attention", rope)["rope_theta"])
    if config.get("sliding_window"):
        writer.add_sliding_window(config["sliding_window"])
    names = get_tensor_name_map(number, config["num_hidden_layers"])
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    for path, tensor in load_file(folder / "model.safetensors").items():
        module = path.removesuffix(".weight").rpartition(".")[2]
        if module in rotated:
            tensor = rope_order(tensor, heads[module])
        if name == "gemma3" and module.endswith("norm"):
            tensor = tensor + 1  # Gemma multiplies by one more than its weights
        writer.add_tensor(names.get_name(path, try_suffixes=(".weight",)), tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file
