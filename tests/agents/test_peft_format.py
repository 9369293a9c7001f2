"""What is saved is loaded exactly, PEFT reads it as we do, and what does not fit is refused by file."""

import json
import os
import shutil
from dataclasses import replace
from typing import get_args

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

from agents.formats.peft import load_adapter, save_adapter
from agents.lora import AdapterBank
from agents.types import AdapterConfig, Tokens

TEXTS = [" food two north one east, rock north", " no food", " no food, home south west"]


@pytest.fixture
def invocations(tiny_policy) -> dict[str, int]:
    """The token from which adapters act, by mode."""
    return tiny_policy.network.invocations


@pytest.fixture
def bank(tiny_policy) -> AdapterBank:
    return tiny_policy.network.bank


def saved(policy, folder, agent: int = 2):
    network = policy.network
    return save_adapter(
        folder,
        network.bank.read(agent),
        network.bank.config,
        base_model="some/base",
        layers=4,
        invocations=network.invocations,
        card="It lived well.",
    )


@pytest.fixture
def folder(tiny_policy, tmp_path):
    return saved(tiny_policy, tmp_path / "deep" / "agent")


def test_what_is_loaded_is_what_was_saved_to_the_last_bit(bank, folder, invocations):
    loaded, adapter = load_adapter(folder, bank.shapes, bank.config, invocations), bank.read(2)
    assert loaded.keys() == adapter.keys()
    assert all(torch.equal(loaded[name], adapter[name]) for name in adapter)


def test_saving_again_replaces(tiny_policy, bank, folder, invocations):
    saved(tiny_policy, folder, agent=5)
    loaded, adapter = load_adapter(folder, bank.shapes, bank.config, invocations), bank.read(5)
    assert all(torch.equal(loaded[name], adapter[name]) for name in adapter)


@pytest.mark.parametrize("tokens", get_args(Tokens))
def test_the_config_says_what_peft_needs(tiny_policy, folder, tokens):
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["peft_type"] == "LORA"
    assert config["task_type"] == "CAUSAL_LM"
    assert config["base_model_name_or_path"] == "some/base"
    assert (config["r"], config["lora_alpha"], config["lora_dropout"], config["bias"]) == (2, 4.0, 0.0, "none")
    assert config["target_modules"] == ["q_proj", "v_proj", "o_proj", "down_proj"]
    assert config["layers_to_transform"] == [2, 3]
    network = tiny_policy.network
    assert config["alora_invocation_tokens"] == [
        {"answer": network.answer_id, "text": network.instruction_ids[-1]}[tokens]
    ]
    card = (folder / "README.md").read_text()
    assert "base_model: some/base" in card
    assert "It lived well." in card
    acts = {"answer": "on the last token of the prompt only", "text": "from the last of the instructions on"}
    assert acts[tokens] in card


def prompts_of(network) -> list[torch.Tensor]:
    return [torch.tensor([[*network.instruction_ids, *network.base.tokens(text), network.answer_id]]) for text in TEXTS]


@pytest.mark.parametrize("tokens", get_args(Tokens))
def test_peft_answers_as_the_bank_does(tiny_policy, tiny_model, tmp_path):
    network = tiny_policy.network
    base = LlamaForCausalLM.from_pretrained(tiny_model)
    for agent in (1, 4):
        logits = network.action_logits(TEXTS, torch.tensor([agent]))
        assert (logits - network.action_logits(TEXTS, None)).abs().max() > 0.1
        model = peft.PeftModel.from_pretrained(base, saved(tiny_policy, tmp_path / "agent", agent))
        for prompt, ours in zip(prompts_of(network), logits, strict=True):
            with torch.no_grad():
                theirs = model(input_ids=prompt).logits[0, -1, network.action_ids]
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
        base = model.unload()


@pytest.mark.parametrize("tokens", get_args(Tokens))
def test_gradients_are_those_of_peft(tiny_policy, tiny_model, tmp_path):
    network, base = tiny_policy.network, LlamaForCausalLM.from_pretrained(tiny_model)
    with network.bank.gathering(slice(4, 5)) as gradients:
        network.action_logits(TEXTS, torch.tensor([4])).square().sum().backward()
    ours = network.bank.unflatten(gradients[0])
    model = peft.PeftModel.from_pretrained(base, saved(tiny_policy, tmp_path / "agent", 4), is_trainable=True)
    for prompt in prompts_of(network):
        model(input_ids=prompt).logits[0, -1, network.action_ids].square().sum().backward()
    parameters = dict(model.named_parameters())
    for name, gradient in ours.items():
        theirs = parameters[f"base_model.model.{name.removesuffix('.weight')}.default.weight"].grad
        torch.testing.assert_close(gradient, theirs, rtol=1e-3, atol=1e-4 * float(theirs.abs().max()))


@pytest.mark.parametrize("tokens", get_args(Tokens))
def test_an_adapter_of_the_other_mode_is_refused_by_name(bank, folder, invocations, tokens):
    (other,) = set(get_args(Tokens)) - {tokens}
    with pytest.raises(ValueError, match=rf"the adapter acts on .*: adapter.tokens must be '{tokens}', not '{other}'"):
        load_adapter(folder, bank.shapes, replace(bank.config, tokens=other), invocations)


def absent(folder):
    shutil.rmtree(folder)


def no_config(folder):
    (folder / "adapter_config.json").unlink()


def broken_config(folder):
    (folder / "adapter_config.json").write_text("{")


def damaged(folder):
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5])


def unreadable(content: bytes):
    return lambda folder: (folder / "adapter_config.json").write_bytes(content)


def other_config(**changes):
    def change(folder):
        file = folder / "adapter_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


def other_tensors(change):
    def rewrite(folder):
        tensors = load_file(folder / "adapter_model.safetensors")
        change(tensors)
        save_file(tensors, folder / "adapter_model.safetensors")

    return rewrite


def only_pickle(folder):
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")


def pipe(name: str):
    def put_pipe(folder):
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return put_pipe


def huge(name: str):
    """As large as a disk, and empty: it takes no room."""
    return lambda folder: os.truncate(folder / name, 4 * 10**9)


Q_PROJ = "base_model.model.model.layers.3.self_attn.q_proj.lora_A.weight"


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (absent, "not a readable PEFT adapter folder"),
        (no_config, "not a readable PEFT adapter folder: .*adapter_config.json"),
        (broken_config, "not a readable PEFT adapter folder"),
        (damaged, "not a readable PEFT adapter folder"),
        (other_tensors(lambda t: t.pop(Q_PROJ)), r"missing \['model.layers.3.self_attn.q_proj.lora_A.weight'\]"),
        (other_tensors(lambda t: t.update(stranger=torch.zeros(1))), r"unknown \['stranger'\]"),
        (other_tensors(lambda t: t.update({Q_PROJ: torch.zeros(3, 32)})), r"q_proj.lora_A.weight has shape \(3, 32\)"),
        (other_tensors(lambda t: t[Q_PROJ].fill_(torch.nan)), "q_proj.lora_A.weight holds NaN"),
        (other_tensors(lambda t: t[Q_PROJ].fill_(-torch.inf)), "q_proj.lora_A.weight holds NaN or infinity"),
        (
            other_tensors(lambda t: t.update({Q_PROJ: t[Q_PROJ].double() * 1e300})),
            "q_proj.lora_A.weight holds NaN or inf",
        ),
        (
            other_tensors(lambda t: t.update({Q_PROJ: t[Q_PROJ].int()})),
            r"q_proj.lora_A.weight is of int32: must be float",
        ),
        (
            other_tensors(lambda t: t.update({Q_PROJ: t[Q_PROJ].to(torch.float8_e4m3fn)})),
            "is of float8_e4m3fn: must be",
        ),
        (
            other_tensors(lambda t: t.update({Q_PROJ[len("base_model.model.") :]: t.pop(Q_PROJ)})),
            "names must begin with 'base_model.model.'",
        ),
        (only_pickle, r"adapter_model\.bin is a pickle, which can run code and is never opened"),
        (pipe("adapter_config.json"), r"adapter_config\.json must be an ordinary file"),
        (pipe("adapter_model.safetensors"), r"adapter_model\.safetensors must be an ordinary file"),
        (huge("adapter_config.json"), r"adapter_config\.json has 4\d{9} bytes: must have at most"),
        (huge("adapter_model.safetensors"), r"adapter_model\.safetensors has 4\d{9} bytes: must have at most"),
        (unreadable(b"[]"), r"adapter_config\.json is a list: must be a JSON object"),
        (unreadable(b"\xff\xfe"), "not a readable PEFT adapter folder"),
        (unreadable(b"[" * 100_000), "not a readable PEFT adapter folder"),
        (unreadable(b'{"r": 1' + b"0" * 5000 + b"}"), "not a readable PEFT adapter folder"),
    ],
)
def test_an_adapter_that_cannot_be_used_is_refused_by_folder(bank, folder, spoil, complaint, invocations):
    spoil(folder)
    with pytest.raises(ValueError, match=complaint) as caught:
        load_adapter(folder, bank.shapes, bank.config, invocations)
    assert str(folder) in str(caught.value)


OTHERS = [
    *[("r", value, "must be 2") for value in (4, 0, -2, "2", None, True, 10**400)],
    *[("lora_alpha", value, "must be 4.0") for value in (5.0, float("nan"), 10**400, None)],
    *[("peft_type", value, "must be 'LORA'") for value in ("IA3", "ADALORA", None)],
    *[("bias", value, "must be 'none'") for value in ("all", "lora_only")],
    *[("layers_to_transform", value, r"must be \[2, 3\]") for value in ([1, 2], [3], 3, None, "23", [[2], [3]])],
    ("target_modules", ["q_proj"], r"must be \['down_proj', 'o_proj', 'q_proj', 'v_proj'\]"),
    ("target_modules", ".*_proj", r"must be \['down_proj', 'o_proj', 'q_proj', 'v_proj'\]"),
    *[
        ("init_lora_weights", value, "must be True or False or 'gaussian' or 'orthogonal' or 'eva'")
        for value in ("pissa", "pissa_niter_4", "olora", "corda", "loftq", "lora_ga", "mica")
    ],
    *[("layers_pattern", value, r"must be None or .* or 'layers'") for value in ("blocks", ["h"], [[0, 2]])],
    *[
        (name, True, "must be absent")
        for name in ("use_rslora", "use_dora", "use_qalora", "fan_in_fan_out", "lora_bias")
    ],
    *[(name, {"q_proj": 3}, "must be absent") for name in ("rank_pattern", "alpha_pattern", "loftq_config")],
    *[(name, ["lm_head"], "must be absent") for name in ("modules_to_save", "exclude_modules", "target_parameters")],
    *[(name, [[0, 2]], "must be absent") for name in ("layer_replication", "trainable_token_indices")],
    ("something_of_tomorrow", 1, "must be absent"),
    *[("alora_invocation_tokens", value, "for it to act on the last token") for value in (None, [99], "go", [[3]])],
]


@pytest.mark.parametrize(("name", "value", "allowed"), OTHERS)
def test_an_adapter_that_peft_would_apply_otherwise_is_refused_by_setting(
    bank, folder, name, value, allowed, invocations
):
    other_config(**{name: value})(folder)
    with pytest.raises(ValueError, match=f"{name} = .*: .*{allowed}") as caught:
        load_adapter(folder, bank.shapes, bank.config, invocations)
    assert str(folder) in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "settings",
    [
        {"init_lora_weights": "orthogonal"},
        {"init_lora_weights": "eva", "eva_config": {"rho": 2.0}},
        {"layers_pattern": "layers"},
        {"layers_pattern": ["layers"]},
        {"layers_pattern": None},
    ],
)
def test_a_setting_that_changes_no_answer_is_taken(tiny_policy, tiny_model, bank, folder, settings, invocations):
    other_config(**settings)(folder)
    loaded, adapter = load_adapter(folder, bank.shapes, bank.config, invocations), bank.read(2)
    assert all(torch.equal(loaded[name], adapter[name]) for name in adapter)
    network = tiny_policy.network
    model = peft.PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(tiny_model), folder)
    for prompt, ours in zip(prompts_of(network), network.action_logits(TEXTS, torch.tensor([2])), strict=True):
        with torch.no_grad():
            theirs = model(input_ids=prompt).logits[0, -1, network.action_ids]
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_a_config_without_its_type_is_refused(bank, folder, invocations):
    file = folder / "adapter_config.json"
    content = json.loads(file.read_text())
    del content["peft_type"]
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="peft_type is missing: must be 'LORA'"):
        load_adapter(folder, bank.shapes, bank.config, invocations)


def test_what_peft_writes_of_our_adapter_is_ours_again(tiny_model, bank, folder, invocations, tmp_path):
    model = peft.PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(tiny_model), folder)
    model.save_pretrained(tmp_path / "theirs", save_embedding_layers=False)  # else the hub is asked for the base
    loaded, adapter = load_adapter(tmp_path / "theirs", bank.shapes, bank.config, invocations), bank.read(2)
    assert all(torch.equal(loaded[name], adapter[name]) for name in adapter)


def test_an_adapter_of_all_layers_need_not_name_them(bank, folder, invocations):
    """As PEFT writes it. Here the layers are renamed, as the tiny policy adapts the last two of four."""
    other_config(layers_to_transform=None)(folder)
    rename = {f".{layer}.": f".{layer - 2}." for layer in (2, 3)}

    def renamed(name):
        return next(name.replace(old, new) for old, new in rename.items() if old in name)

    other_tensors(lambda t: [t.update({renamed(name): t.pop(name)}) for name in sorted(t)])(folder)
    shapes = {renamed(name): shape for name, shape in bank.shapes.items()}
    assert load_adapter(folder, shapes, bank.config, invocations).keys() == shapes.keys()


def test_an_adapter_of_another_rank_is_refused_even_at_the_same_scaling(bank, folder, invocations):
    other = AdapterConfig(rank=4, alpha=8.0, top_layers=2)
    shapes = {n: (4, c) if "lora_A" in n else (r, 4) for n, (r, c) in bank.shapes.items()}
    with pytest.raises(ValueError, match=r"r = 2: must be 4"):
        load_adapter(folder, shapes, other, invocations)
