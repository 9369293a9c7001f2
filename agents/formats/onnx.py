"""A network as ONNX graphs: two that `agents.backends.onnx` runs for all agents, and one that holds a single agent.

`read` and `answer` do what `agents.policy_network` does. `read`: token ids of texts, behind the keys and values of the
instructions, to their own keys and values and the hidden states that enter the adapted layers. `answer`: the answer
token of each row through the adapted layers, to action logits. Adapters are inputs of `answer`, so one pair of graphs
serves all agents of all generations. An agent that leaves home (`export`) is both in one, with its adapter and the
instructions inside.

torch's exporter traces transformers' own layers, with explicit products as their attention (`_attend`). It needs some
minutes, so graphs are kept in the cache.

Symbols: B rows, S tokens, I instruction tokens, G groups, L layers, K adapted layers, V key-value heads, g query heads
for each of them, d head size, D width, A actions, F numbers in an adapter.
"""

import hashlib
import json
import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.export import Dim
from transformers import AttentionInterface, AutoModelForCausalLM

from agents.backends import require_answer_token, require_cpu, require_installed
from agents.policy_network import PolicyNetwork
from agents.reading import some_layers
from agents.sums import sha256_of
from agents.types import UserError
from agents.weights.cache import cache_dir, kept_folder

TRIED = ("Llama", "GPT-NeoX", "Phi", "Gemma3")
"""Architectures of which tests hold the graphs to the network; others may do as well."""


def graph_folder(network: PolicyNetwork) -> Path:
    """The cached folder with `read.onnx` and `answer.onnx` of this base and this shape of adapters, made at need.

    UserError if torch cannot export the architecture.
    """

    def write(folder: Path) -> None:
        reader, answerer = _modules(network)
        instructions = _no_keys_values(network.base.causal_lm.config, network.base.layers, 5)
        reads = {"ids": (torch.zeros(3, 7, dtype=torch.long), 0, 1), "instructions": (instructions, 3)}
        _write(network, reader, reads, ["keys_values", "entering"], folder / "read.onnx")
        answers = {
            "entering": (torch.zeros(6, network.width), 0),
            "lengths": (torch.full((6,), 4), 0),
            "instructions": (instructions[network.first_layer :], 3),
            "texts": (_no_keys_values(network.base.causal_lm.config, network.bank.config.top_layers, 6, 7), 3, 4),
            "adapters": (torch.zeros(2, network.bank.size), 0),
            "head": (torch.zeros(len(network.action_ids), network.width), 0),
        }
        _write(network, answerer, answers, ["logits"], folder / "answer.onnx")

    return _kept(_identity(network), write)


def quantised_folder(network: PolicyNetwork) -> Path:
    """The cached folder with `read.onnx` in int8: weights by output channel, hidden states by the range of all rows."""

    def write(folder: Path) -> None:
        from onnxruntime.quantization import quantize_dynamic

        with _quiet():
            quantize_dynamic(
                graph_folder(network) / "read.onnx",
                folder / "read.onnx",
                op_types_to_quantize=["MatMul"],
                per_channel=True,
                use_external_data_format=True,
                extra_options={"MatMulConstBOnly": True},
            )

    return _kept(f"{_identity(network)}-int8", write)


def export(network: PolicyNetwork, index: int, folder: Path | str, card: str = "") -> Path:
    """Write agent `index` for any ONNX runtime to `folder` (made at need), and return it.

    `model.onnx` maps `input_ids` (B, S), the tokens of B texts of equal length and then the answer token, to `logits`
    (B, A), float32, of the action words. Its weights lie in `model.onnx.data` beside it; tokenizer.json and agent.json
    say how to come to the ids, and README.md has a script that does so. card: text for the README.

    IndexError if there is no such agent; UserError if torch cannot export the architecture, or if adapters act on more
    than the answer token.
    """
    require_answer_token(network, "an agent in ONNX")
    require_cpu(network, "an agent in ONNX")
    adapter = torch.cat([tensor.flatten() for tensor in network.bank.read(index).values()])[None]
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    agent = Agent(*_modules(network), torch.tensor([network.instruction_ids]), adapter, network.head, network.head_bias)
    with tempfile.TemporaryDirectory(dir=folder) as box:
        _write(
            network,
            agent,
            {"input_ids": (torch.zeros(3, 7, dtype=torch.long), 0, 1)},
            ["logits"],
            Path(box) / "model.onnx",
        )
        for file in Path(box).iterdir():
            file.replace(folder / file.name)
    shutil.copyfile(network.base.folder / "tokenizer.json", folder / "tokenizer.json")
    words = [network.base.tokenizer.decode([token]).strip() for token in network.action_ids]
    about = {
        "base_model": network.base.public_name,
        "instruction_ids": network.instruction_ids,
        "answer_id": network.answer_id,
        "action_words": words,
        "action_ids": network.action_ids,
    }
    (folder / "agent.json").write_text(json.dumps(about, indent=2) + "\n")
    (folder / "README.md").write_text(README.format(base_model=network.base.public_name, card=card), encoding="utf-8")
    return folder


README = """# A Terrarium agent

{base_model} with one agent's LoRA adapter, which acts on the last token of the prompt only (activated LoRA).
The instructions (`instruction_ids` in agent.json) are already read: `model.onnx` holds their keys and values.

{card}

    pip install numpy onnxruntime tokenizers
    python act.py " food two north one east"

```python
# act.py: what the agent does after a text, and how sure it is
import json
import sys

import numpy as np
import onnxruntime
import tokenizers

agent = json.load(open("agent.json"))
tokenizer = tokenizers.Tokenizer.from_file("tokenizer.json")
session = onnxruntime.InferenceSession("model.onnx")
ids = tokenizer.encode(sys.argv[1], add_special_tokens=False).ids + [agent["answer_id"]]
logits = session.run(["logits"], {{"input_ids": np.array([ids], np.int64)}})[0][0]
chances = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
for word, chance in zip(agent["action_words"], chances):
    print(f"{{word}} {{chance:.4f}}")
```
"""


class Reader(nn.Module):
    """The graph `read`."""

    def __init__(self, causal_lm: Any, first_layer: int):
        super().__init__()
        self.decoder, self.first_layer = causal_lm.base_model, first_layer

    def forward(self, ids: Tensor, instructions: Tensor) -> tuple[Tensor, Tensor]:
        """ids (B, S), instructions (L, 2, V, I, d) -> keys and values (L, 2, V, B, S, d), entering (B, S, D)."""
        place = torch.arange(ids.shape[1])
        sight = _Sight(0, instructions, None, place <= place[:, None], [])
        entering: list[Tensor] = []
        first = self.decoder.layers[self.first_layer]
        hook = first.register_forward_pre_hook(lambda _, args: entering.append(args[0]))
        self.decoder(ids, position_ids=(place + instructions.shape[3])[None], use_cache=False, sight=sight)
        hook.remove()
        return torch.stack(sight.recorded), entering[0]


class Answerer(nn.Module):
    """The graph `answer`."""

    def __init__(self, causal_lm: Any, first_layer: int, shapes: dict[str, tuple[int, int]], scaling: float):
        super().__init__()
        self.first_layer, self.shapes, self.scaling = first_layer, shapes, scaling
        self.adapted = []
        for path in dict.fromkeys(name.rpartition(".lora_")[0] for name in shapes):
            parent, _, child = path.rpartition(".")
            self.adapted.append(_InputLoRA(causal_lm.get_submodule(path)))
            setattr(causal_lm.get_submodule(parent), child, self.adapted[-1])
        self.top = some_layers(causal_lm.base_model, first_layer, len(causal_lm.base_model.layers))

    def forward(
        self, entering: Tensor, lengths: Tensor, instructions: Tensor, texts: Tensor, adapters: Tensor, head: Tensor
    ) -> Tensor:
        """Logits (B, A), but for the head's bias, of G groups of B / G rows, one adapter for each group.

        entering (B, D), lengths (B,) of the texts, instructions (K, 2, V, I, d), texts (K, 2, V, B, S, d),
        adapters (G, F), head (A, D).
        """
        is_text = torch.arange(texts.shape[4]) < lengths[:, None]
        may_see = torch.cat([is_text, torch.ones_like(is_text[:, :1])], dim=1)[:, None, None]
        ends = list(accumulate(rows * columns for rows, columns in self.shapes.values()))
        parts = zip([0, *ends], ends, self.shapes.values(), strict=False)
        tensors = [adapters[:, start:end].unflatten(1, shape) for start, end, shape in parts]
        for module, a, b in zip(self.adapted, tensors[::2], tensors[1::2], strict=True):
            module.adapter = self.scaling * a, b
        hidden = self.top(
            inputs_embeds=entering[:, None],
            position_ids=(lengths + instructions.shape[3])[:, None],
            use_cache=False,
            sight=_Sight(self.first_layer, instructions, texts, may_see, []),
        ).last_hidden_state
        for module in self.adapted:
            module.adapter = None
        return hidden[:, 0] @ head.T


class Agent(nn.Module):
    """Both graphs in one, for a single adapter."""

    def __init__(
        self,
        reader: Reader,
        answerer: Answerer,
        instruction_ids: Tensor,
        adapter: Tensor,
        head: Tensor,
        head_bias: Tensor,
    ):
        super().__init__()
        self.reader, self.answerer = reader, answerer
        nothing = _no_keys_values(reader.decoder.config, len(reader.decoder.layers), 0)
        with torch.no_grad():
            self.instructions = nn.Buffer(reader(instruction_ids, nothing)[0][:, :, :, 0])
        self.adapter, self.head, self.head_bias = nn.Buffer(adapter), nn.Buffer(head), nn.Buffer(head_bias)

    def forward(self, input_ids: Tensor) -> Tensor:
        """input_ids (B, S), the answer token last -> logits (B, A)."""
        keys_values, entering = self.reader(input_ids, self.instructions)
        first = self.reader.first_layer
        lengths = torch.zeros_like(input_ids[:, 0]) + (input_ids.shape[1] - 1)
        texts, instructions = keys_values[first:, :, :, :, :-1], self.instructions[first:]
        logits: Tensor = self.answerer(entering[:, -1], lengths, instructions, texts, self.adapter, self.head)
        return logits + self.head_bias


class _InputLoRA(nn.Module):
    """A linear module with the adapters that it is handed: A (G, r, D_in), scaled, and B (G, D_out, r), or None."""

    def __init__(self, linear: nn.Module):
        super().__init__()
        self.linear = linear
        self.adapter: tuple[Tensor, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(x)
        if self.adapter is None:
            return y
        a, b = self.adapter
        rows = x.reshape(a.shape[0], -1, x.shape[-1])
        return y + (rows @ a.mT @ b.mT).view(y.shape)


class _Sight(NamedTuple):
    """What tokens look back at, and the keys and values that they leave behind."""

    first_layer: int
    instructions: Tensor  # (layers, 2, V, I, d)
    texts: Tensor | None  # (layers, 2, V, B, S, d)
    may_see: Tensor  # bool, broadcast to (B, g, tokens, S + tokens): the text, then the tokens themselves
    recorded: list[Tensor]  # of each layer (2, V, B, tokens, d)


def _attend(
    module: Any, q: Tensor, k: Tensor, v: Tensor, attention_mask: Any, *, scaling: float, sight: _Sight, **_: object
) -> tuple[Tensor, None]:
    """Attention of (B, H, tokens, d), heads first, so that one product of the instructions serves all rows."""
    layer, shared = module.layer_idx - sight.first_layer, k.shape[1]
    k, v = k.transpose(0, 1), v.transpose(0, 1)  # (V, B, tokens, d)
    sight.recorded.append(torch.stack([k, v]))
    q = (q * scaling).unflatten(1, (shared, -1)).transpose(0, 1)  # (V, B, g, tokens, d)
    if sight.texts is not None:
        k, v = torch.cat([sight.texts[layer, 0], k], dim=2), torch.cat([sight.texts[layer, 1], v], dim=2)
    known_k, known_v = sight.instructions[layer]
    to_known = (q.flatten(1, 3) @ known_k.mT).unflatten(1, q.shape[1:4])
    to_text = (q.flatten(2, 3) @ k.mT).unflatten(2, q.shape[2:4])
    scores = torch.cat([to_known, to_text.masked_fill(~sight.may_see, -torch.inf)], dim=-1)
    on_known, on_text = scores.softmax(-1).split([known_k.shape[1], k.shape[2]], dim=-1)
    seen = (on_known.flatten(1, 3) @ known_v).view(q.shape) + (on_text.flatten(2, 3) @ v).view(q.shape)
    return seen.permute(1, 3, 0, 2, 4).flatten(2, 3), None  # (B, tokens, H, d)


AttentionInterface.register("terrarium_onnx", _attend)


def _modules(network: PolicyNetwork) -> tuple[Reader, Answerer]:
    """What is traced: a plain model of its own, so that the network's stays as it is."""
    causal_lm: Any = AutoModelForCausalLM.from_pretrained(
        network.base.folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
    )
    if not hasattr(causal_lm.base_model, "layers"):
        raise _cannot(network, "it is built the old way in transformers")
    causal_lm.eval().requires_grad_(False).set_attn_implementation("terrarium_onnx")
    reader = Reader(causal_lm, network.first_layer)
    return reader.eval(), Answerer(causal_lm, network.first_layer, network.bank.shapes, network.bank.scaling).eval()


def _no_keys_values(config: Any, layers: int, *sizes: int) -> Tensor:
    """Zeros (layers, 2, V, *sizes, d)."""
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return torch.zeros(layers, 2, getattr(config, "num_key_value_heads", None) or heads, *sizes, width)


def _write(network: PolicyNetwork, module: nn.Module, inputs: dict[str, tuple], outputs: list[str], file: Path) -> None:
    """Trace `module` into `file`. inputs: for each name an example, and which of its sizes may vary."""
    require_installed("ONNX graphs", "onnx", "onnx", "onnxscript")
    examples = {name: example for name, (example, *_) in inputs.items()}
    sizes = {name: {size: Dim.DYNAMIC for size in varying} for name, (_, *varying) in inputs.items()}
    try:
        with _quiet(), torch.no_grad():
            torch.onnx.export(
                module,
                kwargs=examples,
                f=file,
                input_names=list(inputs),
                output_names=outputs,
                dynamic_shapes=sizes,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise _cannot(network, str(error)) from error


def _cannot(network: PolicyNetwork, reason: str) -> UserError:
    architecture = network.base.causal_lm.config.model_type
    return UserError(
        f"model.name = {network.base.name!r}: {architecture} cannot be written as ONNX: {reason}; "
        f"must be an architecture like {', '.join(TRIED)}"
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Within the block, what is no fault of the user's is not shown: deprecations inside torch, packages not needed."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(before)


def _identity(network: PolicyNetwork) -> str:
    """A name that changes with all that a graph is made of: weights, shapes, and this file."""
    folder = network.base.folder
    weights = [sha256_of(file) for file in sorted(folder.glob("*.safetensors"))]
    made_of = [
        weights,
        (folder / "config.json").read_text(encoding="utf-8"),
        network.bank.shapes,
        network.bank.scaling,
        network.first_layer,
    ]
    digest = hashlib.sha256(json.dumps(made_of).encode() + Path(__file__).read_bytes()).hexdigest()
    return f"{Path(network.base.name).stem}-{digest[:12]}"


def _kept(name: str, write: Callable[[Path], None]) -> Path:
    """The folder `name` in the cache; where there is none, `write` fills it."""
    return kept_folder(cache_dir() / "onnx" / name, write, f"writing ONNX graphs {name} (once, some minutes)")
