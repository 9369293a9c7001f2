"""The base comes frozen, in the number format asked for, with its own words."""

import pytest
import torch

from agents.types import ModelConfig
from agents.weights.base_model import load_base_model


def test_the_model_is_frozen_and_in_float32(tiny_model):
    base = load_base_model(ModelConfig(name=str(tiny_model)))
    assert {p.dtype for p in base.causal_lm.parameters()} == {torch.float32}
    assert not any(p.requires_grad for p in base.causal_lm.parameters())
    assert not base.causal_lm.training
    assert base.layers == 4


def test_a_word_is_one_token_with_its_space(tiny_model):
    base = load_base_model(ModelConfig(name=str(tiny_model)))
    assert [base.one_token("north")] == base.tokens(" north")
    assert base.tokens(" food north") == [base.one_token("food"), base.one_token("north")]
    with pytest.raises(ValueError, match=r"word .north east. is .* to .*tiny-llama: must be a word of one known token"):
        base.one_token("north east")
