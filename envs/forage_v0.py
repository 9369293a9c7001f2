"""The environment under its version, as PettingZoo names them: a change of behaviour makes a `forage_v1`.

After `from envs import forage_v0`, `pettingzoo.make("parallel", "forage_v0")` knows it too, and so does "aec".
"""

import pettingzoo

from envs.forage import env, parallel_env, raw_env

__all__ = ["env", "parallel_env", "raw_env"]

if hasattr(pettingzoo, "register"):  # from PettingZoo 1.27 on
    pettingzoo.register("parallel", "forage_v0", entry_point="envs.forage:parallel_env")
    pettingzoo.register("aec", "forage_v0", entry_point="envs.forage:env")
