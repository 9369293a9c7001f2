"""What MiniGrid's bot would do in a BabyAI level, asked along somebody else's way, as DAgger needs it.

The bot is MiniGrid's BabyAIBot (Chevalier-Boisvert et al. 2019, arXiv:1810.08272). It sees what the agent sees, and
remembers all that it has seen. Departure: after "pick up A" the original drops A at once; here it keeps A where the
mission goes on with "go to B", since one who reads only the present knows by what it carries that A was picked up.
"""

from typing import Any

from minigrid.envs.babyai.core.verifier import AfterInstr, BeforeInstr, GoToInstr
from minigrid.utils.baby_ai_bot import BabyAIBot, DisappearedBoxError, DropSubgoal


class Expert:
    """Advises whoever acts in one episode of one level."""

    def __init__(self, env: Any):
        """env: the level, unwrapped and just reset."""
        self._bot: BabyAIBot | None = BabyAIBot(env)
        self._last = int(env.action_space.n) - 1
        if _ends_with_goto(env.instrs):
            self._bot.stack = [goal for goal in self._bot.stack if not isinstance(goal, DropSubgoal)]

    def advise(self, action: int | None) -> int | None:
        """What the bot would do now; action: what was done since it was asked last, None where nothing was.

        To be asked before the first step of an episode and after each. None from where the bot has no advice: when a
        box was opened, and in states for which its plans were not made.
        """
        if self._bot is None:
            return None
        try:
            advice = int(self._bot.replan(action))
        except (DisappearedBoxError, AssertionError):  # its plans assert what they were made for
            advice = None
        if advice is None or advice > self._last:  # "done"
            self._bot = None
            return None
        return advice


def _ends_with_goto(mission: Any) -> bool:
    """Whether a mission has two clauses, and the one that is to be fulfilled last is "go to"."""
    if isinstance(mission, BeforeInstr):
        return isinstance(mission.instr_b, GoToInstr)
    return isinstance(mission, AfterInstr) and isinstance(mission.instr_a, GoToInstr)
