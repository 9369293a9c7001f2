"""Many adapters in one forward are the same as one after the other, and the base never moves."""

import hashlib
from threading import Thread
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from agents.lora import AdapterBank, check_adapter
from agents.optimiser import StackedAdam
from agents.types import AdapterConfig

CONFIG = AdapterConfig(rank=2, alpha=3.0, top_layers=2, modules=["up", "down"])
ADAPTERS = 4
EVERYONE = slice(0, ADAPTERS)


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down, self.norm = nn.Linear(6, 5), nn.Linear(5, 6), nn.LayerNorm(6)

    def forward(self, x):
        return x + self.down(torch.tanh(self.up(self.norm(x))))


class Net(nn.Module):
    """Three layers with the names and the config that a bank looks for."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(Layer() for _ in range(3))
        self.config = SimpleNamespace(num_hidden_layers=3, model_type="toy")
        self.requires_grad_(False)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


def merged(bank: AdapterBank, index: int | None) -> Net:
    """A plain net whose weights are W + alpha / r * B A, worked out from the bank's tensors."""
    net = Net()
    if index is not None:
        adapter = bank.read(index)
        for name, a in adapter.items():
            if name.endswith("lora_A.weight"):
                path = name.removesuffix(".lora_A.weight")
                net.get_submodule(path).weight += 3.0 / 2 * adapter[f"{path}.lora_B.weight"] @ a
    return net


def stirred(bank: AdapterBank) -> AdapterBank:
    bank.values += torch.randn(bank.values.shape, generator=torch.Generator().manual_seed(1))
    return bank


@pytest.fixture
def net() -> Net:
    return Net()


@pytest.fixture
def bank(net: Net) -> AdapterBank:
    """Four different adapters on `net`."""
    return stirred(AdapterBank(net, CONFIG, ADAPTERS))


@pytest.mark.parametrize("groups", [[0, 1, 2, 3], [3, 1, 0, 2], [2], [3, 0], [1, 1, 2]])
def test_one_batched_forward_equals_the_plain_computation_for_each_agent(net, bank, groups):
    x = torch.randn(len(groups), 3, 2, 6)  # three rows a group, two tokens each
    with bank.using(torch.tensor(groups)):
        together = net(x.flatten(0, 1)).view_as(x)
    for agent, rows, got in zip(groups, x, together, strict=True):
        torch.testing.assert_close(got, merged(bank, agent)(rows), rtol=1e-5, atol=1e-5)
    assert (together[0] - merged(bank, None)(x[0])).abs().max() > 0.1


def test_without_groups_the_bare_base_answers(net, bank):
    x = torch.randn(4, 2, 6)
    plain = merged(bank, None)(x)
    assert torch.equal(net(x), plain)
    with bank.using(None):
        assert torch.equal(net(x), plain)


def test_newborn_adapters_are_equal_and_change_nothing():
    net = Net()
    x = torch.randn(ADAPTERS, 2, 6)
    before = net(x)
    bank = AdapterBank(net, CONFIG, ADAPTERS, seed=5)
    with bank.using(torch.arange(ADAPTERS)):
        assert torch.equal(net(x), before)
    assert (bank.values == bank.values[0]).all()
    for name, tensor in bank.read(0).items():
        assert bool(tensor.any()) == ("lora_A" in name)


def test_newborns_follow_from_the_seed_and_a_is_as_wide_as_its_input_asks():
    model = Net()
    for layer in model.layers:
        layer.up = nn.Linear(400, 100)
    bank = AdapterBank(model, AdapterConfig(rank=100, alpha=1.0, top_layers=2, modules=["up"]), 1, seed=3)
    first = bank.values.clone()
    assert float(bank.read(0)["layers.2.up.lora_A.weight"].std()) == pytest.approx(400**-0.5, rel=0.03)
    bank.reset(4)
    assert not torch.equal(bank.values, first)
    bank.reset(3)
    assert torch.equal(bank.values, first)


def test_only_the_last_layers_and_the_named_modules_carry_adapters():
    bank = AdapterBank(Net(), AdapterConfig(rank=2, alpha=1.0, top_layers=2, modules=["down"]), 1)
    assert bank.shapes == {
        "layers.1.down.lora_A.weight": (2, 5),
        "layers.1.down.lora_B.weight": (6, 2),
        "layers.2.down.lora_A.weight": (2, 5),
        "layers.2.down.lora_B.weight": (6, 2),
    }


def test_nesting_gives_back_what_was_active_even_after_an_error(net, bank):
    x = torch.randn(2, 1, 6)
    with bank.using(torch.tensor([0, 1])):
        outer = net(x)
        with bank.using(torch.tensor([2, 3])):
            assert not torch.equal(net(x), outer)
            with bank.using(None):
                assert torch.equal(net(x), merged(bank, None)(x))
        assert torch.equal(net(x), outer)
        with pytest.raises(KeyError), bank.using(torch.tensor([3])):
            raise KeyError
        assert torch.equal(net(x), outer)
    assert torch.equal(net(x), merged(bank, None)(x))


def test_what_one_thread_uses_is_not_in_use_in_another(net, bank):
    x, found = torch.randn(2, 1, 6), []
    with bank.using(torch.tensor([0, 1])):
        other = Thread(target=lambda: found.append(net(x)))
        other.start()
        other.join()
    assert torch.equal(found[0], merged(bank, None)(x))


def test_gradients_reach_the_adapters_in_use_and_nobody_else(net, bank):
    with bank.gathering(EVERYONE) as gradients, bank.using(torch.tensor([3, 1])):
        net(torch.randn(4, 2, 6)).square().sum().backward()
    norms = gradients.norm(dim=1)
    assert (norms[[1, 3]] > 0.1).all()
    assert (norms[[0, 2]] == 0).all()
    assert all(p.grad is None for p in net.parameters())


def test_an_adapters_gradient_is_the_one_of_its_own_rows_whoever_shares_the_batch(net, bank):
    x = torch.randn(3, 2, 1, 6)
    with bank.gathering(EVERYONE) as gradients, bank.using(torch.tensor([2, 0, 3])):
        net(x.flatten(0, 1)).square().sum().backward()
    together = gradients.clone()
    with bank.gathering(EVERYONE) as gradients:
        for agent, rows in zip([2, 0, 3], x, strict=True):
            with bank.using(torch.tensor([agent])):
                net(rows).square().sum().backward()
    assert together.norm() > 1.0
    assert (gradients - together).norm() < 1e-5 * together.norm()  # small ones are sums of large ones


@pytest.mark.parametrize("groups", [[1, 2], [2, 1], [2, 2, 1]])
def test_gradients_of_a_part_of_the_adapters_are_those_of_all(net, bank, groups):
    x, found = torch.randn(len(groups), 2, 6), []
    for rows in (EVERYONE, slice(1, 3)):
        with bank.gathering(rows) as gradients, bank.using(torch.tensor(groups)):
            net(x).square().sum().backward()
        found.append(gradients.clone())
    assert torch.equal(found[0][1:3], found[1])
    assert (found[1].norm(dim=1) > 0.1).all()


def test_every_gathering_begins_at_zero_and_one_of_the_same_size_makes_no_new_array(net, bank):
    places = set()
    for row in (2, 2, 0):
        with bank.gathering(slice(row, row + 1)) as gradients:
            assert not gradients.any()
            with bank.using(torch.tensor([row])):
                net(torch.randn(2, 6)).sum().backward()
        assert gradients.any()
        places.add(gradients.data_ptr())
    assert len(places) == 1


def test_a_backward_that_nothing_gathers_is_refused(net, bank):
    def loss(groups):
        with bank.using(torch.tensor(groups)):
            return net(torch.randn(2, 6)).sum()

    with pytest.raises(RuntimeError, match=r"within a block of AdapterBank\.gathering"):
        loss([0, 1]).backward()
    for groups in ([0, 1], [2, 3], [3, 2], [1, 0]):
        with bank.gathering(slice(1, 3)), pytest.raises(RuntimeError, match=r"adapters outside slice\(1, 3"):
            loss(groups).backward()
    with bank.gathering(EVERYONE) as gradients:
        loss([1, 0]).backward()  # an error within a block does not leave it open
    assert gradients.any()


def test_one_gathering_within_another_is_refused_and_the_outer_goes_on(net, bank):
    with bank.gathering(EVERYONE) as gradients:
        with pytest.raises(RuntimeError, match="already"), bank.gathering(slice(0, 1)):
            pass
        with bank.using(torch.tensor([1, 2])):
            net(torch.randn(2, 6)).sum().backward()
    assert gradients.any(dim=1).tolist() == [False, True, True, False]


def test_a_gradient_points_where_the_loss_rises(net, bank):
    x = torch.randn(2, 2, 6)

    def loss():
        with bank.using(torch.tensor([1])):
            return net(x).square().sum()

    with bank.gathering(slice(1, 2)) as gradients:
        loss().backward()
    slope, step = float(gradients.square().sum()), 1e-5
    before = loss().item()
    bank.values[1] += step * gradients[0]
    assert (loss().item() - before) / step == pytest.approx(slope, rel=0.1)


def test_what_is_written_is_read_and_only_there(bank):
    others = bank.values[[0, 1, 3]].clone()
    adapter = {name: torch.randn(shape) for name, shape in bank.shapes.items()}
    bank.write(2, dict(reversed(adapter.items())))
    read = bank.read(2)
    assert read.keys() == adapter.keys()
    assert all(torch.equal(read[name], adapter[name]) for name in adapter)
    assert torch.equal(bank.values[[0, 1, 3]], others)


def test_what_was_read_is_a_copy(bank):
    kept = bank.values.clone()
    for tensor in bank.read(1).values():
        tensor.fill_(7.0)
    assert torch.equal(bank.values, kept)


def step(bank: AdapterBank) -> None:
    gradients, everyone = torch.ones(ADAPTERS, bank.size), torch.ones(ADAPTERS, dtype=torch.bool)
    StackedAdam(bank).step(EVERYONE, gradients, torch.ones(ADAPTERS), 1.0, everyone)


def assign(bank: AdapterBank) -> None:
    bank.values = torch.ones(ADAPTERS, bank.size)


CHANGES = {
    "write": lambda bank: bank.write(0, bank.read(1)),
    "reset": lambda bank: bank.reset(3),
    "a step": step,
    "some rows": lambda bank: bank.values.__setitem__(torch.tensor([2, 0]), 7.0),
    "all": lambda bank: bank.values.copy_(torch.ones(ADAPTERS, bank.size)),
    "through a view": lambda bank: next(iter(bank.unflatten(bank.values[3]).values())).fill_(7.0),
    "in place": lambda bank: bank.values.add_(1.0),
    "assigned": assign,
}
"""The ways in which adapters are written in this project."""


@pytest.mark.parametrize("change", CHANGES)
def test_the_version_grows_with_every_change_and_with_nothing_else(net, bank, change):
    version, values, row = bank.version, bank.values.clone(), bank.unflatten(bank.values[1])
    with bank.gathering(EVERYONE), bank.using(torch.arange(ADAPTERS)):
        net(torch.randn(ADAPTERS, 6)).sum().backward()
    bank.read(0)
    assert bank.version == version
    CHANGES[change](bank)
    assert not torch.equal(bank.values, values)
    assert bank.version > version
    assert all(torch.equal(row[name], tensor) for name, tensor in bank.read(1).items()), "rows are views as before"


def test_a_change_in_another_thread_is_seen_and_a_published_copy_keeps_its_version(bank):
    bank.publish()
    before, acting = bank.acting_version, bank.acting.clone()
    other = Thread(target=step, args=[bank])
    other.start()
    other.join()
    assert bank.version > before
    assert bank.acting_version == before
    assert torch.equal(bank.acting, acting)
    bank.publish()
    assert bank.acting_version == bank.version
    assert torch.equal(bank.acting, bank.values)
    bank.values.add_(1.0)
    bank.withdraw()
    assert bank.acting_version == bank.version > before


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda a: a.pop("layers.1.up.lora_A.weight"), r"missing \['layers.1.up.lora_A.weight'\]"),
        (lambda a: a.update(stranger=torch.zeros(1)), r"unknown \['stranger'\]"),
        (lambda a: a.update({"layers.2.up.lora_B.weight": torch.zeros(2, 5)}), r"layers.2.up.lora_B.weight.*\(5, 2\)"),
        (lambda a: a["layers.2.down.lora_A.weight"].fill_(torch.nan), "layers.2.down.lora_A.weight holds NaN"),
        (lambda a: a["layers.1.down.lora_B.weight"].fill_(torch.inf), "layers.1.down.lora_B.weight holds NaN or inf"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused_by_name_and_nothing_is_written(bank, spoil, complaint):
    before, version = bank.values.clone(), bank.version
    adapter = bank.read(0)
    check_adapter(adapter, bank.shapes)
    spoil(adapter)
    with pytest.raises(ValueError, match=complaint):
        bank.write(1, adapter)
    assert torch.equal(bank.values, before)
    assert bank.version == version


def test_settings_that_do_not_fit_the_model_are_refused_by_field():
    with pytest.raises(ValueError, match=r"adapter\.modules: \['gate'\] not in the model.*'down'.*'up'"):
        AdapterBank(Net(), AdapterConfig(rank=2, top_layers=2, modules=["up", "gate"]), 1)
    with pytest.raises(ValueError, match=r"adapter\.modules: \['norm'\]"):
        AdapterBank(Net(), AdapterConfig(rank=2, top_layers=2, modules=["norm"]), 1)
    with pytest.raises(ValueError, match=r"adapter\.top_layers = 4: must be at most the model's 3"):
        AdapterBank(Net(), AdapterConfig(rank=2, top_layers=4, modules=["up"]), 1)
    with pytest.raises(ValueError, match=r"adapter\.rank = 9: must be at most 5"):
        AdapterBank(Net(), AdapterConfig(rank=9, top_layers=2, modules=["up"]), 1)
    with pytest.raises(ValueError, match="adapters = 0"):
        AdapterBank(Net(), CONFIG, 0)


def digest(model: nn.Module) -> str:
    total = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        total.update(name.encode() + tensor.numpy().tobytes())
    return total.hexdigest()


def test_training_leaves_the_base_as_it_was_bit_for_bit(tiny_policy):
    base, bank = tiny_policy.network.base.causal_lm, tiny_policy.network.bank
    before, values = digest(base), bank.values.clone()
    optimiser = StackedAdam(bank)
    everyone, rows = torch.ones(len(bank), dtype=torch.bool), slice(0, len(bank))
    for _ in range(3):
        log_prob, entropy = tiny_policy.evaluate(
            [" food one north", " no food"] * 6, torch.arange(6), torch.ones(12, dtype=int), torch.ones(12, 5).bool()
        )
        with bank.gathering(rows) as gradients:
            (log_prob - entropy).sum().backward()
        optimiser.step(rows, gradients, torch.full((6,), 0.01), 1.0, everyone)
    assert digest(base) == before
    assert all(p.grad is None for p in base.parameters())
    assert (bank.values != values).any(dim=1).all()
