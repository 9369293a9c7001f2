"""The critic's Adam steps as torch's does."""

import torch
from torch import nn

from trainers.learning.adam import Adam


def test_steps_are_those_of_torch():
    torch.manual_seed(0)
    ours, theirs = nn.Linear(7, 3), nn.Linear(7, 3)
    theirs.load_state_dict(ours.state_dict())
    mine, reference = Adam(ours.parameters(), 1e-2), torch.optim.Adam(theirs.parameters(), 1e-2)
    for _ in range(20):
        x = torch.randn(5, 7)
        for module, optimiser in ((ours, mine), (theirs, reference)):
            optimiser.zero_grad()
            module(x).square().mean().backward()
            optimiser.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    for number, moments in reference.state_dict()["state"].items():
        for name, moment in moments.items():
            torch.testing.assert_close(mine.moments[number][name], moment, rtol=1e-4, atol=1e-7)


def test_a_parameter_without_a_gradient_stays_where_it_is():
    module = nn.Linear(2, 2)
    before = module.weight.clone()
    optimiser = Adam(module.parameters(), 0.1)
    optimiser.step()
    assert torch.equal(module.weight, before)
    assert not optimiser.moments
