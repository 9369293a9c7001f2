"""A page on which to watch a run: it reads the run folder, and nothing else. Part of Terrarium.

`reading` (from files to plain values), `server` (who may ask for what), `sockets` (how many connections, and how long
each may keep the server waiting), `page/` (what a browser shows).
"""

from evolution.own import require_own

require_own("envs", "agents", "trainers")
