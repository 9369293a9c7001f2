"""A recording is the episode that was played: what agents saw, read and remembered follows from it."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from safetensors.numpy import save_file

from agents.codecs.forage import ForageCodec
from envs import WorldConfig
from envs.observe import observe
from envs.worlds.world import ForageWorld
from trainers.records.episode import (
    Recording,
    prune_recordings,
    read_recording,
    recorded,
    recordings_in,
    states,
    write_recording,
)
from trainers.rollout import collect_rollout
from trainers.stages import States

WORLD = WorldConfig(height=9, width=12, agents=6, food=20, patches=0, energy_start=15.0, max_steps=30, night_length=8)


@pytest.fixture
def played(tiny_policy):
    """A rollout and its states."""
    rng, seen = np.random.default_rng(0), States()
    world, seeds = ForageWorld(WORLD), np.array([5, 6])
    return collect_rollout(tiny_policy, ForageCodec(3), world, seeds, rng, observers=[seen]), seen.states


@pytest.fixture
def recording(played, tmp_path):
    file = tmp_path / "recordings" / "rollout_0003.safetensors"
    write_recording(recorded(*played, WORLD, range(10, 16), generation=3), file)
    return read_recording(file)


def test_it_is_the_episode_of_the_first_world(played, recording):
    rollout, seen = played
    assert (recording.world, recording.generation, recording.ids) == (WORLD, 3, list(range(10, 16)))
    again = states(recording)
    for name in ("seed", "step", "rock", "food", "patch", "home", "position", "is_alive", "food_eaten", "lifetime"):
        np.testing.assert_array_equal(getattr(again, name), [getattr(state, name)[0] for state in seen])
    np.testing.assert_allclose(again.energy, [state.energy[0] for state in seen], rtol=1e-3)
    t, acts = rollout.trajectory, rollout.trajectory.is_alive[:, :6]
    assert acts.any(axis=1).all()
    assert not acts.all()
    texts = np.array(recording.texts, object)[recording.text]
    assert (texts == np.array(t.texts, object)[t.text[:, :6]])[acts].all()
    assert (recording.action == t.action[:, :6])[acts].all()
    chosen = np.take_along_axis(recording.probability, recording.action[..., None].astype(int), axis=2)[..., 0] / 255
    np.testing.assert_allclose(chosen[acts], np.exp(t.log_prob[:, :6])[acts], atol=0.5 / 255 + 1e-6)
    assert np.abs(recording.probability.sum(axis=2)[acts] - 255.0).max() <= 3
    np.testing.assert_allclose(recording.value[acts], t.value[:, :6][acts], rtol=1e-3, atol=1e-3)


def test_what_each_remembered_and_read_follows_from_it(recording):
    codec, memory = ForageCodec(3), None
    seen = observe(WORLD, states(recording))
    action = np.full(6, -1)
    for t, read in enumerate(recording.text):
        memory = codec.remember(memory, seen[t], action)
        alive = recording.is_alive[t]
        texts = codec.encode(seen[t], memory)
        assert [texts[i] for i in np.flatnonzero(alive)] == [recording.texts[read[i]] for i in np.flatnonzero(alive)]
        action = np.where(alive, recording.action[t].astype(int), -1)


def test_a_long_episode_of_twenty_is_small(tmp_path):
    rng, world = np.random.default_rng(0), WorldConfig(max_steps=256)
    t = np.zeros
    about = {"world": asdict(world), "generation": 0, "ids": list(range(20)), "texts": ["x" * 30] * 150}
    arrays = {"food": rng.integers(0, 2, (257, 20, 20)).astype(bool), "rock": t((20, 20), bool)}
    arrays |= {"seed": np.uint64(0), "home": t((1, 2), np.int16), "patch": t((10, 2), np.int16)}
    arrays |= {"position": t((257, 20, 2), np.uint8), "energy": t((257, 20), np.float16)}
    arrays |= {"is_alive": t((257, 20), bool)} | {k: t((257, 20), np.uint16) for k in ("food_eaten", "lifetime")}
    arrays |= {"text": t((256, 20), np.uint16), "action": t((256, 20), np.uint8)}
    arrays |= {"probability": t((256, 20, 5), np.uint8), "value": t((256, 20), np.float16)}
    about["world"] = world
    file = tmp_path / "rollout_0000.safetensors"
    write_recording(Recording(**about, **{k: np.asarray(v) for k, v in arrays.items()}), file)
    assert file.stat().st_size < 200_000


@pytest.mark.parametrize("damage", ["text", "cut", "version", "no tensors"])
def test_what_is_no_recording_is_named(recording, tmp_path, damage):
    file = tmp_path / "recordings" / "rollout_0003.safetensors"
    if damage == "text":
        file.write_text("hello")
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    elif damage == "no tensors":
        save_file({"x": np.zeros(1)}, file)
    else:
        arrays = {name: np.ascontiguousarray(v) for name, v in recording._asdict().items() if isinstance(v, np.ndarray)}
        save_file(arrays, file, {"format": "0", "about": json.dumps({})})
    with pytest.raises(ValueError, match=r"rollout_0003.safetensors: no recording that can be read"):
        read_recording(file)


HARM = {
    "a row less": lambda r: {"position": r.position[:-1]},
    "an agent less": lambda r: {"action": r.action[:, :-1]},
    "another shape": lambda r: {"energy": r.energy.ravel()},
    "no axes": lambda r: {"text": r.text[0, 0]},
    "other numbers": lambda r: {"probability": r.probability.astype(np.float32)},
    "signed": lambda r: {"lifetime": r.lifetime.astype(np.int16)},
    "another world": lambda r: {"world": replace(r.world, width=16)},
    "more agents": lambda r: {"world": replace(r.world, agents=7)},
    "a text that is not there": lambda r: {"text": r.text + len(r.texts)},
    "no texts": lambda r: {"texts": []},
    "an action that there is not": lambda r: {"action": r.action + np.uint8(5)},
    "outside": lambda r: {"position": r.position + np.uint8(100)},
    "home outside": lambda r: {"home": r.home - np.int16(100)},
    "no number": lambda r: {"energy": r.energy * np.float16("nan")},
    "few ids": lambda r: {"ids": r.ids[:-1]},
    "ids of another kind": lambda r: {"ids": [str(one) for one in r.ids]},
    "texts of another kind": lambda r: {"texts": [1] * len(r.texts)},
    "texts that are none": lambda r: {"texts": 3},
    "another generation": lambda r: {"generation": 4},
    "no generation": lambda r: {"generation": "3"},
}


@pytest.mark.parametrize("harm", HARM)
def test_what_does_not_fit_together_is_refused(recording, tmp_path, harm):
    file = tmp_path / "rollout_0003.safetensors"
    write_recording(recording, file)
    read_recording(file)
    write_recording(recording._replace(**HARM[harm](recording)), file)
    with pytest.raises(ValueError, match=r"rollout_0003.safetensors: no recording that can be read"):
        read_recording(file)


def test_what_is_not_named_as_a_recording_is_left_alone(tmp_path):
    foreign = ["notes", "held_out_x", "rollout_1", "rollout_00012", "rollout_" + 4 * "\u0661", "x_rollout_0001"]
    for name in foreign:
        (tmp_path / f"{name}.safetensors").write_bytes(bytes(2**20))
    (tmp_path / "rollout_0007.safetensors").mkdir()
    (tmp_path / "rollout_0012.safetensors").write_bytes(bytes(2**20))
    assert recordings_in(tmp_path) == [("rollout", 12)]
    prune_recordings(tmp_path, 0)
    assert sorted(file.stem for file in tmp_path.iterdir()) == sorted([*foreign, "rollout_0007"])


def test_the_oldest_go_first(tmp_path):
    for name in ("rollout_0000", "rollout_0005", "held_out_0005", "rollout_0011"):
        (tmp_path / f"{name}.safetensors").write_bytes(bytes(2**20))
    prune_recordings(tmp_path, 2)
    assert sorted(file.stem for file in tmp_path.iterdir()) == ["rollout_0005", "rollout_0011"]
    assert sorted(recordings_in(tmp_path)) == [("rollout", 5), ("rollout", 11)]
    prune_recordings(tmp_path, 0)
    assert not list(tmp_path.iterdir())
