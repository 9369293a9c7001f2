"""Checkpoints are whole or not there."""

import pytest
import torch

from trainers.records.checkpoint import load_checkpoint, prune_checkpoints, save_checkpoint
from trainers.records.manifest import checkpoints
from trainers.records.sealed import DamagedRun


def test_what_was_saved_is_loaded(tmp_path):
    tensors = {"a": torch.randn(3, 2), "b": torch.arange(4)}
    folder = save_checkpoint(tmp_path, 7, tensors, {"generation": 7})
    loaded, state = load_checkpoint(folder)
    assert state == {"generation": 7}
    assert all(torch.equal(tensors[name], loaded[name]) for name in tensors)


def test_a_half_written_checkpoint_does_not_count(tmp_path):
    save_checkpoint(tmp_path, 1, {"a": torch.zeros(1)}, {})
    partial = tmp_path / "checkpoints" / ".gen_0002.partial"
    partial.mkdir()
    (partial / "state.json").write_text("{")
    assert list(checkpoints(tmp_path)) == [1]
    save_checkpoint(tmp_path, 2, {"a": torch.ones(1)}, {})
    assert list(checkpoints(tmp_path)) == [1, 2]
    assert not partial.exists()


def test_the_newest_and_the_best_are_kept(tmp_path):
    for generation in range(6):
        save_checkpoint(tmp_path, generation, {"a": torch.zeros(1)}, {})
        prune_checkpoints(tmp_path, keep_newest=2, best=1 if generation else 0)
    assert list(checkpoints(tmp_path)) == [1, 4, 5]


@pytest.mark.parametrize("file", ["state.json", "tensors.safetensors"])
def test_damage_is_named(tmp_path, file):
    folder = save_checkpoint(tmp_path, 1, {"a": torch.zeros(100)}, {"generation": 1})
    (folder / file).write_bytes((folder / file).read_bytes()[:-5])
    with pytest.raises(DamagedRun, match=file):
        load_checkpoint(folder)
