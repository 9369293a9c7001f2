"""What the learner without language sees, and in which rooms it is judged."""

import json
from math import prod

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

pytest.importorskip("minigrid")
pytest.importorskip("stable_baselines3")

from stable_baselines3.common.policies import ActorCriticPolicy

from agents.codecs.babyai import mission_words
from agents.codecs.babyai_map import NOTHING, looked
from benchmarks import babyai_symbolic, babyai_words
from benchmarks.babyai_symbolic import HIDDEN, LONGEST, NUMBER_OF, NUMBERS, SIZE, Symbolic, encoded, success
from envs.babyai import ACTIONS, TASKS
from trainers.comparison import Chance


@pytest.mark.parametrize("task", TASKS)
def test_all_that_is_seen_and_said_can_be_read_back(task):
    env, words = gymnasium.make(babyai_words.TRAIN, task=task), list(NUMBER_OF)
    for seed in range(20):
        observation, _ = env.reset(seed=seed)
        numbers = encoded(observation)
        assert numbers.shape == (SIZE,)
        ends = np.cumsum([49 * count for count in NUMBERS])
        *parts, said, past = np.split(numbers, [*ends, ends[-1] + LONGEST * len(NUMBER_OF)])
        assert not past.any()
        for number, part in enumerate(parts):
            cells = part.reshape(7, 7, -1)
            assert (cells.sum(axis=2) == 1).all()
            assert (cells.argmax(axis=2) == observation["image"][..., number]).all()
        places = said.reshape(LONGEST, -1)
        mission = [words[row.argmax()] for row in places if row.any()]
        assert mission == mission_words(observation["mission"]).split()


def test_a_level_has_these_observations_with_what_the_agents_remember():
    plain = gymnasium.make(babyai_words.TRAIN, task="open")
    env = Symbolic(gymnasium.make(babyai_words.TRAIN, task="open"))
    codec, memory, met = babyai_words.BabyAITextCodec(plain.unwrapped), None, 0
    for action in (-1, 0, 0, 2, 1, -1, 1):
        views = [one.reset(seed=0)[0] if action < 0 else one.step(action)[0] for one in (plain, env)]
        assert env.observation_space.contains(views[1])
        seen = np.array([views[0], None], object)[:1]
        memory = codec.remember(memory, seen, np.array([action]))
        parts = [part.strip() for part in codec.encode(seen, memory)[0].split(",")]
        *_, hidden, done = np.split(views[1], [SIZE - ACTIONS - prod(HIDDEN), SIZE - ACTIONS])
        assert hidden.sum() == sum(" saw " in part for part in parts)
        told = [f"did {codec.action_words[i]}" for i in done.nonzero()[0]]
        assert told == [part for part in parts if part.startswith("did")]
        met += int(hidden.sum())
    assert met > 4


def test_it_is_judged_in_the_rooms_of_the_language_models():
    """Who always goes forward succeeds in as many rooms."""

    class Forward:
        def predict(self, seen):
            return np.full(len(seen), 2), None

    class ForwardToo(Chance):
        def act(self, texts, adapters, legal, rng):
            decision = super().act(texts, adapters, legal, rng)
            return decision._replace(action=np.full(len(texts), 2))

    env = gymnasium.make(babyai_words.TRAIN)
    codec = babyai_words.BabyAITextCodec(env.unwrapped)
    config = babyai_words.EnvConfig(id=babyai_words.TRAIN, agents=20, max_steps=64)
    condition = babyai_words.CONDITIONS["as trained"]
    assert success(Forward(), 40, 8) == babyai_words.success(ForwardToo(), codec, config, condition, 40)
    assert success(Forward(), 40, 8)["goto"].won


def test_it_learns_and_writes_what_it_found(tmp_path, capsys):
    file = tmp_path / "found.json"
    babyai_symbolic.main(["--steps", "2000", "--every", "1000", "--episodes", "1", "--json", str(file)])
    found = json.loads(file.read_text())
    assert list(found["found"]) == ["1280", "2560"]
    assert found["found"]["2560"].keys() == set(TASKS)
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_demonstrations_are_those_of_the_expert_and_can_be_cloned(capsys):
    seen, did = babyai_symbolic.demonstrations(300, 0, seed=3)
    assert seen.shape == (300, SIZE)
    env = gymnasium.make(babyai_words.TRAIN, num_dists=0, max_steps=64, expert=True)
    observation, info = env.reset(seed=int(np.random.default_rng(3).integers(2**31)))
    known, last = NOTHING, -1
    for numbers, action in zip(seen[:4].numpy(), did[:4].tolist(), strict=True):
        known = looked(known, observation, last)
        assert (numbers == encoded(observation, known, last)).all()
        last = action
        assert action == info["expert_action"]
        observation, *_, info = env.step(action)

    class Model:
        policy = ActorCriticPolicy(Box(0, 1, (SIZE,)), Discrete(6), lambda _: 1e-3)

    babyai_symbolic.clone(Model, seen, did, passes=150)
    probabilities = Model.policy.get_distribution(seen).distribution.probs
    assert (probabilities.argmax(1) == did).float().mean() > 0.9


def test_what_was_cloned_is_judged_before_it_learns_from_reward(capsys):
    babyai_symbolic.main(
        ["--demonstrations", "50", "--passes", "1", "--steps", "10", "--every", "10", "--episodes", "1"]
    )
    steps = [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]]
    assert steps == ["0", "1,280"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--steps", "0"], "--steps 0: must be 1 to 100,000,000"),
        (["--num-dists", "-1"], "--num-dists -1: must be 0 to 12"),
        (["--num-dists", "13"], "--num-dists 13: must be 0 to 12"),
        (["--seed", "4294967296"], "--seed 4294967296: must be 0 to 4,294,967,264"),
        (["--json", "nowhere/x.json"], "--json nowhere/x.json: must be in a folder that exists"),
    ],
)
def test_bad_options_are_named(arguments, says, capsys):
    with pytest.raises(SystemExit):
        babyai_symbolic.main(arguments)
    assert says in capsys.readouterr().err
