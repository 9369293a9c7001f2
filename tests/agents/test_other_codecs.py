"""Other people's worlds in words: what is said is so, and is enough to act on."""

import gymnasium
import minigrid  # noqa: F401  registers its worlds
import numpy as np
import pytest
from mpe2 import simple_spread_v3

from agents.codecs.codec import NUMBERS, PlainCodec
from agents.codecs.forage import ForageCodec
from agents.codecs.others import CODECS, FrozenLakeCodec, MiniGridCodec, SpreadCodec, built_in
from agents.types import ModelConfig
from agents.weights.base_model import load_base_model

WORDS = {kind: list(kind.action_words) for kind in CODECS.values()}


def offset(words: list[str], axes: dict[str, tuple[int, int]]) -> np.ndarray:
    """Where "two south one east" leads, for the directions of `axes`."""
    pairs = zip(words[::2], words[1::2], strict=True)
    return sum((NUMBERS.index(number) * np.array(axes[word]) for number, word in pairs), np.zeros(2, int))


COMPASS = {"north": (-1, 0), "south": (1, 0), "east": (0, 1), "west": (0, -1)}
STEPS = {"left": (0, -1), "down": (1, 0), "right": (0, 1), "up": (-1, 0)}


@pytest.mark.parametrize("name", ["4x4", "8x8"])
def test_frozen_lake_tells_the_way_to_the_goal_and_the_holes_around_in_every_place(name):
    env = gymnasium.make("FrozenLake-v1", map_name=name)
    codec, field = FrozenLakeCodec(env), env.unwrapped.desc
    for state in range(field.size):
        here = np.array(divmod(state, len(field)))
        way, *holes = codec.describe(np.int64(state)).split(", ")
        words = [word for word in way.split()[1:] if word != "here"]
        assert field[tuple(here + offset(words, COMPASS))] == b"G", state
        around = {word: tuple(here + step) for word, step in STEPS.items()}
        is_hole = {w for w, place in around.items() if min(place) >= 0 and max(place) < len(field)}
        assert {f"hole {word}" for word in is_hole if field[around[word]] == b"H"} == set(holes), state


def test_frozen_lake_action_words_lead_where_they_say():
    env = gymnasium.make("FrozenLake-v1", is_slippery=False, desc=["FFF", "FSF", "FFG"])
    for action, word in enumerate(FrozenLakeCodec.action_words):
        env.reset(seed=0)
        assert tuple(np.array(divmod(env.step(action)[0], 3)) - (1, 1)) == STEPS[word]


def test_frozen_lake_has_words_for_maps_of_any_size():
    env = gymnasium.make("FrozenLake-v1", desc=["S" + "F" * 11, "F" * 11 + "G"])
    assert FrozenLakeCodec(env).describe(0) == "goal south east"
    assert FrozenLakeCodec(env).describe(5) == "goal one south six east"


def minigrid_at(name: str, **options):
    env = gymnasium.make(name, **options)
    return env, MiniGridCodec(env)


def named(text: str, thing: str) -> list[str] | None:
    """The words after a thing's name, None if it is not named."""
    parts = [part.split() for part in text.split(", ")]
    return next((words[1:] for words in parts if words[0] == thing), None)


@pytest.mark.parametrize("view", [5, 7, 9])
def test_minigrid_says_where_the_goal_is_and_whether_a_wall_is_in_front(view):
    env, codec = minigrid_at("MiniGrid-Empty-Random-6x6-v0", agent_view_size=view)
    rng, told = np.random.default_rng(0), 0
    for seed in range(30):
        observation, _ = env.reset(seed=seed)
        for _ in range(8):
            text, world = codec.describe(observation), env.unwrapped
            ahead, right = world.dir_vec, world.right_vec
            axes = {"forward": ahead, "right": right, "left": -right}
            words = named(text, "goal")
            assert (words is None) == text.startswith("nothing")
            if words is not None:
                told += 1
                assert world.grid.get(*(np.array(world.agent_pos) + offset(words, axes))).type == "goal"
            in_front = world.grid.get(*world.front_pos)
            is_wall = in_front is not None and in_front.type == "wall"
            assert text.endswith(", wall") == is_wall
            assert codec.allowed(observation)[2] != is_wall
            action = int(rng.choice(np.flatnonzero(codec.allowed(observation))))
            observation, _, over, cut, _ = env.step(action)
            if over or cut:
                break
    assert told > 30


def follow(text: str, allowed: list[bool], rng: np.random.Generator) -> str:
    """What somebody does who knows nothing but the words and which moves are allowed."""
    free = {word for word, may in zip(MiniGridCodec.action_words, allowed, strict=True) if may}
    for deed in ("pick", "open"):
        if deed in free:
            return deed
    words = next((w for thing in ("goal", "key", "door") if (w := named(text.removeprefix("with key, "), thing))), None)
    if words and "forward" in words and "forward" in free:
        return "forward"
    if words and {"left", "right"} & set(words):
        return words[-1]
    return "forward" if "forward" in free and rng.random() < 0.7 else str(rng.choice(["left", "right"]))


@pytest.mark.parametrize(
    "name", ["MiniGrid-Empty-5x5-v0", "MiniGrid-Empty-8x8-v0", "MiniGrid-DoorKey-5x5-v0", "MiniGrid-DoorKey-8x8-v0"]
)
def test_minigrid_words_and_allowed_actions_are_enough_to_reach_the_goal(name):
    env, codec = minigrid_at(name)
    rng, returns = np.random.default_rng(0), []
    for seed in range(10):
        observation, _ = env.reset(seed=seed)
        over = cut = False
        while not (over or cut):
            word = follow(codec.describe(observation), codec.allowed(observation), rng)
            observation, reward, over, cut, _ = env.step(WORDS[MiniGridCodec].index(word))
        returns.append(reward)
    assert min(returns) > 0, "each goal was to be reached"


def test_minigrid_never_drops_and_never_says_done_and_opens_only_with_a_key():
    env, codec = minigrid_at("MiniGrid-DoorKey-5x5-v0")
    rng, opened = np.random.default_rng(1), 0
    for seed in range(10):
        observation, _ = env.reset(seed=seed)
        over = cut = False
        while not (over or cut):
            allowed = dict(zip(codec.action_words, codec.allowed(observation), strict=True))
            world, front = env.unwrapped, env.unwrapped.grid.get(*env.unwrapped.front_pos)
            is_carrying = world.carrying is not None
            kind = front.type if front else "empty"
            assert not allowed["drop"]
            assert not allowed["done"]
            assert allowed["pick"] == (kind == "key")
            assert allowed["open"] == (kind == "door" and not front.is_open and is_carrying)
            assert codec.describe(observation).startswith("with key, ") == is_carrying
            opened += allowed["open"]
            action = int(rng.choice(np.flatnonzero(list(allowed.values()))))
            observation, _, over, cut, _ = env.step(action)
    assert opened


def spread_text(place: np.ndarray) -> str:
    words = ""
    for distance, back, forth in zip(place, ("left", "down"), ("right", "up"), strict=True):
        if abs(distance) >= 0.1:
            words += (" near " if abs(distance) < 0.5 else " far ") + (forth if distance > 0 else back)
    return "spot" + (words or " here")


@pytest.mark.parametrize("team", [1, 2, 3, 5])
def test_simple_spread_sends_each_to_the_nearest_spot_that_nobody_else_is_nearer_to(team):
    env = simple_spread_v3.parallel_env(N=team)
    codec, rng, contested = SpreadCodec(env), np.random.default_rng(0), 0
    for seed in range(20):
        observations, _ = env.reset(seed=seed)
        while env.agents:
            world = env.unwrapped.world
            people = np.array([agent.state.p_pos for agent in world.agents])
            spots = np.array([landmark.state.p_pos for landmark in world.landmarks])
            distance = np.linalg.norm(people[:, None] - spots, axis=-1)
            for i, name in enumerate(env.agents):
                is_free = distance[i] <= distance.min(0)
                choice = np.flatnonzero(is_free) if is_free.any() else np.arange(team)
                spot = spots[choice[distance[i, choice].argmin()]]
                contested += not is_free[distance[i].argmin()] and bool(is_free.any())
                assert codec.describe(observations[name]) == spread_text((spot - people[i]).astype(np.float32))
            observations = env.step({name: int(rng.integers(5)) for name in env.agents})[0]
    assert contested or team == 1


def test_a_contested_spot_is_left_alone_however_far_the_free_one_is():
    near, far, other = (0.5, 0.0), (-40.0, 0.0), (0.5, 0.1)
    observation = np.array([0, 0, 0, 0, *near, *far, *other, 0, 0], np.float32)
    assert SpreadCodec(None).describe(observation) == "spot far left"


def test_following_the_words_of_simple_spread_covers_the_spots():
    env = simple_spread_v3.parallel_env(N=3)
    codec, before, after = SpreadCodec(env), [], []
    for seed in range(10):
        observations, _ = env.reset(seed=seed)
        start = uncovered(env)
        while env.agents:
            words = {name: codec.describe(observations[name]).split() for name in env.agents}
            wish = {name: next((w for w in said if w in codec.action_words), "stay") for name, said in words.items()}
            observations = env.step({name: WORDS[SpreadCodec].index(word) for name, word in wish.items()})[0]
        before.append(start)
        after.append(uncovered(env))
    assert np.mean(after) < 0.5 * np.mean(before)


def uncovered(env) -> float:
    """Mean distance from a spot to the nearest agent."""
    world = env.unwrapped.world
    people = np.array([agent.state.p_pos for agent in world.agents])
    spots = np.array([landmark.state.p_pos for landmark in world.landmarks])
    return float(np.linalg.norm(people[:, None] - spots, axis=-1).min(0).mean())


@pytest.mark.parametrize(
    ("env_id", "kind"),
    [
        ("FrozenLake-v1", FrozenLakeCodec),
        ("FrozenLake8x8-v1", FrozenLakeCodec),
        ("MiniGrid-Empty-8x8-v0", MiniGridCodec),
        ("minigrid:MiniGrid-DoorKey-5x5-v0", MiniGridCodec),
        ("mpe2.simple_spread_v3", SpreadCodec),
    ],
)
def test_known_worlds_have_a_codec(env_id, kind):
    world = object()
    codec = built_in(env_id, world)
    assert type(codec) is kind
    assert codec.world is world


@pytest.mark.parametrize("env_id", ["CartPole-v1", "mpe2.simple_tag_v3", "MiniGrid-LavaGapS5-v0", "frozenlake", ""])
def test_unknown_worlds_have_none(env_id):
    assert built_in(env_id, None) is None


def test_who_sees_nothing_may_do_everything():
    class Shy(PlainCodec):
        action_words = ("yes", "no")

        def describe(self, observation):
            return f"  {observation} "

        def allowed(self, observation):
            return [False, True]

    seen = np.array([3, None, 4], object)
    codec = Shy(None)
    assert codec.legal(seen).tolist() == [[False, True], [True, True], [False, True]]
    assert codec.legal(seen[:0]).shape == (0, 2)
    assert codec.encode(seen[[0, 2]], None) == [" 3", " 4"]


@pytest.mark.real
def test_every_word_to_be_answered_is_one_token_of_the_real_tokenizer():
    base = load_base_model(ModelConfig())
    for codec in (ForageCodec, *CODECS.values()):
        tokens = [base.one_token(word) for word in codec.action_words]
        assert len(set(tokens)) == len(tokens)
        base.one_token(codec.answer)
