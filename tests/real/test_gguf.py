"""The real SmolLM2, written anew in other precisions, is read back and answers as before."""

import tempfile
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind

from agents.codecs.forage import ForageCodec
from agents.policy import make_policy
from agents.policy_network import PolicyNetwork
from agents.types import AdapterConfig, ModelConfig
from agents.weights.fetch import known_gguf

pytestmark = pytest.mark.real

TEXTS = [
    " food two north one east, rock north",
    " food three west",
    " food was south east",
    " no food, home north, rock north",
    " no food, going east",
    " food here",
    " no food",
]


def bare_network(model: str) -> PolicyNetwork:
    settings = ModelConfig(name=model, dtype="float32")
    return make_policy(settings, AdapterConfig(), ForageCodec(view_radius=3), agents=1, seed=0).network


def write_again(source: Path, file: Path, kind: Kind) -> None:
    """Write a GGUF file anew, its matrices as `kind`, everything else as it was."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(file, reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if not name.startswith(("GGUF.", "general.architecture", "general.file_type")):
            kinds = field.types
            inner = kinds[-1] if kinds[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), kinds[0], sub_type=inner)
    for tensor in reader.tensors:
        precision = kind if len(tensor.shape) == 2 else Kind.F32
        weight = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        writer.add_tensor(tensor.name, gguf.quants.quantize(weight, precision), raw_dtype=precision)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def shipped() -> tuple[Path, torch.Tensor]:
    """The GGUF file as it was published (Q4_1), and what it answers."""
    with torch.no_grad():
        return known_gguf("smollm2-135m"), bare_network("smollm2-135m").action_logits(TEXTS, None).log_softmax(dim=1)


@pytest.mark.long
@pytest.mark.parametrize(("kind", "bound"), [("Q8_0", 0.01), ("F16", 0.001)])
@torch.no_grad()
def test_another_precision_answers_nearly_the_same(shipped, monkeypatch, kind, bound):
    source, before = shipped
    with tempfile.TemporaryDirectory() as folder:  # a gigabyte: pytest would keep three
        monkeypatch.setenv("TERRARIUM_CACHE", folder)
        file = Path(folder) / f"smollm2-{kind}.gguf"
        write_again(source, file, Kind[kind])
        after = bare_network(str(file)).action_logits(TEXTS, None).log_softmax(dim=1)
    divergence = (before.exp() * (before - after)).sum(dim=1)
    print(f"{kind}: KL over the action words, mean {divergence.mean():.2g}, largest {divergence.max():.2g}")
    assert divergence.max() < bound
    assert (before - after).abs().max() > 0, "the file must have been read"
