"""Layers that are computed here come to what transformers' own come to, forth and back."""

import pytest
import torch
from transformers import AutoConfig, AutoModel

from agents.attention import Reading
from agents.codecs.forage import ForageCodec
from agents.device import CPU
from agents.layers import Layers, is_known
from agents.policy import Policy, make_policy
from agents.reading import TheirLayers
from agents.types import AdapterConfig, ModelConfig
from agents.weights import by_transformers  # noqa: F401, which registers the attention
from agents.weights.frozen import Columns, freeze

TEXTS = [
    " food two north one east, rock north",
    " no food",
    " food here",
    " food was north west",
    " no food, rock west",
]
EVERYWHERE = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
NEAR = {"rtol": 1e-4, "atol": 1e-5}


def policy_on(model, tokens: str, storage: str = "full", modules: tuple[str, ...] = ()) -> Policy:
    adapter = AdapterConfig(rank=2, top_layers=2, tokens=tokens, modules=list(modules))
    settings = ModelConfig(name=str(model), dtype="float32", weight_storage=storage)
    policy = make_policy(settings, adapter, ForageCodec(3), agents=3, seed=0)
    values = policy.network.bank.values
    values += 0.1 * torch.randn(values.shape, generator=torch.Generator().manual_seed(0))
    return policy


def logits_and_gradient(policy: Policy, texts: list[str], groups: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    network = policy.network
    with network.bank.gathering(slice(0, 3)) as gradients:
        logits = network.action_logits(texts, torch.tensor(groups))
        weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1))
        (logits * weights).sum().backward()
        return logits.detach(), gradients.clone()


@pytest.mark.parametrize("modules", [(), tuple(EVERYWHERE), ("k_proj",), ("gate_proj", "o_proj")])
@pytest.mark.parametrize("tokens", ["answer", "text"])
@pytest.mark.parametrize("storage", ["full", "compact"])
def test_logits_and_gradients_are_those_of_transformers_layers(
    tiny_model, tokens, storage, modules, request, tmp_path, monkeypatch
):
    monkeypatch.setenv("TERRARIUM_CACHE", str(tmp_path))
    ours = policy_on(tiny_model, tokens, storage, modules)
    request.getfixturevalue("theirs_only")
    theirs = policy_on(tiny_model, tokens, storage, modules)
    assert isinstance(ours.network.reader.top, Layers)
    assert isinstance(theirs.network.reader.top, TheirLayers)
    for groups in ([0, 1, 2], [2, 0], [1, 1], [0]):
        for texts in (TEXTS[:1] * len(groups), TEXTS * len(groups), (TEXTS * 2)[: 2 * len(groups)]):
            found, expected = (logits_and_gradient(policy, texts, groups) for policy in (ours, theirs))
            for one, other in zip(found, expected, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5 * float(other.abs().max()))
            assert expected[1].abs().max() > 1e-3, "a gradient of nothing proves nothing"


def test_the_same_texts_for_all_agents_are_recalled_once(tiny_model, monkeypatch):
    network = policy_on(tiny_model, "answer").network
    groups = torch.arange(3)
    asked, recall = [], network.cache.recall
    monkeypatch.setattr(network.cache, "recall", lambda texts: asked.append(len(texts)) or recall(texts))
    together = network.action_logits(TEXTS * 3, groups).view(3, len(TEXTS), -1)
    for row, text in enumerate(TEXTS):
        for agent in range(3):
            alone = network.action_logits([text], groups[agent : agent + 1])[0]
            torch.testing.assert_close(together[agent, row], alone, **NEAR)
    others = network.action_logits([*TEXTS, *TEXTS[::-1], *TEXTS], groups).view(3, len(TEXTS), -1)
    torch.testing.assert_close(others[1], together[1].flip(0), **NEAR)
    assert [asked[0], asked[-1]] == [len(TEXTS), 3 * len(TEXTS)]


def test_q_k_and_v_are_one_product_and_so_are_gate_and_up(tiny_model):
    layer = policy_on(tiny_model, "answer").network.base.decoder.layers[0]
    assert layer.self_attn.q_proj.whole is layer.self_attn.k_proj.whole is layer.self_attn.v_proj.whole
    assert layer.mlp.gate_proj.whole is layer.mlp.up_proj.whole
    x = torch.randn(2, 3, layer.self_attn.q_proj.whole.weight().shape[1])
    for module in (layer.self_attn.q_proj, layer.self_attn.v_proj, layer.mlp.up_proj):
        assert isinstance(module, Columns)
        torch.testing.assert_close(module(x), x @ module.weight().T, **NEAR)


def test_a_gradient_through_some_columns_is_that_of_the_whole(tiny_model):
    layer = policy_on(tiny_model, "answer").network.base.decoder.layers[-1]
    module = layer.self_attn.k_proj
    gradient = torch.randn(4, module.out_features)
    torch.testing.assert_close(module.back(gradient), gradient @ module.weight(), **NEAR)


def test_rotations_that_change_with_the_length_are_left_to_transformers(tiny_model):
    decoder = policy_on(tiny_model, "answer").network.base.decoder
    assert is_known(decoder)
    decoder.config.rope_parameters = {"rope_type": "dynamic", "factor": 2.0}
    assert not is_known(decoder)
    decoder.config.rope_parameters, decoder.config.hidden_act = {"rope_type": "default"}, "gelu"
    assert not is_known(decoder)


def test_a_position_beyond_those_known_is_computed_as_if_it_had_been_known(tiny_model):
    layers = policy_on(tiny_model, "answer").network.reader.top
    far = layers._turns_at(torch.tensor([[700, 3]]), CPU)
    near = policy_on(tiny_model, "answer").network.reader.top._turns_at(torch.tensor([[3]]), CPU)
    assert torch.equal(far[:, :, 1:], near)
    cosine, sine = layers._rotary(torch.zeros(1), torch.tensor([[700]]))
    half = sine.shape[-1] // 2
    torch.testing.assert_close(far[0, 0, 0, 0], cosine[0, 0])
    torch.testing.assert_close(far[1, 0, 0, 0, half:], sine[0, 0, half:])
    torch.testing.assert_close(far[1, 0, 0, 0, :half], -sine[0, 0, :half])


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2"])
@torch.no_grad()
def test_layers_of_each_known_kind_come_to_what_transformers_has(kind):
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "vocab_size": 50}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.3}
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **shape, **heads, sliding_window=None)
    decoder = AutoModel.from_config(config, attn_implementation="terrarium").eval()
    for name, parameter in decoder.named_parameters():
        if "bias" in name or "norm" in name:
            parameter += 0.3 * torch.randn(parameter.shape)  # which are zero, or one, at first
    hidden, lengths = torch.randn(1, 9, 32), [2, 2, 5]
    positions = torch.tensor([[0, 1, 0, 1, 0, 1, 2, 3, 4]])
    keywords = {"use_cache": False, "attend_as": Reading(None, 0, lengths)}
    expected = decoder(inputs_embeds=hidden, position_ids=positions, **keywords).last_hidden_state
    freeze(decoder, {}, 0, torch.float32, is_joined=True)
    first, rest = Layers(decoder, 0, 1), Layers(decoder, 1, 3)
    reading = Reading(None, 1, lengths)
    found = rest(first(hidden, positions, reading), positions, reading)
    torch.testing.assert_close(found, expected, **NEAR)
    assert len(reading.recorded) == 2, "of the layers from the first recorded one on"
