"""SmolLM2 as it is built here, beside transformers' own: the same tokens, and the same logits."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from agents.types import ModelConfig
from agents.weights.base_model import BaseModel, load_base_model
from agents.weights.llama import Llama
from agents.weights.tokenizer import PlainTokenizer

pytestmark = pytest.mark.real

ROOT = Path(__file__).parents[2]
ODD = [
    *("", " ", "  go", "\n\n\t x\r\n", "don't   you'LL 123456 3.14", "<|im_start|>user\nhi<|im_end|> <|endoftext|>go"),
    *(
        "naïve cafe\u0301 \u00a0 \u200b\u200d \ufeff",
        "汉字かな交じり文 한국어 עברית العربية",
        "👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪 \U0001f600",
        "ﬁ Å ½ ² ™",
    ),
    *("\u0000\u0001\u007f", "\ud7ff\ue000\uffff\U0010ffff", "a" * 3000, "<repo_name><file_sep><filename> <unk> </s>"),
]


@pytest.fixture(scope="module")
def base() -> BaseModel:
    return load_base_model(ModelConfig())


def test_tokens_are_those_of_transformers(base):
    theirs = AutoTokenizer.from_pretrained(base.folder, trust_remote_code=False)
    assert isinstance(base.tokenizer, PlainTokenizer)
    corpus = [file.read_text(encoding="utf-8") for file in (*ROOT.glob("docs/*.md"), *ROOT.glob("agents/**/*.py"))]
    assert len(corpus) > 30
    for text in (*ODD, *corpus, *corpus[0].splitlines(), *corpus[1].splitlines()):
        ids = theirs.encode(text, add_special_tokens=False)
        assert base.tokenizer.encode(text, add_special_tokens=False) == ids
        assert base.tokenizer.encode(text) == theirs.encode(text)
        assert base.tokenizer.decode(ids) == theirs.decode(ids)
    for name in ("bos_token_id", "eos_token_id", "unk_token_id"):
        assert getattr(base.tokenizer, name) == getattr(theirs, name)


@torch.no_grad()
def test_logits_are_those_of_transformers(base):
    assert isinstance(base.causal_lm, Llama)
    theirs = AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.float32, attn_implementation="eager")
    ids = torch.tensor([base.tokens((ROOT / "README.md").read_text(encoding="utf-8"))[:300]])
    torch.testing.assert_close(base.causal_lm(ids).logits, theirs(ids).logits, rtol=1e-3, atol=1e-3)
