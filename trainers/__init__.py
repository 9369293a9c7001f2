"""Experience and learning: the main program, and what it is made of. Part of Terrarium."""

from evolution.own import require_own

require_own("envs", "agents", "evolution")
