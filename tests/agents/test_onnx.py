"""ONNX Runtime answers as the network does, with the bank's adapters as they are; an exported agent does too."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from agents.backends import open_backend
from agents.backends.onnx import Onnx
from agents.codecs.forage import ForageCodec
from agents.formats import onnx as onnx_format
from agents.formats.onnx import export, graph_folder
from agents.policy import make_policy
from agents.policy_network import PolicyNetwork
from agents.types import AdapterConfig, ModelConfig, UserError
from envs import WorldConfig

TEXTS = [
    " food two north one east, rock north",
    " no food",
    " food here",
    " no food, home south west, rock west",
    " food was north west",
]
NEAR = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache folder of this module's own, so that each graph of the tiny models is written once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TERRARIUM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def network(cache, tiny_policy) -> PolicyNetwork:
    return tiny_policy.network


def probabilities(logits: np.ndarray) -> np.ndarray:
    return torch.from_numpy(logits).softmax(-1).numpy()


@pytest.mark.parametrize(
    "adapters",
    [
        [3, -1, 0, 3, 5, -1, 3, 2, 0, 1],
        [0, 1, 2, 3, 4, 5],
        [0, 1, 2, 3, 4, 5, 5, 4],
        [-1, -1],
        [4],
    ],
    ids=["mixed", "each once", "all", "bare", "one"],
)
@pytest.mark.parametrize("at_once", [640, 4, 1])
def test_answers_are_those_of_the_network(network, adapters, at_once):
    texts = [TEXTS[i % 5] for i in range(len(adapters))]
    expected = network.answer(texts, np.array(adapters))
    network.rows_at_once = at_once
    answers = Onnx(network).answer(texts, np.array(adapters))
    assert answers.dtype == np.float32
    np.testing.assert_allclose(answers, expected, **NEAR)


def test_only_so_many_texts_are_held_together(network, monkeypatch):
    network.rows_at_once, onnx, asked = 5, Onnx(network), []
    recall = onnx.cache.recall
    monkeypatch.setattr(onnx.cache, "recall", lambda texts: asked.append(len(texts)) or recall(texts))
    onnx.answer(TEXTS[:4] * 3, np.repeat([0, 1, 2], 4))
    assert asked == [3] * 4
    asked.clear()
    onnx.answer(TEXTS * 4, np.full(len(TEXTS) * 4, -1))
    assert max(asked) <= 5


def test_answers_do_not_depend_on_what_was_read_before_or_beside(network):
    onnx, agents = Onnx(network), np.array([2, 0, 1, 2, 5])
    alone = [onnx.answer([text], agent[None])[0] for text, agent in zip(TEXTS, agents, strict=True)]
    np.testing.assert_allclose(onnx.answer(TEXTS, agents), alone, **NEAR)
    np.testing.assert_allclose(Onnx(network).answer(TEXTS, agents), alone, **NEAR)


def test_a_change_of_the_bank_changes_the_answers(network):
    onnx, everyone = Onnx(network), np.arange(5)
    before = onnx.answer(TEXTS, everyone)
    network.bank.values[:5] *= 1.5
    after = onnx.answer(TEXTS, everyone)
    assert np.abs(after - before).max(axis=1).min() > 0.01
    np.testing.assert_allclose(after, network.answer(TEXTS, everyone), **NEAR)


def test_a_text_is_read_once(network):
    onnx = Onnx(network)
    onnx.answer(TEXTS * 2, np.arange(10) % 6)
    assert onnx.cache.take_counts()[1] == 5
    onnx.answer(TEXTS, np.arange(5)[::-1])
    assert onnx.cache.take_counts()[1] == 0


def test_nothing_asked_is_nothing_answered(network):
    assert Onnx(network).answer([], np.array([], int)).shape == (0, 5)


def test_int8_answers_nearly_the_same(network):
    everyone = np.arange(5)
    exact, rounded = (Onnx(network, quantised=q).answer(TEXTS, everyone) for q in (False, True))
    assert 0 < np.abs(probabilities(exact) - probabilities(rounded)).max() < 0.1


def test_it_is_opened_by_name_and_graphs_are_written_once(network, monkeypatch):
    graph_folder(network)
    monkeypatch.setattr(onnx_format, "_write", lambda *_: pytest.fail("written again"))
    assert isinstance(open_backend("onnx", network), Onnx)


def test_other_weights_are_other_graphs(network, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_format, "_write", lambda *_: None)
    (tmp_path / "tiny-llama").mkdir()
    for file in tiny_model.iterdir():
        (tmp_path / "tiny-llama" / file.name).write_bytes(file.read_bytes())
    base = network.base._replace(folder=tmp_path / "tiny-llama")
    other = PolicyNetwork(base, network.bank, ForageCodec(3))
    assert graph_folder(other) == graph_folder(network)
    weights = tmp_path / "tiny-llama" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert graph_folder(other) != graph_folder(network)


def test_what_cannot_be_written_is_told_and_leaves_nothing(network, monkeypatch, tmp_path):
    def fail(*_, **__):
        raise torch.onnx.OnnxExporterError("no such operator")

    monkeypatch.setenv("TERRARIUM_CACHE", str(tmp_path))
    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(UserError, match=r"tiny-llama.*: llama cannot be written as ONNX: no such operator"):
        Onnx(network)
    assert list((tmp_path / "onnx").iterdir()) == []


@pytest.mark.parametrize("tokens", ["text"])
def test_adapters_on_the_whole_text_are_refused(network, tmp_path):
    with pytest.raises(UserError, match=r"adapter.tokens = 'text': must be 'answer' for ONNX Runtime"):
        Onnx(network)
    with pytest.raises(UserError, match=r"adapter.tokens = 'text': must be 'answer' for an agent in ONNX"):
        export(network, 0, tmp_path / "agent")
    assert not (tmp_path / "agent").exists()


def test_a_text_that_is_too_long_is_refused(network):
    with pytest.raises(UserError, match="tokens: must be at most 256 for"):
        Onnx(network).answer([" no food" * 150], np.array([0]))


@pytest.fixture(scope="module")
def left_home(cache, tiny_model, tmp_path_factory) -> tuple[PolicyNetwork, Path]:
    """A network, and its agent 1 for itself in a folder."""
    config = AdapterConfig(rank=2, alpha=4.0, top_layers=2)
    model = ModelConfig(name=str(tiny_model), dtype="float32")
    network = make_policy(model, config, ForageCodec(3), agents=2, seed=0).network
    network.bank.values += 0.3 * torch.randn(network.bank.values.shape, generator=torch.Generator().manual_seed(1))
    return network, export(network, 1, tmp_path_factory.mktemp("home") / "agent", card="It lived well.")


def script_of(folder: Path) -> str:
    (script,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    return script


def chances_after(text: str, folder: Path) -> dict[str, float]:
    """What the script in the folder's README prints."""
    told = subprocess.run(
        [sys.executable, "-c", script_of(folder), text], cwd=folder, check=True, capture_output=True, text=True
    ).stdout
    return {word: float(chance) for word, chance in (line.split() for line in told.splitlines())}


def test_the_script_beside_an_agent_gives_its_choices(left_home):
    network, folder = left_home
    for text in TEXTS:
        chances = chances_after(text, folder)
        assert list(chances) == ["stay", "north", "south", "east", "west"]
        expected = probabilities(network.answer([text], np.array([1])))[0]
        np.testing.assert_allclose(list(chances.values()), expected, atol=1e-4)
    assert np.abs(expected - probabilities(network.answer([text], np.array([-1])))[0]).max() > 0.01


def test_the_script_is_short_and_needs_no_torch(left_home):
    script = script_of(left_home[1])
    nodes = [node for node in ast.walk(ast.parse(script)) if isinstance(node, ast.Import)]
    assert {name.name for node in nodes for name in node.names} == {"json", "sys", "numpy", "onnxruntime", "tokenizers"}
    assert len([line for line in script.splitlines() if line and line[0] != "#"]) <= 15


def test_the_folder_of_an_agent_holds_what_its_readme_names(left_home):
    folder = left_home[1]
    assert sorted(file.name for file in folder.iterdir()) == [
        "README.md",
        "agent.json",
        "model.onnx",
        "model.onnx.data",
        "tokenizer.json",
    ]
    assert "It lived well." in (folder / "README.md").read_text()


def test_an_agent_that_is_not_there_cannot_leave(network, tmp_path):
    with pytest.raises(IndexError, match="adapter 6: must be between 0 and 5"):
        export(network, 6, tmp_path / "agent")
    assert not (tmp_path / "agent").exists()


@pytest.fixture(scope="module")
def real_network() -> PolicyNetwork:
    """Four agents of the default shape, whose adapters move the logits by more than one."""
    policy = make_policy(
        ModelConfig(dtype="float32"), AdapterConfig(), ForageCodec(WorldConfig().view_radius), agents=4, seed=0
    )
    bank = policy.network.bank
    bank.values += 0.06 * torch.randn(bank.values.shape, generator=torch.Generator().manual_seed(0))
    return policy.network


REAL_TEXTS = [
    f"{food}{rest}"
    for food in (" food two north one east", " food three west", " food was south east", " no food", " night, no food")
    for rest in ("", ", rock north", ", going west", ", home north west", ", rock south, rock east")
]


@pytest.mark.real
def test_smollm2_answers_the_same_in_float32_and_nearly_so_in_int8(real_network):
    texts, agents = REAL_TEXTS * 5, np.repeat([0, 1, 2, 3, -1], len(REAL_TEXTS))
    expected = probabilities(real_network.answer(texts, agents))
    exact = probabilities(Onnx(real_network).answer(texts, agents))
    assert np.abs(exact - expected).max() < 1e-4
    rounded = probabilities(Onnx(real_network, quantised=True).answer(texts, agents))
    assert 1e-6 < (expected * np.log(expected / rounded)).sum(axis=1).mean() < 0.01


@pytest.mark.real
def test_an_agent_of_smollm2_that_left_home_chooses_the_same(real_network, tmp_path):
    folder = export(real_network, 2, tmp_path)
    for text in REAL_TEXTS[:3]:
        expected = probabilities(real_network.answer([text], np.array([2])))[0]
        np.testing.assert_allclose(list(chances_after(text, folder).values()), expected, atol=2e-4)
