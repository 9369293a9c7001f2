"""Who was born, who was not chosen, who starved: enough to draw a family tree."""

import json
from dataclasses import replace

import numpy as np
import pytest

from evolution.events import births, deaths, evaluations, starvations


@pytest.fixture
def after(population):
    child = replace(population[1], id=16, parents=(10, 12), operator="merge", seed=99, generation=3)
    return [population[0], child, *population[2:]]


def test_a_birth_is_told_for_everyone_new_with_slot_and_parents(population, after):
    assert births(population, after) == [
        {
            "event": "birth",
            "generation": 3,
            "id": 16,
            "slot": 1,
            "parents": [10, 12],
            "operator": "merge",
            "in_rollout": False,
            "seed": 99,
            "hyperparameters": {"learning_rate": 0.1},
        }
    ]


def test_founders_are_born_too(population):
    events = births([], population)
    assert [(e["id"], e["slot"], e["parents"], e["operator"]) for e in events] == [
        (10 + i, i, [], "founder") for i in range(6)
    ]


def test_a_death_is_told_for_everyone_not_chosen(population, after):
    assert deaths(population, after, generation=2) == [
        {"event": "death", "generation": 2, "id": 11, "cause": "not selected", "fitness": 1.0}
    ]


def test_where_nothing_changed_there_is_nothing_to_tell(population):
    assert births(population, population) == deaths(population, population, 0) == []


def test_starvation_is_told_with_its_step_for_those_who_starved(population):
    lifetime = np.array([[5, 9, 7, 9, 9, 9], [9, 9, 9, 9, 9, 2]])
    assert starvations(population, lifetime, lifetime > 5, generation=1) == [
        {"event": "starved", "generation": 1, "id": 10, "world": 0, "step": 5},
        {"event": "starved", "generation": 1, "id": 15, "world": 1, "step": 2},
    ]


def test_a_life_is_told_with_what_it_earned_before_and_after_learning(population):
    returns = np.arange(12.0).reshape(2, 6)
    events = evaluations(population, returns, generation=3)
    assert events[1] == {"event": "evaluation", "generation": 3, "id": 11, "return": 4.0, "fitness": 1.0}
    assert [event["return"] for event in events] == [3, 4, 5, 6, 7, 8]


def test_events_survive_json(population, after):
    events = [
        *births(population, after),
        *deaths(population, after, 2),
        *starvations(population, np.arange(6)[None], np.arange(6)[None] > 3, 2),
    ]
    assert json.loads(json.dumps(events)) == events
