"""In a world of hunters and prey, each kind is judged, and breeds, among its own."""

import json
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from envs.worlds.team_world import TeamWorld, make_team, roles
from trainers.cli.parser import parse
from trainers.lineage import family_tree
from trainers.records.reading import read_log
from trainers.train import train

CODEC = """
from agents.codecs.others import PlainCodec


class Tag(PlainCodec):
    instructions = "Hunt, or flee.\\n"
    action_words = ("stay", "left", "right", "down", "up")

    def describe(self, observation):
        return f"{'hunter' if len(observation) == 16 else 'prey'} {'far' if observation[2] > 0 else 'near'}"
"""


@pytest.fixture(scope="module", autouse=True)
def codec(tmp_path_factory):
    """A module of the user's with words for the world."""
    folder = tmp_path_factory.mktemp("codec")
    (folder / "tag_codec.py").write_text(CODEC)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield


def run(tiny_model, run_dir, *more):
    words = [
        *("--env.codec", "tag_codec:Tag"),
        *("--model.name", str(tiny_model), "--model.dtype", "float32", "--adapter.top_layers", "2"),
        *("--env.id", "mpe2.simple_tag_v3", "--env.agents", "8", "--env.max_steps", "8", "--held_out_episodes", "2"),
        *("--evolution.parents", "4", "--evolution.elites", "4", "--evolution.episodes", "2", "--generations", "3"),
        *("--adapter.rank", "2", "--run_dir", str(run_dir)),
    ]
    train(parse([*words, *more])[0])
    events = read_log(run_dir, "lineage.jsonl")
    return events, family_tree(events)


@pytest.fixture(scope="module")
def finished(tiny_model, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("roles") / "run"
    return run_dir, *run(tiny_model, run_dir)


def test_a_role_is_a_name_without_its_number_and_the_spaces():
    env = make_team("mpe2.simple_tag_v3", {})
    assert roles(env) == ["adversary", "adversary", "adversary", "agent"]
    env.close()
    spaces = {"adversary_0": (1, 2), "agent": (1, 2), "7": (2, 2), "8": (3, 2), "9": (2, 2)}
    other = SimpleNamespace(
        possible_agents=list(spaces),
        observation_space=lambda agent: spaces[agent][0],
        action_space=lambda agent: spaces[agent][1],
    )
    assert roles(other) == ["adversary", "agent", "agent 2", "agent 3", "agent 2"]
    world = TeamWorld("mpe2.simple_tag_v3", {}, 10, 8, renews=False)
    assert Counter(world.roles) == {"adversary": 8, "agent": 2}


def test_children_descend_from_those_of_their_role_and_every_role_breeds(finished):
    _, _, tree = finished
    born = Counter()
    for child in tree:
        for parent in tree.predecessors(child):
            assert tree.nodes[parent]["role"] == tree.nodes[child]["role"]
            born[tree.nodes[child]["role"]] += 1
    # of 6 hunters half live on, and of 2 prey one: 3 + 1 children, in each of two generations, of two parents each
    assert born == {"adversary": 12, "agent": 4}
    for slot, role in ((0, "adversary"), (3, "agent")):
        assert all(about["role"] == role for _, about in tree.nodes(data=True) if about["slot"] == slot)


def test_scores_and_mean_fitness_are_those_of_a_role(finished):
    run_dir, events, tree = finished
    drawn = EventAccumulator(str(run_dir / "tb"))
    drawn.Reload()
    metrics = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    for generation, line in enumerate(metrics):
        fitness = {
            e["id"]: e["fitness"] for e in events if e["event"] == "evaluation" and e["generation"] == generation
        }
        for role in ("adversary", "agent"):
            own = [one for one in fitness if tree.nodes[one]["role"] == role]
            assert line[f"fitness_of_{role}"] == pytest.approx(np.mean([fitness[one] for one in own]))
            assert drawn.Scalars(f"fitness/of_{role}")[generation].value == pytest.approx(line[f"fitness_of_{role}"])
            assert np.mean([tree.nodes[one]["score"][generation] for one in own]) == pytest.approx(0, abs=1e-9)


def test_on_demand_all_are_compared_with_all(tiny_model, tmp_path):
    events, tree = run(tiny_model, tmp_path / "run", "--env.by_role", "false", "--generations", "2")
    assert all("role" not in event for event in events)
    assert sum(1 for _, about in tree.nodes(data=True) if about["generation"] == 1) == 4
    with pytest.raises(ValueError, match=r"env.by_role = False: must be true except in a PettingZoo world"):
        replace(parse([])[0].env, by_role=False)
