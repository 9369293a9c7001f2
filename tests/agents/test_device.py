"""On each device that is here, and on a pretended one, come the answers, gradients and steps of the CPU."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from agents import TinyLLMAgent
from agents import device as device_module
from agents.backends import open_backend
from agents.codecs.forage import ForageCodec
from agents.device import chosen_device
from agents.optimiser import StackedAdam, has_fused
from agents.policy import Policy, make_policy
from agents.types import AdapterConfig, Device, ModelConfig, UserError
from agents.weights import products
from envs import Habitat, WorldConfig

TEXTS = [" food two north one east, rock north", " no food", " food here", " no food, home south west"]
NEAR = {"rtol": 1e-3, "atol": 1e-4}
GROUPS = {"a run": [1, 2, 3], "not a run": [4, 0, 2]}


@pytest.fixture(params=["answer", "text"])
def tokens(request) -> str:
    return request.param


@pytest.fixture(params=["ours", "transformers'"])
def layers(request) -> str:
    """Whose layers compute."""
    if request.param != "ours":
        request.getfixturevalue("theirs_only")
    return request.param


@pytest.fixture
def pair(tiny_model, device, tokens, layers) -> tuple[Policy, Policy]:
    """The same six agents on the CPU and on another device."""
    return six(tiny_model, "cpu", tokens), six(tiny_model, device, tokens)


def six(tiny_model, device: Device, tokens: str = "answer", **settings) -> Policy:
    """Six agents on a tiny Llama, each with another adapter."""
    config = AdapterConfig(rank=2, alpha=4.0, top_layers=2, tokens=tokens)
    model = ModelConfig(name=str(tiny_model), device=device, **({"dtype": "float32"} | settings))
    policy = make_policy(model, config, ForageCodec(3), agents=6, seed=0)
    bank = policy.network.bank
    noise = torch.randn(bank.values.shape, generator=torch.Generator().manual_seed(1))
    bank.values += 0.3 * noise.to(bank.values.device)
    return policy


def same(first, second) -> None:
    torch.testing.assert_close(first.cpu(), second.cpu(), **NEAR)


def test_logits_and_features_come_back_to_the_cpu_and_are_the_same(pair):
    here, there = (policy.network for policy in pair)
    for groups in ([0], *GROUPS.values()):
        texts = TEXTS * len(groups)
        found = there.action_logits(texts, torch.tensor(groups))
        assert found.device.type == "cpu"
        same(found, here.action_logits(texts, torch.tensor(groups)))
    same(there.action_logits(TEXTS, None), here.action_logits(TEXTS, None))
    assert there.features(TEXTS).device.type == "cpu"
    same(there.features(TEXTS), here.features(TEXTS))


def test_fast_answers_are_those_of_the_plain_way(pair):
    there = pair[1].network
    fast = there.answer(TEXTS, np.array([3, -1, 0, 5]))
    for text, agent, logits in zip(TEXTS, (3, None, 0, 5), fast, strict=True):
        same(torch.from_numpy(logits), there.plain_logits(text, agent))


def test_answers_by_other_adapters_than_the_banks(pair):
    here, there = (policy.network for policy in pair)
    others = torch.randn(2, here.bank.size, generator=torch.Generator().manual_seed(2))
    found = there.answer(TEXTS, np.array([1, 0, 1, -1]), 0.1 * others)
    same(torch.from_numpy(found), torch.from_numpy(here.answer(TEXTS, np.array([1, 0, 1, -1]), 0.1 * others)))
    mine, theirs = (network.action_logits(TEXTS, torch.tensor([1]), 0.1 * others) for network in (here, there))
    same(mine, theirs)


def test_who_decides_draws_the_same(pair):
    decisions = []
    for policy in pair:
        legal = np.ones((len(TEXTS), 5), bool)
        decisions.append(policy.act(TEXTS, np.array([0, 1, 2, -1]), legal, np.random.default_rng(0)))
    here, there = decisions
    assert (here.action == there.action).all()
    np.testing.assert_allclose(here.value, there.value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("groups", GROUPS.values(), ids=GROUPS)
@pytest.mark.parametrize("step", ["fused", "plain"])
def test_a_step_goes_where_it_goes_on_the_cpu(pair, groups, step, monkeypatch):
    if step == "plain":
        monkeypatch.setattr("agents.optimiser.has_fused", lambda device: False)
    ends = []
    for policy in pair:
        bank = policy.network.bank
        assert step == "plain" or bank.values.device.type == "mps" or has_fused(bank.values.device)
        before, optimiser = bank.values.clone(), StackedAdam(bank)
        is_learning = torch.zeros(6, dtype=torch.bool)
        is_learning[groups] = True
        for number in range(2):
            legal = torch.ones(3 * len(TEXTS), 5, dtype=torch.bool)
            action = (torch.arange(3 * len(TEXTS)) + number) % 5
            log_prob, entropy = policy.evaluate(TEXTS * 3, torch.tensor(groups), action, legal)
            loss = (log_prob - 0.1 * entropy).sum()
            norms = optimiser.minimise(slice(0, 6), loss, torch.full((6,), 0.01), 0.5, is_learning)
        assert norms.device.type == "cpu"
        assert optimiser.mean.device == bank.values.device
        ends.append((bank.values - before, optimiser.mean, norms))
    for mine, theirs in zip(*ends, strict=True):
        same(mine, theirs)
    assert ends[0][0][groups].abs().amax(dim=1).min() > 0.01


def test_moments_and_norms_that_are_not_finite_stop_an_adapter_there_too(tiny_model, device):
    bank = six(tiny_model, device).network.bank
    optimiser, before, everyone = StackedAdam(bank), bank.values.clone(), torch.ones(6, dtype=torch.bool)
    gradients = torch.ones_like(bank.values)
    gradients[1] = torch.nan
    optimiser.mean[2] = torch.inf
    norms = optimiser.step(slice(0, 6), gradients, torch.full((6,), 0.01), 0.5, everyone)
    assert norms.isfinite().tolist() == [True, False, False, True, True, True]
    assert ((bank.values - before).abs().amax(dim=1).cpu() > 0).tolist() == norms.isfinite().tolist()


def test_adapters_that_are_read_or_saved_are_on_the_cpu_and_come_back(tiny_model, device, tmp_path):
    here, there = (six(tiny_model, where).network for where in ("cpu", device))
    copy = there.bank.read(2)
    assert {tensor.device.type for tensor in copy.values()} == {"cpu"}
    there.bank.values[2] = 0.0
    for name, tensor in here.bank.read(2).items():
        same(copy[name], tensor)
    folder = there.save_adapter(3, tmp_path / "adapter")
    assert {tensor.device.type for tensor in load_file(folder / "adapter_model.safetensors").values()} == {"cpu"}
    there.load_adapter(2, folder)
    assert torch.equal(there.bank.values[2].cpu(), there.bank.values[3].cpu())


def test_an_agent_learns_there(tiny_model, device):
    lives = []
    for where in ("cpu", device):
        settings = {"adapter_config": AdapterConfig(top_layers=2), "dtype": "float32", "device": where}
        agent, world = TinyLLMAgent(str(tiny_model), energy=4.0, **settings), Habitat(WorldConfig(), seed=3)
        assert (agent._shared.policy.network.device.type == "cpu") == (where == "cpu")
        agent.enter(world)
        while agent.alive:
            seen = world.observe(agent.position)
            action = agent.decide(seen)
            agent.learn(seen, action, agent.act(action) + 1.0)
            agent.energy -= 1.0
        lives.append(agent.adapter)
    for name, tensor in lives[0].items():
        same(lives[1][name], tensor)
    assert max(float(tensor.abs().max()) for name, tensor in lives[1].items() if "lora_B" in name) > 0


def test_bfloat16_products_there_are_of_bfloat16(tiny_model, device):
    here, there = (six(tiny_model, where, dtype="bfloat16").network for where in ("cpu", device))
    logits = [network.action_logits(TEXTS, torch.tensor([1])) for network in (here, there)]
    torch.testing.assert_close(*logits, rtol=0.05, atol=0.05)


def test_the_faster_format_is_measured_there(tiny_model, device):
    where = six(tiny_model, device).network.device
    products.fastest_dtype.cache_clear()
    assert products.fastest_dtype(where, 0.01) in ("float32", "bfloat16")
    products.fastest_dtype.cache_clear()
    dtype = torch.bfloat16
    if where.type != "cpu":
        assert products.computed_in(dtype, where) == (dtype if products.has_plain(dtype, where) else torch.float32)
        assert products.shortcoming(torch.float32, where) is None


def test_a_format_without_a_product_there_is_multiplied_as_float32(monkeypatch):
    monkeypatch.setattr(products, "has_plain", lambda dtype, device: dtype == torch.float32)
    where = torch.device("mps")
    assert products.computed_in(torch.bfloat16, where) == torch.float32
    assert "no fast bfloat16 product on mps" in products.shortcoming(torch.bfloat16, where)


@pytest.mark.parametrize("there", [["cpu"], ["cpu", "cuda"], ["cpu", "mps"], ["cpu", "cuda", "mps"]])
def test_auto_is_cuda_if_it_is_there_and_else_the_cpu(there, monkeypatch):
    monkeypatch.setattr(device_module, "present", lambda: there)
    assert chosen_device(ModelConfig()) == ("cuda" if "cuda" in there else "cpu")
    assert chosen_device(ModelConfig(weight_storage="compact")) == "cpu"
    assert chosen_device(ModelConfig(trunk="int8")) == "cpu"
    for name in ("cpu", "cuda", "mps"):
        if name in there:
            assert chosen_device(ModelConfig(device=name)) == name
        else:
            wanted = f"model.device = '{name}': must be auto or one that this torch can use here: {', '.join(there)}"
            with pytest.raises(UserError, match=wanted):
                chosen_device(ModelConfig(device=name))


@pytest.mark.parametrize(("setting", "value"), [("weight_storage", "compact"), ("trunk", "int8")])
@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_what_the_cpu_alone_can_multiply_is_refused_elsewhere(setting, value, name):
    with pytest.raises(UserError, match=f"model.device = '{name}': must be cpu or auto with {setting} = {value}"):
        ModelConfig(device=name, **{setting: value})
    ModelConfig(device="cpu", **{setting: value})


def test_other_runtimes_are_refused_where_the_model_is_elsewhere(tiny_model, device):
    network = six(tiny_model, device).network
    assert open_backend("torch", network) is network
    if network.device.type != "cpu":
        for name in ("llama_cpp", "onnx", "mlx"):
            with pytest.raises(UserError, match=r"model.device = .*: must be cpu for backend"):
                open_backend(name, network)
