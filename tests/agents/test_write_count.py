"""What autograd counts grows with every write, and where it cannot be asked nothing is ever taken for unchanged."""

from collections.abc import Iterator

import pytest
import torch

from agents import write_count
from agents.write_count import count_write, is_counted, writes


@pytest.fixture(params=["as it is", "missing", "standing still"])
def counter(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A torch that counts writes, and such that do not, or not in sight."""
    if request.param == "missing":
        monkeypatch.setattr(write_count, "_version", lambda tensor: tensor.no_such_attribute)
    if request.param == "standing still":
        monkeypatch.setattr(write_count, "_version", lambda tensor: 3)
    is_counted.cache_clear()
    yield request.param
    is_counted.cache_clear()


def test_this_torch_counts(counter):
    assert is_counted() == (counter == "as it is")


@pytest.mark.parametrize(
    "write",
    [
        lambda x: x.zero_(),
        lambda x: x.__setitem__(0, 1.0),
        lambda x: x[1].view(3, 1).fill_(2.0),
        lambda x: [row.add_(1.0) for row in x],
        lambda x: torch.add(x, 1.0, out=x),
        count_write,
    ],
)
def test_every_write_is_counted_whatever_torch_tells(counter, write):
    tensor = torch.ones(2, 3)
    before = writes(tensor)
    write(tensor)
    assert writes(tensor) > before


def test_what_was_only_read_is_the_same_as_before(counter):
    tensor = torch.ones(2, 3)
    before = writes(tensor)
    tensor.sum(), tensor[0].clone().zero_()
    assert (writes(tensor) == before) == (counter == "as it is")
