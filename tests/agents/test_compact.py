"""Weights in blocks are those of llama.cpp, and a compact network answers and learns as the whole one does."""

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quantize

from agents.codecs.forage import ForageCodec
from agents.mapped import mapped_zeros
from agents.optimiser import StackedAdam
from agents.policy import make_policy
from agents.types import AdapterConfig, ModelConfig
from agents.weights import compact
from agents.weights.base_model import load_base_model
from agents.weights.compact import EMBEDDING, BlockEmbedding, Blocks, StoredBlocks, compact_file
from agents.weights.compact_writer import eight_bit

TEXTS = [" food two north one east, rock north", " no food", " food here"]
ADAPTER = AdapterConfig(rank=2, alpha=4.0, top_layers=2)


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("TERRARIUM_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q8_0"])
def test_blocks_unpack_as_in_gguf(kind):
    known = GGMLQuantizationType[kind]
    raw = quantize(random(6, 96).numpy(), known)
    assert np.array_equal(Blocks(kind, torch.from_numpy(raw)).unpacked().numpy(), dequantize(raw, known))


def test_rows_that_do_not_divide_into_blocks_are_float16():
    weight = random(3, 48)
    blocks = eight_bit(weight)
    assert blocks.kind == "F16"
    assert torch.equal(blocks.unpacked(), weight.half().float())


def test_the_file_holds_the_blocks_and_the_rest_of_the_model(tiny_model):
    base = load_base_model(ModelConfig(name=str(tiny_model), weight_storage="compact"))
    whole = load_base_model(ModelConfig(name=str(tiny_model))).causal_lm
    assert isinstance(base.blocks, StoredBlocks)
    assert len(base.blocks) == 4 * 7 + 1
    for path, blocks in base.blocks.items():
        is_layer = path != EMBEDDING
        weight = whole.base_model.get_submodule(path).weight if is_layer else whole.get_input_embeddings().weight
        torch.testing.assert_close(blocks.unpacked(), weight, rtol=0.01, atol=0.01)
        before = blocks.unpacked()
        blocks.let_go()
        assert torch.equal(blocks.unpacked(), before)
        assert not is_layer or base.causal_lm.base_model.get_submodule(path).weight.is_meta
    for name, parameter in base.causal_lm.named_parameters():
        assert parameter.is_meta or torch.equal(parameter, whole.get_parameter(name)), name


def test_rows_of_an_embedding_are_looked_up_and_scaled():
    blocks, ids = eight_bit(random(9, 64)), torch.tensor([[3, 8], [0, 3]])
    embedding = BlockEmbedding(blocks, 2.0)
    assert torch.equal(embedding.rows(ids), blocks.unpacked()[ids])
    assert torch.equal(embedding(ids), 2 * blocks.unpacked()[ids])


def test_memory_of_an_embedding_is_let_go_once_its_rows_are_looked_up():
    calls = []
    embedding = BlockEmbedding(eight_bit(random(9, 64))._replace(let_go=lambda: calls.append(1)), 1.0)
    embedding(torch.tensor([[3, 8]]))
    assert calls


def test_a_weight_unpacked_in_parts_is_the_same(monkeypatch):
    parts = [eight_bit(random(9, 64)), eight_bit(random(7, 64).mul(3))]
    whole = torch.cat([part.unpacked() for part in parts])
    for rows in (1, 4, 100):
        monkeypatch.setattr(compact, "ROWS_AT_ONCE", rows)
        assert torch.equal(compact.unpacked(parts, torch.float32), whole)


@pytest.mark.parametrize("tied", [True, False])
def test_the_output_head_has_the_rows_of_the_whole_one(tiny_model, tmp_path, tied):
    whole = load_base_model(ModelConfig(name=str(tiny_model)), by_transformers=True)
    whole.causal_lm.config.tie_word_embeddings = tied
    if not tied:
        whole.causal_lm.lm_head.weight = torch.nn.Parameter(random(*whole.causal_lm.lm_head.weight.shape))
    whole.causal_lm.save_pretrained(tmp_path / "model")
    whole.tokenizer.save_pretrained(tmp_path / "model")
    base = load_base_model(ModelConfig(name=str(tmp_path / "model"), weight_storage="compact"))
    ids = torch.tensor([5, 2, 7])
    for ours, theirs in zip(base.head_rows(ids), whole.head_rows(ids), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0.01, atol=0.01)


def test_the_file_is_written_once(tiny_model):
    def load():
        raise AssertionError("the file is there")

    load_base_model(ModelConfig(name=str(tiny_model), weight_storage="compact"))
    assert compact_file(tiny_model, str(tiny_model), load).is_file()


def networks(tiny_model, **settings):
    for storage in ("full", "compact"):
        model = ModelConfig(name=str(tiny_model), dtype="float32", weight_storage=storage)
        policy = make_policy(model, ADAPTER, ForageCodec(3), agents=3, seed=0)
        policy.network.bank.values += 0.3 * random(*policy.network.bank.values.shape)
        yield policy.network


def test_a_compact_network_answers_as_a_whole_one_does(tiny_model):
    whole, compact = (network.answer(TEXTS * 3, np.repeat(np.arange(3), 3)) for network in networks(tiny_model))
    assert not np.array_equal(whole, compact)
    assert np.abs(whole - compact).max() < 0.1 * np.abs(whole).max()  # a random model makes much of rounding


def test_a_compact_network_answers_from_memory_as_anew(tiny_model):
    *_, network = networks(tiny_model)
    for text, row in zip(TEXTS, network.action_logits(TEXTS, torch.tensor([1])), strict=True):
        torch.testing.assert_close(row, network.plain_logits(text, 1), rtol=1e-4, atol=1e-4)


def test_a_compact_minds_gradient_is_the_whole_ones(tiny_model):
    gradients = []
    for network in networks(tiny_model):
        with network.bank.gathering(slice(2, 3)) as gradient:
            network.action_logits(TEXTS, torch.tensor([2])).square().sum().backward()
        gradients.append(gradient[0])
    whole, compact = gradients
    assert torch.cosine_similarity(whole, compact, dim=0) > 0.99


def test_moments_in_a_file_are_as_good_as_in_memory(tiny_policy):
    bank = tiny_policy.network.bank
    begin, ends = bank.values.clone(), []
    for in_file in (False, True):
        bank.values[:] = begin
        optimiser = StackedAdam(bank, in_file=in_file)
        for step in range(3):
            gradients = (step + 1) * random(*bank.values.shape)
            optimiser.step(slice(0, 6), gradients, torch.full((6,), 0.01), 1.0, torch.ones(6, dtype=torch.bool))
            optimiser.let_go()
        ends.append((bank.values.clone(), optimiser.mean.clone(), optimiser.square.clone()))
    for held, mapped in zip(*ends, strict=True):
        assert held.any()
        assert torch.equal(held, mapped)


def test_moments_of_a_newcomer_are_let_go(tiny_policy, monkeypatch):
    optimiser, calls = StackedAdam(tiny_policy.network.bank, in_file=True), []
    monkeypatch.setattr(optimiser, "_mapped", [lambda: calls.append(1)])
    optimiser.mean += 1
    optimiser.forget(2)
    assert calls
    assert optimiser.mean.sum(dim=1).tolist() == [optimiser.mean.shape[1] * (slot != 2) for slot in range(6)]


def test_what_was_let_go_is_still_there():
    array, let_go = mapped_zeros(3, 5000)
    assert not array.any()
    array[1] = 7.0
    let_go()
    assert (array[1] == 7.0).all()
    assert not array[[0, 2]].any()
