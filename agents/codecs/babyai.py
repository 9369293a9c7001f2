"""BabyAI's levels in words: all that is in view and its place, what is carried, and the mission.

What is told is what BabyAI-Text tells (Carta et al. 2023, arXiv:2302.02662), in fewer words. It is read off the
observation and nothing is worked out: no way, no choice of what matters, no action that is not offered. Differences:

- Bare words, the same for a thing in view and in the mission, whose articles and comma go. With the article of the
  mission goes whether several things fit it ("a red ball", "the red ball"); `articles` brings it back.
- Steps forward come before steps aside, and the nearest things first; what is carried comes after what is in view.
  There, steps aside come first, things come by columns of the view, and what is carried comes before all.
- Whatever is in view or carried now is told twice. At the second reading the model has seen already how the phrase
  ends, as in "Repetition improves language model embeddings" (Springer et al. 2024, arXiv:2402.15449). SmolLM2-135M
  succeeds in 50 % of "go to" without training where it is told twice, in 25 % where once (`benchmarks.babyai`).
- The instructions do not only list the actions, they say what each is for, the same in all rooms. Without that
  SmolLM2-135M picks up, drops and toggles so seldom that a reward for it hardly ever comes (docs/log.md). Their last
  words show how an answer looks for the three that are rare.
- Of the past is told what the agent did last ("did left"), and what it has seen in this episode and sees no more, with
  the direction in which it is now ("behind left saw red ball"). So it need not look for the same thing again, and knows
  the key's colour where the mission is "open the door". With `history` = 2 and `saw` = "" the past is told as
  there: two observations before the present one, and what was done then.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from agents.codecs.babyai_map import DOOR, EMPTY, KINDS, NOTHING, UNSEEN, Map, looked
from agents.codecs.codec import NUMBERS, PlainCodec
from agents.types import UserError

COLOURS = ("red", "green", "blue", "purple", "yellow", "grey")
STATES = ("open", "closed", "locked")
"""What MiniGrid's numbers in an image mean, beside `KINDS`; only doors have a state to tell."""

LONGEST_MISSION = 72
"""Words. BabyAI's language makes none longer: four clauses of up to 17 words ("put the red ball in front of you next to
..."), with "and", "and" and "after you" between them."""

MISSION_WORDS = frozenset(
    f"go to pick up open put next and then after you in front of behind on your left right the a object "
    f"door key ball box {' '.join(COLOURS)}".split()
)
"""All words of BabyAI's language."""
_WALL, _CLEAR = 2, (UNSEEN, EMPTY)


class Past(NamedTuple):
    """What M agents remember."""

    before: np.ndarray  # (M, history) object: what was seen and then done, latest last; "" where nothing was
    seen: np.ndarray  # (M,) object: what is seen now
    map: np.ndarray  # (M,) object: `Map` of all that was seen in this episode
    did: np.ndarray  # (M,) object: what was done last, in words; "" at the beginning of an episode


class BabyAITextCodec(PlainCodec):
    """The BabyAI levels of MiniGrid and `envs.babyai`: " red ball is left one red ball is left one, go to red ball".

    It can say the missions of all 96 levels that MiniGrid 3.2 registers under BabyAI-. To say things otherwise, set an
    attribute in a subclass.
    """

    instructions = (
        "You are in a room. A thing is left, right or forward. A thing in front is pick. A thing carried is drop. "
        "A door in front is toggle. is toggle, is drop, is pick.\n"
    )
    action_words: Sequence[str] = ("left", "right", "forward", "pick", "drop", "toggle", "done")
    part_end = ","  # the phrases are read apart
    answer = "is"  # stands where it stood behind the thing's name in view
    link = "is"  # between a thing and its place
    echo = True  # what is in view and carried now is told twice; the past and the mission once
    saw = "saw"  # before what has been seen in this episode and is not in view now; empty where that is not told
    did = "did"  # before an action of the past
    last = True  # what was done last is told; with a history it is anyway
    history = 0  # how many observations before the present one are told, each with the action that followed
    goal_last = True  # the mission comes last, else first
    ahead_first = True  # "forward two left one", else "left one forward two"
    articles = False  # "a red ball is ..., go to the red ball"

    def __init__(self, world: Any):
        super().__init__(world)
        needs_order = self.history > 0 or not self.goal_last
        if self.part_end and needs_order:  # of parts that are read apart, only which is the last is known
            raise UserError(
                f"{type(self).__name__}.part_end = {self.part_end!r}: must be empty with history or goal first"
            )
        self.action_words = self.action_words[: int(world.action_space.n)]  # MiniGrid's own levels have done

    def describe(self, observation: dict[str, Any]) -> str:
        """All that is told of an observation, without the past."""
        return self._text(observation)

    def allowed(self, observation: dict[str, Any]) -> list[bool]:
        """All but done, which changes nothing."""
        return [word != "done" for word in self.action_words]

    def remember(self, memory: Past | None, observation: np.ndarray, action: np.ndarray) -> Past | None:  # type: ignore[override]
        """The last `history` observations of M agents and what they did, a map of what they have seen, and what they
        did last.

        None where nothing of the past is told.
        """
        if not (self.history or self.saw or self.last):
            return None
        seen, maps, did = (np.empty(len(action), object) for _ in range(3))
        before = np.full((len(action), self.history), "", object)
        for m, (one, done) in enumerate(zip(observation, action.tolist(), strict=True)):
            seen[m] = "" if one is None or not self.history else ", ".join(self.phrases(one)[:-1])
            did[m] = "" if done < 0 else f"{self.did} {self.action_words[done]}"
            maps[m] = NOTHING if one is None else looked(memory.map[m] if memory else NOTHING, one, done)
            if memory and self.history and done >= 0:
                before[m, :-1], before[m, -1] = memory.before[m, 1:], _joined([memory.seen[m], did[m]])
        return Past(before, seen, maps, did)

    def encode(self, observation: np.ndarray, memory: Past | None) -> list[str]:  # type: ignore[override]
        """M texts."""
        if memory is None:
            return [self.describe(one) for one in observation]
        told = zip(observation, memory.before.tolist(), memory.map, memory.did, strict=True)
        return [self._text(*one) for one in told]

    def phrases(self, observation: dict[str, Any], past: Iterable[str] = ()) -> list[str]:
        """What is told of an observation, then phrases of the past, then the mission; see `phrases` below."""
        *view, mission = phrases(observation, link=self.link, ahead_first=self.ahead_first, articles=self.articles)
        return [*view, *past, mission]

    def hidden(self, known: Map) -> list[str]:
        """What is told of things that are not in view, in the order of the alphabet, so that texts stay few."""
        article = "a " if self.articles else ""
        return sorted(
            {
                f"{_way(*place, self.ahead_first)} {self.saw} {article}{_name(cell)}"
                for place, cell in known.hidden.items()
            }
        )

    def _text(
        self, observation: dict[str, Any], before: Sequence[str] = (), known: Map = NOTHING, did: str = ""
    ) -> str:
        past = self.hidden(known) if self.saw else []
        if self.last and not self.history:
            past.append(did)
        *now, mission = self.phrases(observation, past)
        if self.echo:
            twice = len(now) - len(past)
            now[:twice] = [f"{phrase} {phrase}" for phrase in now[:twice]]
        told = [*before, *now]
        return " " + _joined([*told, mission] if self.goal_last else [mission, *told])


def phrases(
    observation: dict[str, Any], *, link: str = "is", ahead_first: bool = True, articles: bool = False
) -> list[str]:
    """What an observation of a BabyAI level holds: walls, things from near to far, what is carried, the mission.

    A wall is told if nothing stands between it and the agent, straight ahead, left or right. Things as far away as each
    other come from left to right. Raises UserError for a mission that is not in BabyAI's language, and for a view
    of more than 7 x 7 cells.
    """
    image = observation["image"].tolist()  # of column, row: (kind, colour, state); the agent looks up from the last row
    middle, last = len(image) // 2, len(image[0]) - 1
    if last >= len(NUMBERS):
        raise UserError(
            f"the view is {last + 1} cells deep: must be at most {len(NUMBERS)}, so that a word tells each step"
        )
    beams = {
        "forward": image[middle][last - 1 :: -1],
        "left": [column[last] for column in image[middle - 1 :: -1]],
        "right": [column[last] for column in image[middle + 1 :]],
    }
    ends = ((way, _first_end(beam)) for way, beam in beams.items())
    told = [f"wall {way} {NUMBERS[steps]}" for way, steps in ends if steps]
    article = "a " if articles else ""
    for column, row in _things(image, middle, last):
        place = _place(last - row, column - middle, ahead_first)
        told.append(f"{article}{_name(image[column][row])} {link} {place}")
    if image[middle][last][0] in KINDS:  # what it carries is shown where it stands
        told.append(f"carry {article}{_name(image[middle][last])}")
    return [*told, mission_words(observation["mission"], articles)]


@lru_cache(maxsize=4096)
def mission_words(mission: str, articles: bool = False) -> str:
    """A mission without comma and, unless wanted, articles. UserError for one that is not in BabyAI's language."""
    words = mission.replace(",", "").split()
    strange = next((word for word in words if word not in MISSION_WORDS), None)
    if strange or not words:
        raise UserError(f"the mission {mission!r}: must be in BabyAI's language, which has no word {strange or ''!r}")
    if len(words) > LONGEST_MISSION:
        raise UserError(f"the mission {mission!r} has {len(words)} words: must have at most {LONGEST_MISSION}")
    return " ".join(word for word in words if articles or word not in ("the", "a"))


def _first_end(beam: list[list[int]]) -> int:
    """How many steps away the wall is that a look along cells ends at; 0 where something else or nothing ends it."""
    end = next(((steps, kind) for steps, (kind, _, _) in enumerate(beam, 1) if kind not in _CLEAR), (0, _WALL))
    return end[0] if end[1] == _WALL else 0


def _things(image: list[list[list[int]]], middle: int, last: int) -> list[tuple[int, int]]:
    """Column and row of all things in view but the carried one: nearest first, then left to right."""
    seen = [(i, j) for i, cells in enumerate(image) for j, (kind, _, _) in enumerate(cells) if kind in KINDS]
    ranked = sorted((last - j + abs(i - middle), i, j) for i, j in seen if (i, j) != (middle, last))
    return [(i, j) for _, i, j in ranked]


def _name(cell: Sequence[int]) -> str:
    kind, colour, state = cell
    return (f"{STATES[state]} " if kind == DOOR else "") + f"{COLOURS[colour]} {KINDS[kind]}"


def _place(ahead: int, aside: int, ahead_first: bool) -> str:
    steps = [(ahead, "forward"), (abs(aside), "right" if aside > 0 else "left")]
    return " ".join(f"{way} {NUMBERS[count]}" for count, way in (steps if ahead_first else steps[::-1]) if count)


def _way(ahead: int, aside: int, ahead_first: bool) -> str:
    """A direction: of what is remembered, only that is told."""
    words = ["forward" if ahead > 0 else "behind"] * (ahead != 0), ["right" if aside > 0 else "left"] * (aside != 0)
    return " ".join(word for some in (words if ahead_first else words[::-1]) for word in some)


def _joined(parts: list[str]) -> str:
    return ", ".join(part for part in parts if part)
