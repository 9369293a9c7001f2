"""Births within a rollout: who gets the slot of an agent that starves, and when nobody does."""

import json
from dataclasses import replace

import numpy as np
import pytest

from trainers.cli.parser import parse
from trainers.rollout import Observed
from trainers.stages import Generation
from trainers.train import train
from trainers.variants.steady_state_config import SteadyStateConfig

DIED, LIVING = np.array([True, *[False] * 5]), np.array([False, *[True] * 4, False])
EARNED = np.array([9.0, 1.0, 4.0, 3.0, 2.0, 8.0], np.float32)


@pytest.fixture
def observed(begun):
    """Has births watch one step of a rollout; the run, and who came."""

    def watch(**changed):
        run = begun("--steady_state.enabled", "true", "--evolution.parents", "2")
        (births,) = run.population.variants["steady_state"].observers(run, Generation(0))
        world = run.world(0)
        world.reset(np.array([3]))
        seen = Observed(3, False, [], {"is_terminal": DIED}, LIVING, EARNED, world)
        return run, births.step(seen._replace(**changed))

    return watch


def test_the_place_of_who_starves_goes_to_a_child_of_the_fittest_who_live(observed):
    run, newcomers = observed()
    assert newcomers.is_new.tolist() == DIED.tolist()
    assert newcomers.observation.shape[:2] == (1, 6)
    assert [genome.id for genome in run.population.genomes] == [6, 1, 2, 3, 4, 5]
    assert set(run.population.genomes[0].parents) == {2, 3}, "0 and 5 had more, but are dead"


@pytest.mark.parametrize(
    "changed",
    [{"is_last": True}, {"transition": {"is_terminal": DIED & False}}, {"is_playing": LIVING & (np.arange(6) == 1)}],
    ids=["the last step", "nobody died", "one lives"],
)
def test_nobody_is_born_without_need_or_to_one_alone(observed, changed):
    run, newcomers = observed(**changed)
    assert newcomers is None
    assert [genome.id for genome in run.population.genomes] == list(range(6))


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [("learn", "algorithm", "online"), ("evolution", "enabled", False), ("evolution", "selection", "random")],
)
def test_it_goes_with_what_it_can_go_with(tiny_config, section, name, value):
    config = replace(tiny_config, steady_state=SteadyStateConfig(enabled=True))
    with pytest.raises(ValueError, match=rf"{section}.{name} = {value!r}: must be .* with steady_state.enabled"):
        replace(config, **{section: replace(getattr(config, section), **{name: value})})


def test_the_place_of_who_starves_is_taken_by_a_child_of_the_living(tiny_arguments, tmp_path):
    arguments = [*tiny_arguments, "--generations", "2", "--run_dir", str(tmp_path / "run")]
    train(parse([*arguments, "--steady_state.enabled", "true"])[0])
    events = [json.loads(line) for line in (tmp_path / "run" / "lineage.jsonl").read_text().splitlines()]
    starved = [e for e in events if e["event"] == "death" and e["cause"] == "starved"]
    born = {e["id"]: e for e in events if e["event"] == "birth"}
    assert starved
    holders: dict[int, int] = {}
    for event in events:
        if event["event"] == "birth":
            holders[event["slot"]] = event["id"]
            assert all(born[parent]["id"] < event["id"] for parent in event["parents"])
    assert len(set(holders.values())) == 6
    lives = [e["id"] for e in events if e["event"] == "evaluation" and e["generation"] == 1]
    assert sorted(lives) == sorted(holders.values())
    first = [e for e in events if e["event"] == "birth" and e["parents"] and e["generation"] == 0]
    assert first, "somebody must be born in the first generation, where only starving makes room"
