"""From `env` in a config to a world and the codec that puts it into words. Never imports torch."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from agents.codecs.codec import CODEC_CLASS, TextCodec, named_class, naming
from agents.codecs.forage import ForageCodec
from agents.codecs.others import built_in
from agents.types import UserError
from envs.worlds.faults import NoWorld, WorldFault
from envs.worlds.foreign import Conduct, ForeignWorld
from envs.worlds.mixed_world import MixedWorld
from envs.worlds.world import ForageWorld, World
from trainers.env_config import EnvConfig
from trainers.reader import Reader

_PARTS = ("instructions", "action_words", "answer", "remember", "encode", "legal")


def make_world(env: EnvConfig, *, renews: bool) -> World:
    """The world of a config. renews: episodes follow one another (for learning), or there is one (for evaluation).

    Raises UserError where there is no such world.
    """
    if env.is_forage:
        return MixedWorld(list(env.kinds.values())) if env.also else ForageWorld(env)
    from envs.worlds.gym_world import GymWorld
    from envs.worlds.team_world import TeamWorld

    conduct = Conduct(env.on_error == "restart", env.step_timeout)
    arguments = env.id, dict(env.options), env.agents, env.max_steps
    with _naming_the_world(env):
        if env.is_team:
            return TeamWorld(*arguments, renews=renews, conduct=conduct)
        is_shared = env.shared_layouts or not renews  # fitness is compared in the same layouts
        return GymWorld(*arguments, renews=renews, conduct=conduct, is_shared=is_shared)


def make_worlds(env: EnvConfig, *, renews: bool) -> list[World]:
    """The worlds of the generations: one for each preset where these alternate, else one for all."""
    kinds = env.kinds.values() if env.alternate else [env]
    return [make_world(kind, renews=renews) for kind in kinds]


def make_codec(env: EnvConfig) -> TextCodec:
    """The codec of a config's world, for its words; UserError where there is none, or it does not fit.

    Of a foreign world a copy is begun, looked at and closed again: what is wrong with it shows before a run begins.
    """
    if env.is_forage:
        if not env.codec:
            return ForageCodec(env.view_radius)
        forage = ForageWorld(env)
        return _tried(_fit(_users_own(env.codec, env), 5), forage, forage.reset([0]))
    with closing(make_world(replace(env, agents=1), renews=False)) as world:
        with _naming_the_world(env):
            seen = world.reset([0])
        assert isinstance(world, ForeignWorld)
        sample = world.copies()[0]
        codec = _users_own(env.codec, sample) if env.codec else built_in(env.id, sample)
        if codec is None:
            raise UserError(
                f"env.id = {env.id!r}: has no codec, which says in words what is seen; write a class (docs/worlds.md "
                f"shows one in 30 lines) and name it with --env.codec package.module:Class"
            )
        return _tried(_fit(codec, world.legal().shape[-1]), world, seen)


def _tried(codec: TextCodec, world: World, seen: np.ndarray) -> TextCodec:
    """The codec, once it has put first observations (1, N, ...) into words; UserError where it cannot."""
    seen = seen.reshape(-1, *seen.shape[2:])
    reader = Reader(codec, world, len(seen))
    reader.look(seen, np.full(len(seen), -1))
    reader.read(np.flatnonzero([one is not None for one in seen]))
    reader.legal()
    return codec


def _fit(codec: TextCodec, actions: int) -> TextCodec:
    if len(codec.action_words) != actions:
        raise UserError(
            f"{type(codec).__name__}.action_words = {tuple(codec.action_words)}: must be {actions}, one for each action"
        )
    return codec


@contextmanager
def _naming_the_world(env: EnvConfig) -> Iterator[None]:
    """Within the block a world is made and begun: a UserError where there is none, or it misbehaves."""
    try:
        yield
    except NoWorld as error:
        raise UserError(
            f"env.id = {env.id!r}: must be forage, a Gymnasium id (FrozenLake-v1) or a PettingZoo module "
            f"(mpe2.simple_spread_v3) with Discrete actions: {error}"
        ) from error
    except WorldFault as fault:
        raise UserError(str(fault)) from fault


def _users_own(name: str, sample: Any) -> TextCodec:
    kind = named_class(name)
    try:
        with naming(kind, "__init__"):
            codec = kind(sample)
    except UserError as error:
        raise UserError(f"env.codec = {name!r}: must be {CODEC_CLASS} ({error})") from error
    missing = [part for part in _PARTS if not hasattr(codec, part)]
    if missing:
        raise UserError(f"env.codec = {name!r}: must be {CODEC_CLASS}, and a codec (it has no {missing[0]})")
    return codec
