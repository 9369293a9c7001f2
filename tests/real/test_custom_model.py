"""The custom model with SmolLM2's own tokenizer lives through a generation of the ordinary trainer."""

import json

import pytest

from agents.codecs.forage import ForageCodec
from agents.types import ModelConfig
from agents.weights.base_model import load_base_model
from trainers.cli.parser import parse
from trainers.train import train

pytestmark = pytest.mark.real


def test_it_speaks_the_teachers_tokens():
    teacher, student = (load_base_model(ModelConfig(name=name)) for name in ("smollm2-135m", "custom-50m"))
    text = ForageCodec.instructions + " food two north one east, rock north go"
    assert student.tokens(text) == teacher.tokens(text)
    assert student.beginning == teacher.beginning
    sizes = [base.causal_lm.get_input_embeddings().num_embeddings for base in (teacher, student)]
    assert sizes == [49152, 49152]
    assert sum(p.numel() for p in student.causal_lm.parameters()) == 25_174_272


def test_one_generation_of_the_trainer_runs_on_it(tmp_path):
    run_dir = tmp_path / "run"
    arguments = [
        *("--model.name", "custom-50m", "--adapter.top_layers", "4", "--env.agents", "4", "--env.width", "9"),
        *("--env.height", "9", "--env.food", "12", "--env.max_steps", "16", "--evolution.parents", "2"),
        *("--evolution.elites", "1", "--evolution.episodes", "1", "--held_out_episodes", "1", "--generations", "1"),
    ]
    train(parse([*arguments, "--run_dir", str(run_dir)])[0])
    (generation,) = (json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines())
    assert generation["env_steps"] > 0
    assert generation["approx_kl"] > 0, "the adapters must have moved"
    assert (run_dir / "adapters" / "gen_0000" / "agent_03" / "adapter_model.safetensors").is_file()
