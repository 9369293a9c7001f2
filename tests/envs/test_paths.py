"""Distances agree with a walk of a queue."""

from collections import deque

import numpy as np

from envs.paths import UNREACHED, distances


def queue_distances(is_free, source):
    """Breadth-first search, one cell at a time."""
    found = {source: 0}
    queue = deque([source])
    while queue:
        row, column = queue.popleft()
        for cell in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
            on_grid = 0 <= cell[0] < is_free.shape[0] and 0 <= cell[1] < is_free.shape[1]
            if on_grid and is_free[cell] and cell not in found:
                found[cell] = found[row, column] + 1
                queue.append(cell)
    return found


def test_distances_agree_with_breadth_first_search_in_every_grid_of_a_batch():
    generator = np.random.default_rng(0)
    is_free = generator.random((12, 7, 9)) > 0.35
    is_source = np.zeros_like(is_free)
    sources = [tuple(np.argwhere(grid)[generator.integers(grid.sum())]) for grid in is_free]
    for k, source in enumerate(sources):
        is_source[k][source] = True
    result = distances(is_free, is_source)
    for k, source in enumerate(sources):
        expected = np.full((7, 9), UNREACHED)
        for cell, steps in queue_distances(is_free[k], source).items():
            expected[cell] = steps
        assert np.array_equal(result[k], expected)


def test_a_source_inside_rock_reaches_nothing():
    is_source = np.eye(4, dtype=bool)[None]
    assert (distances(np.zeros((1, 4, 4), bool), is_source) == UNREACHED).all()
