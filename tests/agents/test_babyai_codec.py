"""BabyAI's levels in words: all that GLAM tells of a view and nothing more, in every level of MiniGrid."""

import contextlib
import io
import re
from collections import Counter

import gymnasium
import minigrid  # noqa: F401  registers its worlds
import numpy as np
import pytest
from minigrid.core.constants import COLOR_NAMES, IDX_TO_COLOR, IDX_TO_OBJECT
from minigrid.core.world_object import Ball, Box

from agents.codecs.babyai import LONGEST_MISSION, BabyAITextCodec, mission_words, phrases
from agents.codecs.codec import NUMBERS
from agents.codecs.others import CODECS, built_in
from agents.types import ModelConfig, UserError
from agents.weights.base_model import load_base_model
from envs.babyai import TASKS
from trainers.env_config import EnvConfig
from trainers.worlds import make_codec

TRAIN = "envs:BabyAI-MixedTrainLocal-v0"
LEVELS = sorted(name for name in gymnasium.registry if name.startswith("BabyAI-") and "Mixed" not in name)


def begun(name: str, seed: int = 0, **options):
    """An environment in which an episode has begun, and the observation; MiniGrid prints what it rejects."""
    env = gymnasium.make(name, **options)
    with contextlib.redirect_stdout(io.StringIO()):
        return env, env.reset(seed=seed)[0]


def states(name: str, steps: int, seed: int = 0, **options):
    """Environment and observation at each of some random steps, episode after episode."""
    env, observation = begun(name, seed, **options)
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        yield env, observation
        observation, _, over, cut, _ = env.step(int(rng.choice(6, p=(0.15, 0.15, 0.3, 0.2, 0.1, 0.1))))
        if over or cut:
            with contextlib.redirect_stdout(io.StringIO()):
                observation, _ = env.reset()


def glam(env) -> list[str]:
    """What BabyAI-Text says of a view, as `gen_graph` of its gym_minigrid does in English, written anew."""
    world = env.unwrapped
    grid, mask = world.gen_obs_grid()
    image = grid.encode(mask)
    x, y = image.shape[0] // 2, image.shape[1] - 1
    steps = lambda count, word: f"{count} step{'s' if count > 1 else ''} {word}"  # noqa: E731
    told = [f"You carry a {world.carrying.color} {world.carrying.type}"] if world.carrying else []
    for word, dx, dy in (("forward", 0, -1), ("left", -1, 0), ("right", 1, 0)):
        i, j, count = x + dx, y + dy, 1
        while 0 <= i < len(image) and j >= 0:
            if image[i, j, 0] not in (0, 1):
                if image[i, j, 0] == 2:
                    told.append(f"You see a wall {steps(count, word)}")
                break
            i, j, count = i + dx, j + dy, count + 1
    for i, j in zip(*np.nonzero(image[..., 0] > 2), strict=True):
        if (i, j) == (x, y):
            continue
        kind, colour, state = (int(number) for number in image[i, j])
        door = ("open ", "closed ", "locked ")[state] if IDX_TO_OBJECT[kind] == "door" else ""
        aside = [steps(abs(i - x), "right" if i > x else "left")] if i != x else []
        far = [*aside, *([steps(y - j, "forward")] if j != y else [])]
        told.append(f"You see a {door}{IDX_TO_COLOR[colour]} {IDX_TO_OBJECT[kind]} {' and '.join(far)}")
    return told


def facts_of_glam(told: list[str]) -> Counter:
    """(Thing, {direction: steps}) of each sentence."""
    facts: Counter = Counter()
    for sentence in told:
        thing = re.match(r"You (?:see|carry) a ([a-z ]+?)(?: \d.*)?$", sentence)[1]
        place = {word: int(count) for count, word in re.findall(r"(\d) steps? (\w+)", sentence)}
        facts[thing, "carried" if sentence.startswith("You carry") else frozenset(place.items())] += 1
    return facts


def facts_of(told: list[str]) -> Counter:
    """The same of phrases of the codec."""
    facts: Counter = Counter()
    for phrase in told:
        if phrase.startswith("carry "):
            facts[phrase.removeprefix("carry "), "carried"] += 1
            continue
        thing, _, place = phrase.partition(" " if phrase.startswith("wall") else " is ")
        words = place.split()
        steps = {word: NUMBERS.index(number) for word, number in zip(words[::2], words[1::2], strict=True)}
        facts[thing, frozenset(steps.items())] += 1
    return facts


@pytest.mark.parametrize("task", TASKS)
def test_it_tells_all_that_glam_tells_and_nothing_more(task):
    carried = seen = 0
    for env, observation in states(TRAIN, 300, task=task):
        *told, mission = phrases(observation)
        assert facts_of(told) == facts_of_glam(glam(env))
        assert mission.split() == [w for w in re.findall(r"\w+", observation["mission"]) if w not in ("the", "a")]
        carried, seen = carried + any("carry" in phrase for phrase in told), seen + len(told)
    assert carried > 5
    assert seen > 600


@pytest.mark.parametrize("name", LEVELS)
def test_it_can_say_every_level_of_minigrid(name):
    for env, observation in states(name, 12, seed=1):
        codec = built_in(name, env)
        assert isinstance(codec, BabyAITextCodec)
        *told, mission = codec.phrases(observation)
        if "Carrying" not in name or env.unwrapped.step_count:  # these first show on the floor what is carried already
            assert facts_of(told) == facts_of_glam(glam(env))
        assert len(mission.split()) <= LONGEST_MISSION
        assert codec.action_words == BabyAITextCodec.action_words
        assert codec.legal(np.array([observation, None], object)).tolist() == [[True] * 6 + [False], [True] * 7]


def test_all_levels_are_tried():
    assert len(LEVELS) >= 96


def hidden(env) -> list[tuple[int, int]]:
    """The cells that the agent does not see, walls and its own left out."""
    world = env.unwrapped
    _, mask = world.gen_obs_grid()
    cells = [(i, j) for i in range(world.width) for j in range(world.height) if (i, j) != tuple(world.agent_pos)]
    places = [(cell, world.relative_coords(*cell), world.grid.get(*cell)) for cell in cells]
    return [c for c, at, thing in places if (at is None or not mask[at]) and (thing is None or thing.type != "wall")]


@pytest.mark.parametrize("task", TASKS)
def test_worlds_with_the_same_view_load_and_mission_give_the_same_text(task):
    rng, changed = np.random.default_rng(0), 0
    for seed in range(15):
        twins = [begun(TRAIN, seed, task=task)[0] for _ in range(2)]
        for action in rng.choice(6, 12, p=(0.15, 0.15, 0.3, 0.2, 0.1, 0.1)):
            seen = [env.step(int(action)) for env in twins]
            if seen[0][2]:
                break
        other = twins[1].unwrapped
        for cell in hidden(other):
            other.grid.set(*cell, rng.choice([None, Ball(rng.choice(COLOR_NAMES)), Box(rng.choice(COLOR_NAMES))]))
            changed += 1
        texts = [BabyAITextCodec(env).describe(env.unwrapped.gen_obs()) for env in twins]
        assert texts[0] == texts[1]
    assert changed > 200


def test_what_is_in_view_changes_the_text():
    env, observation = begun(TRAIN, task="goto")
    codec, before = BabyAITextCodec(env), None
    for place in [(3, 5), (2, 6), (0, 0)]:
        observation["image"][place] = (6, 3, 0)
        assert codec.describe(observation) != before
        before = codec.describe(observation)


def scene(mission: str, *cells: tuple[int, int, tuple[int, int, int]], is_dark: bool = False) -> dict:
    """An observation of an empty plain, or of unseen cells, with some cells: (column, row, (kind, colour, state))."""
    image = np.zeros((7, 7, 3), np.uint8)
    image[..., 0] = not is_dark
    for column, row, cell in cells:
        image[column, row] = cell
    return {"image": image, "direction": 0, "mission": mission}


RED_BALL, BLUE_BOX, GREEN_DOOR, WALL = (6, 0, 0), (7, 2, 0), (4, 1, 2), (2, 5, 0)
SEEN = scene(
    "put the red ball next to a blue box",
    *((1, 5, RED_BALL), (3, 3, GREEN_DOOR), (3, 1, WALL), (5, 6, WALL), (3, 6, BLUE_BOX), (4, 5, BLUE_BOX)),
)


@pytest.fixture
def codec():
    return BabyAITextCodec(begun(TRAIN)[0])


def test_a_text_reads_like_this(codec):
    told = (
        "wall right two",
        "blue box is forward one right one",
        "red ball is forward one left two",
        "locked green door is forward three",
        "carry blue box",
    )
    twice = "".join(f" {phrase} {phrase}," for phrase in told)
    assert codec.encode(np.array([SEEN], object), None) == [f"{twice} put red ball next to blue box"]
    assert codec.describe(scene("open a door")) == " open door"
    codec.echo = False
    beyond_unseen = scene("open a door", (3, 2, WALL), (3, 4, (0, 0, 0)), (0, 6, WALL), (1, 6, RED_BALL))
    assert codec.describe(beyond_unseen) == " wall forward four, red ball is left two, open door"
    assert len(codec.action_words) == 6


def test_attributes_switch_how_things_are_said():
    class Other(BabyAITextCodec):
        part_end, link, goal_last, ahead_first, articles, echo = "", "lies", False, False, True, False
        saw = "remember"

    codec = Other(begun(TRAIN)[0])
    assert codec.describe(SEEN) == (
        " put the red ball next to a blue box, wall right two, a blue box lies right one forward one, "
        "a red ball lies left two forward one, a locked green door lies forward three, carry a blue box"
    )
    memory, _ = looks(codec, None, SEEN, -1)
    assert looks(codec, memory, scene("open a red door", (3, 6, BLUE_BOX), is_dark=True), 0)[1] == (
        " open a red door, carry a blue box, right behind remember a blue box, "
        "right forward remember a red ball, right remember a locked green door, did left"
    )


def test_history_tells_what_was_seen_and_done_before_and_begins_anew_with_an_episode():
    class Long(BabyAITextCodec):
        part_end, history, echo, saw = "", 2, False, ""

    codec = Long(begun(TRAIN)[0])
    near, far = scene("go to the red ball", (3, 5, RED_BALL)), scene("go to the red ball", (3, 3, RED_BALL))

    def look(memory, *seen, action):
        memory = codec.remember(memory, np.array([*seen, None], object)[:-1], np.array(action))
        return memory, codec.encode(np.array([one or near for one in seen], object), memory)

    memory, texts = look(None, near, far, action=[-1, -1])
    assert texts == [" red ball is forward one, go to red ball", " red ball is forward three, go to red ball"]
    memory, texts = look(memory, scene("go to the red ball"), near, action=[0, -1])
    assert texts == [
        " red ball is forward one, did left, go to red ball",
        " red ball is forward one, go to red ball",
    ]
    memory, _ = look(memory, scene("go to the red ball"), near, action=[1, 2])
    memory, texts = look(memory, None, near, action=[2, 5])  # the first sees nothing: it does not play
    assert (
        texts[1]
        == " "
        + "".join(f"red ball is forward one, {then}, " for then in ("did forward", "did toggle"))
        + "red ball is forward one, go to red ball"
    )
    assert memory.before[0].tolist() == ["did right", "did forward"]
    assert memory.seen[0] == ""


def test_the_present_is_told_twice_and_the_past_once():
    class Long(BabyAITextCodec):
        part_end, history, saw = "", 1, ""

    codec, near = Long(begun(TRAIN)[0]), scene("go to the red ball", (3, 5, RED_BALL))
    memory = codec.remember(None, np.array([near], object), np.array([-1]))
    memory = codec.remember(memory, np.array([near], object), np.array([0]))
    told = "red ball is forward one"
    assert codec.encode(np.array([near], object), memory) == [f" {told}, did left, {told} {told}, go to red ball"]


def looks(codec, memory, observation, action):
    """What one agent remembers, and the text that it reads."""
    seen = np.array([observation, None], object)[:1]
    memory = codec.remember(memory, seen, np.array([action]))
    return memory, codec.encode(seen, memory)[0]


def test_what_was_done_last_and_what_was_seen_is_told_until_the_episode_ends(codec):
    def dark(*cells):
        return scene("open a door", *cells, is_dark=True)

    memory, text = looks(codec, None, dark((3, 3, GREEN_DOOR), (1, 5, RED_BALL)), -1)
    assert "saw" not in text
    memory, text = looks(codec, memory, dark((3, 5, RED_BALL)), 0)
    seen = "forward right saw red ball, right saw locked green door"  # in the order of the alphabet: texts stay few
    assert text == f" red ball is forward one red ball is forward one, {seen}, did left, open door"
    memory, text = looks(codec, memory, dark((3, 5, (1, 0, 0)), (3, 6, RED_BALL)), 3)
    assert text == f" carry red ball carry red ball, {seen}, did pick, open door"
    memory, text = looks(codec, memory, dark(), 2)
    told = " behind right saw locked green door, forward right saw red ball, did forward, open door"
    assert text == told
    _, text = looks(codec, memory, dark((4, 5, (1, 0, 0))), 5)
    assert text == " behind right saw locked green door, did toggle, open door", "where it was there is nothing now"
    _, text = looks(codec, memory, dark(), -1)
    assert text == " open door"


def test_the_past_is_told_alike_after_the_same_views_and_can_be_left_out(codec):
    class Forgetful(BabyAITextCodec):
        saw, last = "", False

    env = begun(TRAIN, task="open")[0]
    forgetful, memory, told = Forgetful(env), None, 0
    again = None
    for action in (-1, 0, 0, 2, 1, 2, 0, 0):
        observation = env.unwrapped.gen_obs() if action < 0 else env.step(action)[0]
        memory, text = looks(codec, memory, observation, action)
        again, same = looks(codec, again, observation, action)
        assert same == text
        told += "saw" in text
        nothing, present = looks(forgetful, None, observation, action)
        assert nothing is None
        assert present == codec.describe(observation)
        assert set(present.split(",")) <= set(text.split(","))
    assert told > 3


@pytest.mark.parametrize(
    ("mission", "message"),
    [
        (
            "fetch the red ball",
            "the mission 'fetch the red ball': must be in BabyAI's language, which has no word 'fetch'",
        ),
        ("", "the mission '': must be in BabyAI's language, which has no word ''"),
        ("go to " + "the ball " * 36, "has 74 words: must have at most 72"),
    ],
)
def test_missions_that_it_cannot_say_are_refused_in_one_sentence(codec, mission, message):
    with pytest.raises(UserError, match=re.escape(message)):
        codec.encode(np.array([scene(mission)], object), None)


def test_the_longest_mission_of_the_language_can_be_said():
    clause = "put the red ball in front of you next to the blue box in front of you"
    mission = f"{clause} and {clause} after you {clause} and {clause}"
    assert len(mission.split()) == LONGEST_MISSION
    assert mission_words(mission, True) == mission


def test_a_view_beyond_the_numbers_is_refused_before_a_run_begins():
    with pytest.raises(
        UserError, match=r"^the view is 9 cells deep: must be at most 8, so that a word tells each step$"
    ):
        make_codec(EnvConfig(id="BabyAI-GoToLocal-v0", options={"agent_view_size": 9}))
    assert len(make_codec(EnvConfig(id=TRAIN, options={"task": "open"})).action_words) == 6


@pytest.mark.real
def test_every_word_is_one_token_of_the_real_tokenizer():
    base = load_base_model(ModelConfig())
    assert BabyAITextCodec in CODECS.values()
    said = {
        word for _, observation in states(TRAIN, 1000) for phrase in phrases(observation) for word in phrase.split()
    }
    assert {"wall", "carry", "locked", "left", "three", "is", "put", "pick", "then", "grey"} <= said
    for word in said | {BabyAITextCodec.did, BabyAITextCodec.saw}:
        base.one_token(word)


@pytest.mark.parametrize(("switch", "value"), [("history", 1), ("goal_last", False)])
def test_what_needs_the_order_of_phrases_is_refused_where_they_are_read_apart(switch, value):
    kind = type("Ordered", (BabyAITextCodec,), {switch: value})
    with pytest.raises(UserError, match=r"Ordered.part_end = ',': must be empty with history or goal first"):
        kind(gymnasium.make(TRAIN))
