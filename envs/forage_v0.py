"""The environment under its version, as PettingZoo names them: a change of behaviour makes a `forage_v1`."""

from envs.forage import env, parallel_env, raw_env

__all__ = ["env", "parallel_env", "raw_env"]
