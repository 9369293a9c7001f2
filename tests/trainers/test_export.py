"""One agent of a run, written in each format: what is in the files is that agent, and mistakes are one sentence."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from gguf import GGUFReader
from gguf_files import write_gguf
from safetensors.torch import load_file

from agents.codecs.forage import ForageCodec
from agents.codecs.others import FrozenLakeCodec
from agents.formats.gguf import Shape, llama_tensors
from agents.types import UserError
from trainers import export as module
from trainers.cli.parser import parse
from trainers.export import FORMATS, Agent, adapter_folder, codec_of, export, main, open_agent
from trainers.records.sealed import sealed_text, unsealed_text
from trainers.train import train

TINY = Shape("llama", layers=4, heads=4, key_value_heads=2)


@pytest.fixture(scope="module")
def run_dir(tiny_model, tmp_path_factory):
    """A finished run of three generations, the first and the last exported; its model has a GGUF file."""
    box = tmp_path_factory.mktemp("export")
    shutil.copytree(tiny_model, box / "model")
    write_gguf(box / "model", box / "model" / "model.gguf")
    arguments = [
        *("--model.name", str(box / "model"), "--model.dtype", "float32", "--env.agents", "6"),
        *("--adapter.top_layers", "2", "--adapter.rank", "2"),
        *("--env.width", "9", "--env.height", "9", "--env.food", "12", "--env.max_steps", "20", "--generations", "3"),
        *("--evolution.parents", "3", "--evolution.elites", "2", "--evolution.episodes", "2"),
        *("--held_out_episodes", "1", "--log.episode_every", "0", "--run_dir", str(box / "run")),
    ]
    train(parse(arguments)[0])
    return box / "run"


def saved(folder) -> dict[str, torch.Tensor]:
    tensors = load_file(folder / "adapter_model.safetensors")
    return {name.removeprefix("base_model.model."): tensor for name, tensor in tensors.items()}


def test_an_agent_is_found_by_its_slot_or_by_its_genome_s_id(run_dir):
    ids = {}
    for generation in (0, 2):
        for slot in range(6):
            folder = adapter_folder(run_dir, str(slot), generation)
            assert folder == run_dir / "adapters" / f"gen_{generation:04d}" / f"agent_{slot:02d}"
            ids[generation, slot] = re.search(r"Agent (\d+),", (folder / "README.md").read_text())[1]
            assert adapter_folder(run_dir, f"id:{ids[generation, slot]}", generation) == folder
    assert ids[2, 0] != "0" or ids[2, 5] != "5", "somebody must have been born"
    assert adapter_folder(run_dir, "3", None) == run_dir / "adapters" / "gen_0002" / "agent_03"


def test_peft_is_the_adapter_s_folder(run_dir, tmp_path):
    out = export(run_dir, "4", "peft", 0, tmp_path / "agent")
    source = run_dir / "adapters" / "gen_0000" / "agent_04"
    assert out == tmp_path / "agent"
    assert {f.name: f.read_bytes() for f in out.iterdir()} == {f.name: f.read_bytes() for f in source.iterdir()}


def test_gguf_holds_that_agent_s_tensors_and_tells_how_to_ask_it(run_dir):
    out = export(run_dir, "4", "gguf", 0)
    assert out == run_dir / "exports" / "gen_0000-agent_04.lora.gguf"
    expected = llama_tensors(saved(run_dir / "adapters" / "gen_0000" / "agent_04"), TINY)
    reader = GGUFReader(out)
    assert {t.name for t in reader.tensors} == expected.keys()
    for tensor in reader.tensors:
        assert np.array_equal(tensor.data, expected[tensor.name])
    assert reader.fields["adapter.lora.alpha"].contents() == 16, "llama.cpp divides it by the rank itself"
    words = json.loads(out.with_name(out.name + ".json").read_text())
    assert words["alora_invocation_tokens"] == reader.fields["adapter.alora.invocation_tokens"].contents()
    assert (words["instructions"], words["answer"]) == (ForageCodec.instructions, "go")
    assert words["action_words"] == list(ForageCodec.action_words)
    assert len(words["action_ids"]) == 5
    card = out.with_name(out.name + ".md").read_text()
    assert f"llama-server -m BASE.gguf --lora {out.name}" in card
    request = json.loads(re.search(r"-d '(.*)'", card)[1])
    assert request["prompt"].startswith(ForageCodec.instructions)
    assert [token for token, _ in request["logit_bias"]] == words["action_ids"]


def test_merged_gguf_is_the_base_with_that_agent_in_it(run_dir, tmp_path):
    out = export(run_dir, "4", "merged-gguf", 0, tmp_path / "new" / "agent.gguf")
    base = {t.name: t.data for t in GGUFReader(run_dir.parent / "model" / "model.gguf").tensors}
    lora = llama_tensors(saved(run_dir / "adapters" / "gen_0000" / "agent_04"), TINY)
    changed = 0
    for tensor in GGUFReader(out).tensors:
        expected = base[tensor.name]
        if f"{tensor.name}.lora_a" in lora:
            expected = expected + 8 * lora[f"{tensor.name}.lora_b"] @ lora[f"{tensor.name}.lora_a"]  # alpha 16, rank 2
            changed += 1
        np.testing.assert_allclose(tensor.data, expected, atol=1e-6)
    assert changed == 8
    assert "answers otherwise than the agent" in out.with_name("agent.gguf.md").read_text()


def test_onnx_answers_as_the_agent_does(run_dir, tmp_path):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    folder = export(run_dir, "4", "onnx", 0, tmp_path / "agent")
    network = open_agent(run_dir, run_dir / "adapters" / "gen_0000" / "agent_04", "it").network
    session = runtime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    for text in (" food two north one east", " no food"):
        ids = np.array([[*network.base.tokens(text), network.answer_id]])
        (logits,) = session.run(["logits"], {"input_ids": ids})
        np.testing.assert_allclose(logits[0], network.plain_logits(text, 0), rtol=1e-4, atol=1e-4)
    assert "gen_0000-agent_04" in (folder / "README.md").read_text()


@pytest.mark.parametrize("absent", ["onnx", "onnxscript"])
def test_onnx_without_its_package_says_how_to_get_it(absent, run_dir, tmp_path, monkeypatch):
    monkeypatch.setattr("agents.backends.find_spec", lambda name: None if name == absent else "installed")
    with pytest.raises(UserError, match=rf"format = 'onnx': needs `pip install -e '\.\[onnx\]'` \({absent} is not"):
        export(run_dir, "4", "onnx", 0, tmp_path / "agent")


@pytest.mark.parametrize("tokens", ["text"])
@pytest.mark.parametrize("form", ["gguf", "merged-gguf", "onnx"])
def test_an_agent_whose_adapter_acts_on_the_whole_text_stays_with_peft_and_torch(
    form, run_dir, tiny_policy, tmp_path, monkeypatch
):
    agent = Agent(tmp_path, tiny_policy.network, ForageCodec(3), "it")
    monkeypatch.setattr(module, "open_agent", lambda *_: agent)
    monkeypatch.setattr("agents.backends.find_spec", lambda name: name)
    with pytest.raises(UserError, match=r"adapter.tokens = 'text': must be 'answer'"):
        export(run_dir, "4", form, 0, tmp_path / "agent")
    assert not (tmp_path / "agent").exists()


def test_the_words_are_those_of_the_run_s_world():
    assert codec_of("forage", "") is ForageCodec
    assert codec_of("FrozenLake-v1", "") is FrozenLakeCodec
    assert codec_of("FrozenLake-v1", "agents.codecs.forage:ForageCodec") is ForageCodec
    with pytest.raises(UserError, match=r"env.codec = 'nowhere:At'"):
        codec_of("forage", "nowhere:At")
    with pytest.raises(UserError, match=r"env.id = 'CartPole-v1'"):
        codec_of("CartPole-v1", "")


def said(arguments, capsys) -> str:
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    assert end.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("agent", "more", "complaint"),
    [
        ("6", [], "agent = '6': must be a slot between 0 and 5"),
        ("-1", [], "agent = '-1': must be a slot between 0 and 5"),
        ("id:9999", [], "agent = 'id:9999': must be"),
        ("best", [], "agent = 'best': must be"),
        ("0", ["--generation", "1"], "generation = 1: must be one that was exported: 0, 2"),
        ("0", ["--out", "."], "out = '.': must be a path where nothing is yet"),
    ],
)
def test_a_mistake_is_one_sentence(run_dir, capsys, agent, more, complaint):
    error = said([run_dir, f"--agent={agent}", "--format", "gguf", *more], capsys)
    assert error.startswith(f"error: {complaint}")
    assert error.count("\n") == 1


def spoiled(run_dir, tmp_path):
    shutil.copytree(run_dir, tmp_path / "spoiled", ignore=shutil.ignore_patterns("checkpoints", "exports"))
    return tmp_path / "spoiled"


def reconfigure(folder, old, new):
    file = folder / "config.yaml"
    file.write_text(sealed_text(unsealed_text(file.read_text(), file).replace(old, new)))


@pytest.mark.parametrize("content", ["env: [", "env: 3\n", "model: {name: 3, dtype: float8}\nadapter: {}\n"])
def test_a_damaged_config_is_named(run_dir, tmp_path, capsys, content):
    folder = spoiled(run_dir, tmp_path)
    (folder / "config.yaml").write_text(sealed_text(content) if content.endswith("\n") else content)
    error = said([folder, "--agent", "0", "--format", "gguf"], capsys)
    assert (
        "config.yaml: damaged, or made by an earlier version" in error
        or "config.yaml: made by another version" in error
        or "model.dtype = 'float8'" in error
    )
    assert error.count("\n") == 1


def test_an_adapter_that_does_not_fit_its_run_is_named(run_dir, tmp_path, capsys):
    folder = spoiled(run_dir, tmp_path)
    reconfigure(folder, "rank: 2", "rank: 4")
    error = said([folder, "--agent", "0", "--format", "gguf"], capsys)
    assert "agent_00: r = 2: must be 4" in error


def test_a_run_without_adapters_or_lineage_is_named(run_dir, tmp_path, capsys):
    assert "holds no exported adapters" in said([tmp_path, "--agent", "0", "--format", "peft"], capsys)
    folder = spoiled(run_dir, tmp_path)
    (folder / "lineage.jsonl").write_text("{\n")
    assert "lineage.jsonl, line 1: damaged" in said([folder, "--agent", "id:3", "--format", "peft"], capsys)


def test_merging_into_a_folder_without_a_gguf_file_says_what_to_do(run_dir, tiny_model, tmp_path, capsys):
    folder = spoiled(run_dir, tmp_path)
    reconfigure(folder, str(run_dir.parent / "model"), str(tiny_model))
    error = said([folder, "--agent", "0", "--format", "merged-gguf"], capsys)
    assert "has 0 GGUF files, and llama.cpp needs one; write it with llama.cpp's convert_hf_to_gguf.py" in error


def test_the_command_prints_where_it_wrote(run_dir, tmp_path, capsys):
    main([str(run_dir), "--agent", "1", "--format", "peft", "--out", str(tmp_path / "one")])
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "one")
    assert (tmp_path / "one" / "adapter_config.json").is_file()


def test_an_opened_agent_answers_as_it_did_in_the_run(run_dir):
    from trainers.records.opening import open_run

    population, _, _ = open_run(run_dir, 2)
    agent = open_agent(run_dir, adapter_folder(run_dir, "5", 2), "five")
    texts = [" no food", " food here"]
    theirs = population.policy.network.answer(texts, np.array([5, 5]))
    np.testing.assert_allclose(agent.network.answer(texts, np.zeros(2, int)), theirs, atol=1e-5)


def test_every_format_is_offered():
    assert set(FORMATS) == {"peft", "gguf", "merged-gguf", "onnx"}
    assert all(kind in module.__doc__ for kind in FORMATS)
