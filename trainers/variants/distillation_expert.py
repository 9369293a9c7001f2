"""The expert that a Gymnasium world brings with it, such as MiniGrid's bot: it teaches, and may act for its students.

Symbols: W worlds, N agents in each, R agents that act, A actions.
"""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace

import numpy as np

from agents.policy import Decision
from agents.types import UserError
from envs.worlds.gym_world import EXPERT_ACTION, NO_ADVICE, GymWorld
from envs.worlds.world import World
from trainers.env_config import EnvConfig
from trainers.rollout import Actor, Observed, Observer, Rollout
from trainers.variants.distillation_config import EXPERT
from trainers.worlds import make_world


class Advice(Observer):
    """What a world's own expert would have done in each step."""

    def __init__(self) -> None:
        self.actions: list[np.ndarray] = []  # (W, N) before each step, and after the last
        self.now = np.zeros(0, int)  # (R,) of those who act next

    def start(self, world: World) -> None:
        """The worlds have been reset."""
        assert isinstance(world, GymWorld)
        self.actions = []
        self._ask(world)

    def step(self, seen: Observed) -> None:
        """A step is done."""
        assert isinstance(seen.world, GymWorld)
        self._ask(seen.world)

    def _ask(self, world: GymWorld) -> None:
        self.actions.append(world.advice())
        self.now = self.actions[-1][world.is_playing]


class ExpertTeacher:
    """The expert that a world brings with it, such as MiniGrid's bot; where it has no advice, nothing is taught."""

    name = EXPERT

    def __init__(self, env: EnvConfig) -> None:
        """UserError where the infos of a reset and of a first step do not say what an expert would do."""
        with closing(make_world(replace(env, agents=1), renews=False)) as world:
            assert isinstance(world, GymWorld)
            world.reset([0])
            is_there = (world.advice() != NO_ADVICE).any()
            world.step(np.zeros((1, 1), int))
            is_there = is_there or (world.advice() != NO_ADVICE).any()
        if not is_there:
            raise UserError(
                f"distillation.teacher = {EXPERT!r}: must be used in a world whose infos have {EXPERT_ACTION}, as "
                f"envs:BabyAI-MixedTrainLocal-v0 has it with env.options = {{expert: true}}"
            )
        self._advice = Advice()
        self.observers: Sequence[Observer] = [self._advice]

    def targets(self, rollout: Rollout) -> np.ndarray:
        """Of the rollout that was watched last."""
        t = rollout.trajectory
        advised = np.stack(self._advice.actions[: len(t.text)]).reshape(t.text.shape)
        return ((advised[..., None] == np.arange(t.legal.shape[-1])) & t.legal).astype(np.float32)

    def acting_for(self, policy: Actor) -> "Led":
        """Who acts as the expert advises."""
        return Led(policy, self._advice)


class Led:
    """Acts as an expert advises, and by a policy where it has no advice."""

    def __init__(self, policy: Actor, advice: Advice):
        self.policy, self._advice = policy, advice

    def act(self, texts: list[str], adapters: np.ndarray, legal: np.ndarray, rng: np.random.Generator) -> Decision:
        """An action for each of R texts; adapters (R,), legal (R, A). What is advised has probability 1."""
        action = self._advice.now.copy()
        is_led = (action != NO_ADVICE) & legal[np.arange(len(legal)), action]
        log_probs = np.where(action[:, None] == np.arange(legal.shape[1]), np.float32(0), np.float32(-np.inf))
        if not is_led.all():  # the policy is not asked for the others: a forward pass for each text
            rest = np.flatnonzero(~is_led)
            decision = self.policy.act([texts[i] for i in rest], adapters[rest], legal[rest], rng)
            action[rest], log_probs[rest] = decision.action, decision.log_probs
        log_prob = np.take_along_axis(log_probs, action[:, None], axis=1)[:, 0]
        return Decision(action, log_prob, self.policy.values(texts), log_probs)

    def values(self, texts: list[str]) -> np.ndarray:
        """The policy's critic's estimate of the return after each text, (R,)."""
        return self.policy.values(texts)
