"""The tokenizer without transformers gives the tokens that transformers gives, or is not taken."""

import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from agents.codecs.forage import ForageCodec
from agents.weights.tokenizer import plain_tokenizer

TEXTS = [
    *("", " ", "go", " go", "  go", " food two north one east, rock north", ForageCodec(3).instructions),
    *("\n\n\t x\r\n", "don't   you'LL 123456 3.14", "<unk> <|im_start|>user<|im_end|> </s> <|endoftext|>go<|im_end|>"),
    *(
        "naïve cafe\u0301 \u00a0 \u200b\u200d \ufeff",
        "汉字かな交じり文 한국어 עברית العربية",
        "👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪 \U0001f600",
        "ﬁ Å ½ ² ™",
    ),
    *("\u0000\u0001\u007f", "\ud7ff\ue000\uffff\U0010ffff", "a" * 3000, "x = {'y': [1, 2]}  # ok\n" * 20),
]
"""What a codec may write, and what nobody should."""


def compare(folder: Path) -> None:
    """AssertionError unless both give the same tokens and texts."""
    ours, theirs = plain_tokenizer(folder, "llama"), AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    assert ours is not None
    for text in TEXTS:
        ids = theirs.encode(text, add_special_tokens=False)
        assert ours.encode(text, add_special_tokens=False) == ids
        assert ours.encode(text) == theirs.encode(text)
        assert ours.decode(ids) == theirs.decode(ids)
    for name in ("bos_token_id", "eos_token_id", "unk_token_id"):
        assert getattr(ours, name) == getattr(theirs, name)
    for tokenizer in (ours, theirs):
        with pytest.raises(TypeError, match="must be"):
            tokenizer.encode("\ud800", add_special_tokens=False)


def test_tokens_are_those_of_transformers(tiny_model):
    compare(tiny_model)


@pytest.fixture
def folder(tiny_model, tmp_path) -> Path:
    return shutil.copytree(tiny_model, tmp_path / "model")


def configure(folder: Path, file: str, **settings: object) -> None:
    (folder / file).write_text(json.dumps(json.loads((folder / file).read_text()) | settings))


@pytest.mark.parametrize(
    "settings",
    [
        *({"tokenizer_class": name} for name in ("LlamaTokenizer", "Qwen2Tokenizer", "Words", None)),
        *({"add_bos_token": True}, {"add_prefix_space": True}, {"split_special_tokens": True}),
        *({"bos_token": "<new>"}, {"bos_token": {"content": "<unk>"}}, {"clean_up_tokenization_spaces": True}),
        *({"auto_map": {"AutoTokenizer": ["evil.Words", None]}}, {"additional_special_tokens": ["<x>"]}),
    ],
)
def test_settings_that_could_change_a_token_are_left_to_transformers(settings, folder):
    assert plain_tokenizer(folder, "llama")
    configure(folder, "tokenizer_config.json", **settings)
    assert plain_tokenizer(folder, "llama") is None


def test_so_are_kinds_of_models_for_which_transformers_has_a_class_of_its_own(folder):
    assert plain_tokenizer(folder, "mistral")
    assert plain_tokenizer(folder, "qwen2") is None


def test_so_are_other_files_and_texts_that_are_cut(folder):
    (folder / "special_tokens_map.json").write_text("{}")
    assert plain_tokenizer(folder, "llama") is None
    (folder / "special_tokens_map.json").unlink()
    cut = {"max_length": 3, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
    configure(folder, "tokenizer.json", truncation=cut)
    assert plain_tokenizer(folder, "llama") is None
