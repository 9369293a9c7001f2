"""The same numbers give the same product wherever in memory they lie."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import agents, torch
torch.set_num_threads({threads})
generator, wrong = torch.Generator().manual_seed(0), 0
for rows, inner, columns in ((1, 32, 64), (3, 32, 48), (5, 576, 5), (7, 64, 64), (20, 576, 1536), (1, 576, 64)):
    left, right = (torch.randn(n, inner, generator=generator) for n in (rows, columns))
    product = torch.nn.functional.linear(left, right)
    for places in range(1, 16):
        moved = [torch.empty(x.numel() + 16)[places : places + x.numel()].view(x.shape).copy_(x) for x in (left, right)]
        wrong += not torch.equal(torch.nn.functional.linear(*moved), product)
print(wrong)
"""


@pytest.mark.parametrize("threads", [1, 2])
def test_a_product_does_not_depend_on_where_its_factors_lie(threads):
    """In a process of its own, as MKL asks for its mode once."""
    alone = {name: value for name, value in os.environ.items() if name != "MKL_CBWR"}
    program = [sys.executable, "-c", PROGRAM.format(threads=threads)]
    done = subprocess.run(program, capture_output=True, text=True, check=True, env=alone)
    assert done.stdout.strip() == "0"
