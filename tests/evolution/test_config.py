"""What evolution can be asked for: a mistake is one sentence, and values of earlier versions name their new ones."""

from math import inf, nan

import pytest

from evolution import EvolutionConfig

WORDS = {"selection": "truncation, rank", "crossover": "mean, uniform_layers", "mutation": "noise, safe"}
"""How the lists of what is allowed begin."""


@pytest.mark.parametrize("name", WORDS)
def test_an_unknown_word_is_refused(name):
    with pytest.raises(ValueError, match=rf"^evolution\.{name} = 'other': must be one of {WORDS[name]}"):
        EvolutionConfig(**{name: "other"})


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("selection", "top", "truncation"),
        ("crossover", "swap", "uniform_layers"),
        ("crossover", "components", "uniform_components"),
    ],
)
def test_a_word_of_earlier_versions_is_refused_with_the_new_one(name, old, new):
    with pytest.raises(ValueError, match=rf"evolution\.{name} = '{old}': must be .* \({old} is now called {new}\)$"):
        EvolutionConfig(**{name: old})
    assert getattr(EvolutionConfig(**{name: new}), name) == new


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("parents", 1, "2 or more"),
        ("elites", -1, "0 or more"),
        ("episodes", 0, "1 or more"),
        ("mutation_std", -0.1, "finite and 0 or more"),
        ("mutation_std", nan, "finite and 0 or more"),
        ("mutation_kl", -0.1, "finite and 0 or more"),
        ("hyperparameter_factor", 0.9, "finite and 1 or more"),
        ("hyperparameter_factor", inf, "finite and 1 or more"),
    ],
)
def test_an_impossible_number_is_refused(name, value, allowed):
    with pytest.raises(ValueError, match=rf"^evolution\.{name} = {value}: must be {allowed}, at most [0-9,]+$"):
        EvolutionConfig(**{name: value})
