"""The critic can never move an adapter, and begins the same for the same seed."""

import torch

from agents.value_head import ValueHead


def test_no_gradient_reaches_the_features():
    features = torch.randn(4, 8, requires_grad=True)
    head = ValueHead(8)
    head(features).sum().backward()
    assert features.grad is None
    assert all(p.grad is not None for p in head.parameters())


def test_the_same_seed_gives_the_same_head_and_another_seed_another():
    features = torch.randn(5, 16, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    first = ValueHead(16, seed=3)(features)
    torch.manual_seed(2)
    assert torch.equal(ValueHead(16, seed=3)(features), first)
    assert not torch.equal(ValueHead(16, seed=4)(features), first)
    assert first.shape == (5,)


def test_it_learns_a_function_of_its_features():
    features = torch.randn(64, 16, generator=torch.Generator().manual_seed(0))
    target = features[:, 0].sign()
    head = ValueHead(16)
    optimiser = torch.optim.Adam(head.parameters(), 1e-2)
    for _ in range(100):
        loss = (head(features) - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.1


def test_one_huge_dimension_does_not_blow_it_up_and_bfloat16_is_taken():
    features = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    head = ValueHead(16)
    torch.testing.assert_close(head(1e4 * features), head(features), rtol=1e-3, atol=1e-3)
    assert head(features.bfloat16()).dtype == torch.float32
