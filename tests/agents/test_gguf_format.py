"""Adapters as llama.cpp reads them: names, shapes, order of rows; and models with an adapter merged in."""

import shutil

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFReader
from gguf.quants import dequantize
from gguf_files import write_gguf
from transformers import AutoModelForCausalLM

from agents.codecs.forage import ForageCodec
from agents.formats.gguf import Shape, llama_tensors, merge_gguf, recode_gguf, rope_order, save_gguf_adapter
from agents.policy import make_policy
from agents.types import AdapterConfig, ModelConfig, UserError
from agents.weights.fetch import ModelNotFound, gguf_file, known_gguf

TINY = Shape("llama", layers=4, heads=4, key_value_heads=2)
EVERYTHING = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@pytest.fixture
def network(tiny_model):
    """Two agents whose adapters act on every linear module of the last two of four layers."""
    config = AdapterConfig(rank=3, alpha=4.5, top_layers=2, modules=EVERYTHING)
    network = make_policy(ModelConfig(name=str(tiny_model)), config, ForageCodec(3), agents=2, seed=0).network
    network.bank.values += 0.3 * torch.randn(network.bank.values.shape, generator=torch.Generator().manual_seed(0))
    return network


def read(file) -> tuple[dict, dict]:
    reader = GGUFReader(file)
    return {f.name: f.contents() for f in reader.fields.values()}, {t.name: t for t in reader.tensors}


def test_a_lora_file_says_what_llama_cpp_asks(network, tmp_path):
    file = save_gguf_adapter(tmp_path / "a.gguf", network.bank.read(1), TINY, alpha=4.5, answer_id=network.answer_id)
    fields, tensors = read(file)
    assert fields["general.type"] == "adapter"
    assert fields["general.architecture"] == "llama"
    assert fields["adapter.type"] == "lora"
    assert fields["adapter.lora.alpha"] == 4.5
    assert fields["adapter.alora.invocation_tokens"] == [network.answer_id]
    modules = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    wanted = {f"blk.{layer}.{module}.weight.lora_{x}" for layer in (2, 3) for module in modules for x in "ab"}
    assert tensors.keys() == wanted
    assert tensors["blk.2.ffn_down.weight.lora_a"].data.shape == (3, 48)
    assert tensors["blk.2.ffn_down.weight.lora_b"].data.shape == (32, 3)
    assert [f.name for f in tmp_path.iterdir()] == ["a.gguf"]


def test_all_numbers_are_there_and_only_queries_and_keys_change_places(network, tmp_path):
    adapter = network.bank.read(1)
    _, tensors = read(save_gguf_adapter(tmp_path / "a.gguf", adapter, TINY, alpha=4.5, answer_id=5))
    for ours, theirs in {
        "self_attn.v_proj": "attn_v",
        "mlp.down_proj": "ffn_down",
        "self_attn.q_proj": "attn_q",
    }.items():
        for x in "AB":
            saved = tensors[f"blk.3.{theirs}.weight.lora_{x.lower()}"].data
            is_moved = theirs == "attn_q" and x == "B"
            original = adapter[f"model.layers.3.{ours}.lora_{x}.weight"].numpy()
            assert np.array_equal(saved, original) is not is_moved
            assert np.array_equal(np.sort(saved, axis=0), np.sort(original, axis=0))


def test_halves_of_a_head_become_neighbours():
    rows = np.arange(16, dtype=np.float32)[:, None]  # two heads of eight
    assert rope_order(rows, 2)[:, 0].tolist() == [0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15]


def test_a_merged_file_is_read_by_transformers_as_the_base_plus_the_adapter(network, tiny_model, tmp_path):
    """transformers puts rows of q and k back by itself, so it would see a wrong order."""
    base = write_gguf(tiny_model, tmp_path / "base.gguf")
    merged = tmp_path / "merged.gguf"
    merge_gguf(base, merged, network.bank.read(1), TINY, scaling=network.bank.scaling, name="an agent")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="merged.gguf", dtype=torch.float32).state_dict()
    expected = AutoModelForCausalLM.from_pretrained(tiny_model).state_dict()
    adapter = network.bank.read(1)
    for name, a in adapter.items():
        if "lora_A" in name:
            change = network.bank.scaling * adapter[name.replace("lora_A", "lora_B")] @ a
            assert change.abs().max() > 0.1
            expected[name.replace("lora_A.", "")] += change
    for name, weights in expected.items():
        torch.testing.assert_close(theirs[name], weights, msg=name)
    assert read(merged)[0]["general.name"] == "an agent"


def test_merging_copies_what_the_adapter_does_not_touch_and_makes_8_bits_of_4(tiny_policy, tiny_model, tmp_path):
    plain = write_gguf(tiny_model, tmp_path / "plain.gguf")
    base = recode_narrow(plain, tmp_path / "base.gguf")
    network = tiny_policy.network
    merged = merge_gguf(
        base, tmp_path / "merged.gguf", network.bank.read(0), TINY, scaling=network.bank.scaling, name="agent"
    )
    before, after = read(base), read(merged)
    assert before[0].keys() | {"general.name"} == after[0].keys()
    assert all(after[0][k] == v for k, v in before[0].items() if not k.startswith(("GGUF.", "general.name")))
    assert list(before[1]) == list(after[1])
    touched = {n.removesuffix(".lora_a") for n in llama_tensors(network.bank.read(0), TINY) if n.endswith(".lora_a")}
    for name, tensor in before[1].items():
        if name not in touched:
            assert after[1][name].tensor_type == tensor.tensor_type
            assert np.array_equal(after[1][name].data, tensor.data)
    changed = llama_tensors(network.bank.read(0), TINY)
    q, down = "blk.3.attn_q.weight", "blk.3.ffn_down.weight"
    assert after[1][q].tensor_type == GGMLQuantizationType.Q8_0
    assert after[1][down].tensor_type == GGMLQuantizationType.F16  # was float, and stays it
    exact = dequantize(before[1][q].data, before[1][q].tensor_type)
    exact = exact + network.bank.scaling * changed[f"{q}.lora_b"] @ changed[f"{q}.lora_a"]
    error = np.abs(dequantize(after[1][q].data, after[1][q].tensor_type) - exact).max()
    assert error <= np.abs(exact).max() / 127


def recode_narrow(source, file):
    """Matrices of 32 columns as Q4_1, the others (48 columns make no blocks of 32) as F16."""
    from gguf.quants import quantize

    from agents.formats.gguf import rewrite_gguf

    def narrow(tensor):
        if len(tensor.shape) < 2:
            return tensor.data, tensor.tensor_type
        kind = GGMLQuantizationType.Q4_1 if tensor.data.shape[1] % 32 == 0 else GGMLQuantizationType.F16
        return quantize(tensor.data, kind), kind

    return rewrite_gguf(GGUFReader(source), file, narrow, {})


def test_recoding_changes_matrices_only(tiny_model, tmp_path):
    base = write_gguf(tiny_model, tmp_path / "base.gguf")
    recoded = read(recode_gguf(base, tmp_path / "half.gguf", GGMLQuantizationType.BF16))[1]
    for name, tensor in read(base)[1].items():
        kind = recoded[name].tensor_type
        assert kind == (GGMLQuantizationType.BF16 if len(tensor.shape) > 1 else GGMLQuantizationType.F32)
        np.testing.assert_allclose(dequantize(recoded[name].data, kind), tensor.data, rtol=2**-8)


def test_an_architecture_that_was_never_tried_is_refused(network):
    config = network.base.causal_lm.config
    assert Shape.of(config) == TINY
    config.model_type = "phi"
    with pytest.raises(UserError, match="model_type = 'phi': for GGUF it must be one of llama, gemma3_text"):
        Shape.of(config)


def test_a_module_without_a_name_in_llama_cpp_is_refused():
    adapter = {"model.layers.0.self_attn.mixer.lora_A.weight": torch.zeros(2, 4)}
    with pytest.raises(UserError, match=r"llama.cpp has no tensor for model.layers.0.self_attn.mixer"):
        llama_tensors(adapter, TINY)


def test_a_base_without_the_tensor_is_refused_and_nothing_is_left(network, tiny_model, tmp_path):
    base = write_gguf(tiny_model, tmp_path / "base.gguf")
    adapter = {n.replace("layers.3", "layers.9"): t for n, t in network.bank.read(0).items()}
    shape = TINY._replace(layers=12)
    with pytest.raises(UserError, match=r"base.gguf: has no tensor blk.9.attn_k.weight"):
        merge_gguf(base, tmp_path / "merged.gguf", adapter, shape, scaling=1.0, name="agent")
    assert [f.name for f in tmp_path.iterdir()] == ["base.gguf"]


def test_the_gguf_file_of_a_folder_is_the_one_in_it(tiny_model, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    with pytest.raises(ModelNotFound, match=r"model.name = .*model': has 0 GGUF files, and llama.cpp needs one"):
        gguf_file(str(folder))
    file = write_gguf(folder, folder / "any.gguf")
    assert gguf_file(str(folder)) == file == gguf_file(str(file))
    shutil.copy(file, folder / "other.gguf")
    with pytest.raises(ModelNotFound, match="has 2 GGUF files"):
        gguf_file(str(folder))


@pytest.mark.real
def test_the_gguf_file_of_a_known_name_is_the_one_that_was_fetched():
    assert gguf_file("smollm2-135m") == known_gguf("smollm2-135m")
