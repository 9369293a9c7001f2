"""What an agent remembers of a BabyAI level: the things that it has seen, each where it is from where the agent is now.

The agent counts its own turns and steps. A step forward is made where nothing was in its way, as the view showed.
"""

from typing import Any, NamedTuple

Place = tuple[int, int]
"""Steps ahead of the agent, and steps to its right; negative behind it, and to its left."""
Cell = tuple[int, int, int]
"""As an image has it: kind, colour, state."""

KINDS = {3: "floor", 4: "door", 5: "key", 6: "ball", 7: "box", 8: "goal", 9: "lava"}
"""What MiniGrid's numbers in an image mean, of that which has a name."""
UNSEEN, EMPTY, FLOOR, DOOR, GOAL, LAVA = 0, 1, 3, 4, 8, 9
LEFT, RIGHT, FORWARD = 0, 1, 2
"""Actions that change where the agent is."""


class Map(NamedTuple):
    """What was seen in this episode."""

    things: dict[Place, Cell]  # all of them, also what the agent stands on, as in an open door
    hidden: dict[Place, Cell]  # those that are neither in view now nor under the agent
    can_go: bool  # nothing is in the way of a step forward


NOTHING = Map({}, {}, False)
"""Where nothing has been seen yet."""


def looked(before: Map, observation: dict[str, Any], action: int) -> Map:
    """What is remembered after `action` led to an observation; -1 where an episode begins."""
    image = observation["image"].tolist()  # of column, row; the agent looks up from the middle of the last row
    middle, last = len(image) // 2, len(image[0]) - 1
    view = {
        (last - row, column - middle): tuple(cell)
        for column, cells in enumerate(image)
        for row, cell in enumerate(cells)
        if cell[0] != UNSEEN
    }
    known = moved(before, action) if action >= 0 else {}
    hidden = {place: cell for place, cell in known.items() if place not in view and place != (0, 0)}
    seen = {place: cell for place, cell in view.items() if cell[0] in KINDS and place != (0, 0)}  # there it carries
    kind, _, state = view.get((1, 0), (UNSEEN, 0, 0))
    under = {(0, 0): known[0, 0]} if (0, 0) in known else {}
    can_go = kind in (EMPTY, FLOOR, GOAL, LAVA) or (kind == DOOR and state == 0)
    return Map(hidden | seen | under, hidden, can_go)


def moved(before: Map, action: int) -> dict[Place, Cell]:
    """Where the things are after an action."""
    if action == LEFT:
        return {(-right, ahead): cell for (ahead, right), cell in before.things.items()}
    if action == RIGHT:
        return {(right, -ahead): cell for (ahead, right), cell in before.things.items()}
    if action == FORWARD and before.can_go:
        return {(ahead - 1, right): cell for (ahead, right), cell in before.things.items()}
    return before.things
