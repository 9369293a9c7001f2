"""Settings that cannot be are refused by name."""

from math import inf, nan

import pytest

from agents.types import AdapterConfig, ModelConfig


@pytest.mark.parametrize(
    ("field", "value"),
    [("rank", 0), ("rank", 257), ("alpha", 0.0), ("alpha", nan), ("alpha", inf), ("top_layers", 0), ("tokens", "all")],
)
def test_an_impossible_adapter_is_refused_by_field(field, value):
    with pytest.raises(ValueError, match=rf"adapter\.{field} = .*: must be"):
        AdapterConfig(**{field: value})


@pytest.mark.parametrize(
    ("field", "value"), [("dtype", "int8"), ("trunk", "bfloat16"), ("prefix_cache_mb", 0), ("threads", -1)]
)
def test_an_impossible_model_is_refused_by_field(field, value):
    with pytest.raises(ValueError, match=rf"model\.{field} = .*: must be"):
        ModelConfig(**{field: value})
