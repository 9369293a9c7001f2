"""The five tasks of BabyAI-Text as Gymnasium environments, on MiniGrid's level generator.

    gymnasium.make("envs:BabyAI-MixedTrainLocal-v0", task="goto", num_dists=8)
    gymnasium.make("envs:BabyAI-MixedTestLocal-v0")  # names only what training never names

Tasks, words that are held out and sizes are GLAM's (Carta et al. 2023, arXiv:2302.02662, the folder babyai-text of
github.com/flowersteam/Grounding_LLMs_with_online_RL). The language and its verifier are BabyAI's (Chevalier-Boisvert
et al. 2019, arXiv:1810.08272) as MiniGrid has them. Written anew. Differences from GLAM:

- A mixed environment draws the task at every reset, from its own generator. GLAM's draws it once, when it is made.
- What a mission names is drawn first, and the other things after it. GLAM draws a room and throws it away until its
  mission is allowed: 36 rooms for a pair of held-out words. Rooms come out alike, but where GLAM draws the same thing
  twice for a mission with two: it then draws the second anew, unless another thing has the same words.
- The action `done`, which changes nothing, does not exist. GLAM does not offer it to its agent either.

As in GLAM, both things of "pick up A, then go to B" may have the same words; the mission is then fulfilled when A is
picked up, since MiniGrid's verifier takes the place where it lay for a place where such a thing lies.

Needs the extra `worlds` (`pip install -e '.[worlds]'`).
"""

import operator
from collections.abc import Sequence
from typing import Any

from gymnasium.spaces import Discrete

from envs.extras import missing

try:
    from minigrid.core.roomgrid import RoomGrid
    from minigrid.envs.babyai.core import verifier
    from minigrid.envs.babyai.core.roomgrid_level import RoomGridLevel
    from minigrid.envs.babyai.core.verifier import ObjDesc

    from envs.babyai_expert import Expert
except ModuleNotFoundError as error:
    package = (error.name or "minigrid").partition(".")[0]
    raise ModuleNotFoundError(missing(package), name=package) from error

TASKS = ("goto", "pickup", "open", "putnext", "pickup_then_goto")
MIXED = "mixed"
HELD_OUT_WORDS = (("yellow", "box"), ("red", "key"), ("red", "door"), ("green", "ball"), ("grey", "door"))
"""What missions name in the test environment only, as (colour, kind); everything may lie around in both."""

ACTIONS = 6
"""Turn left, turn right, go forward, pick up, drop and toggle, as MiniGrid numbers them."""

_ROOM = 8  # cells along a side, walls included
_MOST_DISTRACTORS = 12  # of 36 cells; with more, rooms in which everything can be reached are rare (12: 1 in 7 to 25)
_COLOURS = ("blue", "green", "grey", "purple", "red", "yellow")


class BabyAITextEnv(RoomGridLevel):
    """One 8 x 8 room with a task in words; for "open" two side by side, with a locked door between.

    Observations are MiniGrid's: "image", (7, 7, 3) uint8, what the agent sees; "direction", 0 to 3; "mission", text.
    The reward is 1 - 0.9 * steps / max_steps when the mission is fulfilled, which ends the episode, else 0. The info
    has "task", one of `TASKS`, "success", whether the mission is fulfilled, and where wanted "expert_action", what
    MiniGrid's bot would do now (`envs.babyai_expert`); that is missing where the bot has no more advice.
    """

    def __init__(
        self,
        task: str | Sequence[str] = MIXED,
        num_dists: int = 8,
        max_steps: int | None = None,
        render_mode: str | None = None,
        held_out: bool = False,
        fewest_dists: int | None = None,
        expert: bool = False,
    ) -> None:
        """Make an environment; `reset` begins an episode.

        task: one of `TASKS`; or several, or "mixed" for all: one of them, drawn at every reset. num_dists: how many
        things lie around beside those that matter (the named ones, the key), 0 to 12. max_steps: after how many steps
        an episode is truncated; None for BabyAI's own limit, which is 64 for goto and pickup, else 128. held_out:
        whether missions name the things of `HELD_OUT_WORDS`, else all others. fewest_dists: where given, how many other
        things lie around is drawn at every reset, from this up to `num_dists`. expert: whether infos have
        "expert_action". Raises ValueError for an impossible value.
        """
        tasks = TASKS if task == MIXED else tuple(task) if isinstance(task, list | tuple) else (task,)
        is_known = len(tasks) > 0 and all(one in TASKS for one in tasks) and len(set(tasks)) == len(tasks)
        _check("task", task, is_known, f"one of {', '.join((MIXED, *TASKS))}, or a list of tasks, each once")
        few = f"an integer between 0 and {_MOST_DISTRACTORS}"
        _check("num_dists", num_dists, _is_whole(num_dists) and 0 <= num_dists <= _MOST_DISTRACTORS, few)
        _check(
            "max_steps",
            max_steps,
            max_steps is None or (_is_whole(max_steps) and max_steps >= 1),
            "None or an integer of at least 1",
        )
        modes = (None, *self.metadata["render_modes"])
        _check("render_mode", render_mode, render_mode in modes, f"one of {', '.join(map(str, modes))}")
        fewest = num_dists if fewest_dists is None else fewest_dists
        is_fewer = _is_whole(fewest) and 0 <= fewest <= num_dists
        _check("fewest_dists", fewest_dists, is_fewer, f"None or an integer between 0 and num_dists = {num_dists}")
        _check("expert", expert, isinstance(expert, bool), "true or false")
        self._fewest, self._most, self._is_advised = int(fewest), int(num_dists), expert
        self.num_dists, self._tasks, self._held_out = self._most, tasks, held_out
        self.task = tasks[0]
        super().__init__(
            room_size=_ROOM,
            num_rows=1,
            num_cols=1,
            max_steps=None if max_steps is None else int(max_steps),
            render_mode=render_mode,
        )
        self.action_space = Discrete(ACTIONS)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:  # type: ignore[override]
        """Begin an episode; return the observation and the info. options: ignored."""
        observation, _ = super().reset(seed=seed, options=options)
        self._expert = Expert(self) if self._is_advised else None
        return observation, self._info()

    def step(self, action: int) -> tuple[dict, float, bool, bool, dict]:  # type: ignore[override]
        """Act; return observation, reward, whether the mission is fulfilled, whether time is up, and the info.

        Raises ValueError for an action that does not exist.
        """
        _check("action", action, _is_whole(action) and 0 <= action < ACTIONS, f"an integer between 0 and {ACTIONS - 1}")
        observation, reward, is_done, is_late, _ = super().step(action)
        info = self._info(operator.index(action), is_done)
        return observation, float(reward), is_done, is_late and not is_done, info

    def _info(self, action: int | None = None, is_done: bool = False) -> dict[str, Any]:
        """action: what was just done; None at the beginning of an episode."""
        advice = None if self._expert is None or is_done else self._expert.advise(action)
        return {"task": self.task, "success": is_done} | ({} if advice is None else {"expert_action": advice})

    def _gen_grid(self, width: int, height: int) -> None:
        # MiniGrid calls this at every reset; the level decides upon its width, which other levels have from birth
        if len(self._tasks) > 1:
            self.task = self._rand_elem(self._tasks)
        if self._fewest < self._most:
            self.num_dists = self._rand_int(self._fewest, self._most + 1)
        self.num_cols = 2 if self.task == "open" else 1
        self.width = (_ROOM - 1) * self.num_cols + 1
        super()._gen_grid(self.width, height)

    def gen_mission(self) -> None:
        """Furnish empty rooms and set `instrs`, until all things can be reached and nothing is done already."""
        while True:
            self.instrs = self._two_rooms() if self.task == "open" else self._one_room()
            self.instrs.reset_verifier(self)
            is_done = isinstance(self.instrs, verifier.PutNextInstr) and self.instrs.objs_next()
            if not is_done and self.check_objs_reachable(raise_exc=False):
                return
            RoomGrid._gen_grid(self, self.width, self.height)

    def _one_room(self) -> verifier.Instr:
        """The agent, what the mission names, and distractors; nothing lies beside the agent."""
        self.place_agent(0, 0)
        first, second = self._named(), self._named()
        while self.task == "putnext" and second == first:
            second = self._named()
        is_single = self.task in ("goto", "pickup")
        for colour, kind in (first,) if is_single else (first, second):
            self.add_object(0, 0, kind, colour)
        self.add_distractors(0, 0, self.num_dists, all_unique=False)
        one, other = (ObjDesc(kind, colour) for colour, kind in (first, second))
        if self.task == "goto":
            return verifier.GoToInstr(one)
        if self.task == "putnext":
            return verifier.PutNextInstr(one, other)
        pickup = verifier.PickupInstr(one)
        if self.task == "pickup":
            return pickup
        goto = verifier.GoToInstr(other)
        return verifier.BeforeInstr(pickup, goto) if self._rand_bool() else verifier.AfterInstr(goto, pickup)

    def _two_rooms(self) -> verifier.Instr:
        """The agent, the key and distractors in one room, a locked door to the other, which is empty."""
        locked = self._rand_int(0, 2)
        colour = self._rand_elem(self._nameable("door"))
        self.add_door(locked, 0, door_idx=2 * locked, color=colour, locked=True)  # doors: right, down, left, up
        self.add_object(1 - locked, 0, "key", colour)
        self.add_distractors(1 - locked, 0, self.num_dists, all_unique=False)
        self.place_agent(1 - locked, 0)
        is_bare = not self._held_out and self._rand_bool()  # as in "open the door"
        return verifier.OpenInstr(ObjDesc("door", None if is_bare else colour))

    def _named(self) -> tuple[str, str]:
        """A thing that missions may name, each as likely as the others."""
        return self._rand_elem([(colour, kind) for kind in ("box", "ball", "key") for colour in self._nameable(kind)])

    def _nameable(self, kind: str) -> list[str]:
        return [colour for colour in _COLOURS if ((colour, kind) in HELD_OUT_WORDS) == self._held_out]


def _check(name: str, value: Any, is_fine: bool, allowed: str) -> None:
    if not is_fine:
        raise ValueError(f"{name} = {value!r}: must be {allowed}")


def _is_whole(value: Any) -> bool:
    try:
        operator.index(value)
    except TypeError:
        return False
    return not isinstance(value, bool)
