"""From `env` in a config to a world and the codec that puts it into words. Never imports torch."""

import importlib
from typing import Any

from agents.codec import TextCodec
from agents.forage_codec import ForageCodec
from agents.other_codecs import built_in
from agents.types import UserError
from envs.worlds.mixed_world import MixedWorld
from envs.worlds.world import ForageWorld, World
from trainers.config import EnvConfig

_PARTS = ("instructions", "action_words", "answer", "remember", "encode", "legal")


def make_world(env: EnvConfig, *, renews: bool) -> World:
    """The world of a config. renews: a life is many episodes (for learning), not one (for judging).

    Raises UserError where there is no such world.
    """
    if env.is_forage:
        return MixedWorld(list(env.kinds.values())) if env.also else ForageWorld(env)
    from envs.worlds.gym_world import GymWorld
    from envs.worlds.team_world import TeamWorld

    kind = TeamWorld if env.is_team else GymWorld
    return kind(env.id, dict(env.options), env.agents, env.max_steps, renews=renews)


def make_worlds(env: EnvConfig, *, renews: bool) -> list[World]:
    """The worlds in which generations live by turns: one for each preset if they do, else one for all."""
    kinds = env.kinds.values() if env.is_forage and env.by_turns else [env]
    return [make_world(kind, renews=renews) for kind in kinds]


def make_codec(env: EnvConfig) -> TextCodec:
    """The codec of a config's world; UserError where there is none, or it does not fit."""
    if env.is_forage and not env.codec:
        return ForageCodec(env.view_radius)
    sample = env if env.is_forage else _sample(env)
    codec = _users_own(env.codec, sample) if env.codec else built_in(env.id, sample)
    if codec is None:
        raise UserError(
            f"env.id = {env.id!r}: has no codec, which says in words what is seen; write a class (docs/worlds.md shows "
            f"one in 30 lines) and name it with --env.codec package.module:Class"
        )
    actions = 5 if env.is_forage else _actions(sample)
    if len(codec.action_words) != actions:
        raise UserError(
            f"{type(codec).__name__}.action_words = {tuple(codec.action_words)}: must be {actions}, one for each action"
        )
    return codec


def _sample(env: EnvConfig) -> Any:
    from envs.worlds.gym_world import make_gym
    from envs.worlds.team_world import make_team

    try:
        return (make_team if env.is_team else make_gym)(env.id, dict(env.options))
    except ValueError as error:
        raise UserError(
            f"env.id = {env.id!r}: must be forage, a Gymnasium id (FrozenLake-v1) or a PettingZoo module "
            f"(mpe2.simple_spread_v3) with Discrete actions: {error}"
        ) from error


def _actions(sample: Any) -> int:
    agents = getattr(sample, "possible_agents", None)
    return int((sample.action_space(agents[0]) if agents else sample.action_space).n)


def _users_own(name: str, sample: Any) -> TextCodec:
    module, _, kind = name.partition(":")
    allowed = "package.module:Class, a class of one argument"
    try:
        codec = getattr(importlib.import_module(module), kind)(sample)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise UserError(f"env.codec = {name!r}: must be {allowed} ({error})") from error
    missing = [part for part in _PARTS if not hasattr(codec, part)]
    if missing:
        raise UserError(f"env.codec = {name!r}: must be {allowed}, and a codec (it has no {missing[0]})")
    return codec
