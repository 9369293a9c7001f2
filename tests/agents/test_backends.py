"""Other runtimes answer as torch does. A new backend goes into PACKAGES, and with its bounds into REAL."""

import json
import shutil

import numpy as np
import pytest
from gguf_files import write_gguf
from test_architectures import FEW_HEADS, SHAPE, policy_on, write_checkpoint

from agents.backends import BACKENDS, open_backend, require_alive
from agents.formats.gguf import Shape, save_gguf_adapter
from agents.policy import Policy
from agents.types import UserError
from benchmarks.conformance import agreement, answers, forage_texts
from benchmarks.conformance import main as conformance
from benchmarks.subject import mature_policy

PACKAGES = {"llama_cpp": "llama_cpp", "onnx": "onnxscript", "mlx": "mlx_lm"}
"""What each backend needs installed."""
TEXTS = [
    " food two north one east, rock north",
    " no food",
    " food here",
    " no food, home south west, rock west",
    " food was north west",
]


def needs(name):
    pytest.importorskip(PACKAGES[name])


@pytest.fixture(params=PACKAGES)
def name(request) -> str:
    needs(request.param)
    return request.param


ARCHITECTURES = {"llama": 1e-4, "gemma3_text": 5e-3}
"""Architecture -> how near logits must be. ggml looks up Gemma's GELU in a table of float16."""


@pytest.fixture(params=ARCHITECTURES)
def architecture(request) -> str:
    return request.param


@pytest.fixture
def near(architecture) -> dict[str, float]:
    return {"rtol": 0, "atol": ARCHITECTURES[architecture]}


@pytest.fixture
def policy(architecture, tiny_model, tmp_path) -> Policy:
    """Agents on a tiny random model of an architecture, in whose folder lies its GGUF file too."""
    if architecture == "llama":
        folder = shutil.copytree(tiny_model, tmp_path / "llama")
    else:
        kinds = ["sliding_attention"] * 5 + ["full_attention"]  # as llama.cpp knows Gemma3
        shape = SHAPE | FEW_HEADS | {"num_hidden_layers": 6, "sliding_window": 64, "layer_types": kinds}
        folder = write_checkpoint(tmp_path / "gemma", tiny_model, architecture, shape)
    write_gguf(folder, folder / "model.gguf")
    return policy_on(folder)


def test_answers_are_those_of_torch(name, policy, near):
    network = policy.network
    backend = open_backend(name, network)
    agents = len(network.bank)
    exact, theirs = answers(network, TEXTS, agents), answers(backend, TEXTS, agents)
    assert theirs.shape == exact.shape == (len(TEXTS) * (agents + 1), 5)
    assert theirs.dtype == np.float32
    np.testing.assert_allclose(theirs, exact, **near)
    bare = exact[: len(TEXTS)]
    assert all(np.abs(one - bare).max() > 0.05 for one in exact[len(TEXTS) :].reshape(agents, -1, 5)), "must matter"


def test_rows_come_back_in_the_order_asked_whatever_else_is_asked(name, policy, near):
    network, rng = policy.network, np.random.default_rng(0)
    backend = open_backend(name, network)
    texts = [TEXTS[i] for i in rng.integers(len(TEXTS), size=40)]
    adapters = rng.integers(-1, len(network.bank), size=40)
    together = backend.answer(texts, adapters)
    np.testing.assert_allclose(together, network.answer(texts, adapters), **near)
    for i in (0, 17, 39):
        np.testing.assert_allclose(backend.answer(texts[i : i + 1], adapters[i : i + 1])[0], together[i], **near)


def test_no_question_has_no_answers(name, policy):
    assert open_backend(name, policy.network).answer([], np.zeros(0, int)).shape == (0, 5)


def test_changed_adapters_change_the_answers(name, policy, near):
    bank, everyone = policy.network.bank, np.arange(3)
    backend = open_backend(name, policy.network)
    before = backend.answer(TEXTS[:3], everyone)
    bank.values[1] *= -1.5
    after = backend.answer(TEXTS[:3], everyone)
    np.testing.assert_allclose(after, policy.network.answer(TEXTS[:3], everyone), **near)
    assert np.abs(after[1] - before[1]).max() > 0.1
    np.testing.assert_allclose(after[[0, 2]], before[[0, 2]], **near)


def test_a_policy_acts_by_it(name, policy, near):
    legal, everyone = np.ones((3, 5), bool), np.arange(3)
    by_torch = policy.act(TEXTS[:3], everyone, legal, np.random.default_rng(0))
    policy.backend = open_backend(name, policy.network)
    policy.answers.forget()
    decision = policy.act(TEXTS[:3], everyone, legal, np.random.default_rng(0))
    assert decision.action.tolist() == by_torch.action.tolist()
    np.testing.assert_allclose(decision.log_prob, by_torch.log_prob, **near)


def test_more_texts_than_llama_cpp_holds_at_once_are_answered_in_portions(policy, near, monkeypatch):
    needs("llama_cpp")
    from agents.backends import llama_cpp

    words = [" food", " no food", " home", " rock", " north", " south", " east", " west", " here"]
    texts = [a + b for a in words for b in words]  # 81, of which 64 are held at once
    adapters = np.arange(len(texts)) % 3
    exact = policy.network.answer(texts, adapters)
    np.testing.assert_allclose(open_backend("llama_cpp", policy.network).answer(texts, adapters), exact, **near)
    monkeypatch.setattr(llama_cpp, "CELLS", 12)
    monkeypatch.setattr(llama_cpp, "SEQUENCES", 8)
    narrow = open_backend("llama_cpp", policy.network)
    np.testing.assert_allclose(narrow.answer(texts, adapters), exact, **near)
    with pytest.raises(UserError, match="a text has 12 tokens: must be below 12 for llama_cpp"):
        narrow.answer([" food" * 12], np.zeros(1, int))


def test_llama_cpp_says_what_it_lacks(tiny_policy, tmp_path):
    needs("llama_cpp")
    from agents.backends.llama_cpp import LlamaCpp

    with pytest.raises(UserError, match=r"model.name = .*: has 0 GGUF files, and llama.cpp needs one"):
        open_backend("llama_cpp", tiny_policy.network)
    (tmp_path / "broken.gguf").write_bytes(b"GGUF")
    with pytest.raises(UserError, match=r"broken.gguf: is no GGUF file, or is cut short"):
        LlamaCpp(tiny_policy.network, tmp_path / "broken.gguf")


def test_a_whole_file_that_llama_cpp_does_not_know_is_refused(policy, tmp_path):
    needs("llama_cpp")
    from agents.backends.llama_cpp import LlamaCpp

    kind = policy.network.base.causal_lm.config.model_type.split("_")[0].encode()
    strange = policy.network.base.gguf.read_bytes().replace(kind, b"x" * len(kind))
    (tmp_path / "strange.gguf").write_bytes(strange)
    with pytest.raises(
        UserError, match=r"a trial on this machine ended with code 1 \(.*strange.gguf: llama.cpp cannot"
    ):
        LlamaCpp(policy.network, tmp_path / "strange.gguf")


def test_a_runtime_is_tried_in_a_process_of_its_own():
    require_alive("a runtime", "import agents, sys; assert sys.argv[1:] == ['a', 'b']", "a", "b", hint="build it anew")


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "was killed by SIGSEGV; build it anew$"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "was killed by SIGILL; build it anew$"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", r"ended with code -9 \(it said nothing\)$"),
        ("import nothing_here", "ended with code 1 .ModuleNotFoundError: No module named 'nothing_here'.$"),
        ("import time; time.sleep(60)", "did not end within 0.5 seconds$"),
    ],
)
def test_what_a_trial_came_to_is_said(program, said):
    with pytest.raises(UserError, match=f"a runtime: a trial on this machine {said}"):
        require_alive("a runtime", program, hint="build it anew", seconds=0.5 if "sleep" in program else 60)


def test_llama_cpp_is_tried_before_it_is_used(policy, monkeypatch):
    needs("llama_cpp")
    from agents.backends import llama_cpp

    monkeypatch.setattr(llama_cpp, "_TRIAL", "import os, signal; os.kill(os.getpid(), signal.SIGILL)")
    with pytest.raises(UserError, match=r"llama.cpp: .* was killed by SIGILL; .*GGML_NATIVE=OFF"):
        open_backend("llama_cpp", policy.network)


def test_llama_cpp_sees_an_activated_lora(policy, tmp_path):
    """llama-server keeps the adapter off until these tokens."""
    needs("llama_cpp")
    from llama_cpp import llama_cpp as lib

    from agents.backends.llama_cpp import Runtime

    network = policy.network
    shape = Shape.of(network.base.causal_lm.config)
    file = save_gguf_adapter(tmp_path / "a.gguf", network.bank.read(1), shape, alpha=4.0, answer_id=network.answer_id)
    runtime = Runtime(network.base.gguf, cells=128, threads=1)
    (adapter,) = runtime.load_adapters([file])
    assert lib.llama_adapter_get_alora_n_invocation_tokens(adapter) == 1
    assert lib.llama_adapter_get_alora_invocation_tokens(adapter)[0] == network.answer_id
    with pytest.raises(
        UserError, match=r"model.gguf: llama.cpp cannot load it as an adapter of this model \(.*adapter"
    ):
        runtime.load_adapters([network.base.gguf])


@pytest.mark.real
def test_llama_cpp_refuses_the_file_of_another_model(tiny_policy):
    needs("llama_cpp")
    from agents.backends.llama_cpp import LlamaCpp
    from agents.weights.fetch import known_gguf

    with pytest.raises(UserError, match=r"has 49152 tokens, not .*tiny-llama's"):
        LlamaCpp(tiny_policy.network, known_gguf("smollm2-135m"))


def test_a_backend_that_is_not_known_is_refused(tiny_policy):
    with pytest.raises(UserError, match=r"backend = 'jax': must be one of torch, llama_cpp, onnx, mlx"):
        open_backend("jax", tiny_policy.network)
    assert open_backend("torch", tiny_policy.network) is tiny_policy.network


def test_a_backend_that_is_not_installed_says_how_to_get_it(tiny_policy, monkeypatch):
    monkeypatch.setitem(BACKENDS, "llama_cpp", ("agents.backends.absent", "Absent", "llama-cpp"))
    with pytest.raises(UserError, match=r"needs `pip install -e '\.\[llama-cpp\]'`"):
        open_backend("llama_cpp", tiny_policy.network)


def test_agreement_is_what_it_says():
    exact = np.log(np.array([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]], np.float32))
    same = agreement(exact, exact + 3)
    assert same.largest_difference < 1e-6
    assert (abs(same.mean_kl) < 1e-6, same.equal_choices) == (True, 1.0)
    other = agreement(exact, np.log(np.array([[0.25, 0.5, 0.25], [0.1, 0.1, 0.8]], np.float32)))
    assert other.largest_difference == pytest.approx(0.25)
    assert other.mean_kl == pytest.approx(0.25 * np.log(2) / 2)
    assert other.equal_choices == 0.5


# On the real model

REAL = {"llama_cpp": (0.1, 0.002, 0.93), "onnx": (1e-4, 1e-6, 0.99), "mlx": (1e-4, 1e-6, 0.99)}
"""Backend -> largest difference of a probability, mean KL and least share of equal choices allowed."""


@pytest.fixture(scope="module")
def real_network():
    return mature_policy(3, "float32").network


@pytest.fixture(scope="module")
def real_texts():
    return forage_texts(36)


@pytest.fixture(scope="module")
def exact(real_network, real_texts):
    return answers(real_network, real_texts, 3)


@pytest.mark.real
@pytest.mark.parametrize("backend_name", REAL)
def test_answers_on_the_real_model_are_near_those_of_torch(backend_name, real_network, real_texts, exact):
    needs(backend_name)
    difference, kl, equal = REAL[backend_name]
    near = agreement(exact, answers(open_backend(backend_name, real_network), real_texts, 3))
    assert near.largest_difference < difference
    assert near.mean_kl < kl
    assert near.equal_choices >= equal


@pytest.mark.real
def test_llama_cpp_is_exact_on_a_float32_file(real_network, real_texts, exact, tmp_path):
    """Everything but the rounding of Q4_1's activations: what `agents.formats.gguf` and the backend themselves do."""
    needs("llama_cpp")
    from agents.backends.llama_cpp import LlamaCpp

    file = write_gguf(real_network.base.folder, tmp_path / "float32.gguf")
    theirs = answers(LlamaCpp(real_network, file), real_texts, 3)
    bare = exact[: len(real_texts)]
    assert np.abs(exact[len(real_texts) :].reshape(3, -1, 5) - bare).max() > 1
    assert np.abs(theirs - exact).max() < 2e-4
    assert agreement(exact, theirs).mean_kl < 1e-8
    assert agreement(exact, theirs).equal_choices == 1


@pytest.mark.real
def test_the_benchmark_writes_a_row_for_each_backend(tmp_path, capsys):
    file = tmp_path / "conformance.json"
    conformance(["--texts", "4", "--adapters", "1", "--agents", "2", "--json", str(file)])
    result = json.loads(file.read_text())
    rows = {row["backend"]: row for row in result["rows"]}
    assert list(rows)[:2] == ["torch float32", "torch bfloat16"]
    assert 0 < rows["torch bfloat16"]["mean_kl"] < 0.01
    assert all(row["step_ms"] > 0 for row in rows.values())
    told = capsys.readouterr().out
    assert all(name in rows or f"left out: backend = '{name}'" in told for name in BACKENDS)
