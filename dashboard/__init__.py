"""A page on which to watch a run: it reads the run folder, and nothing else.

`reading` (from files to plain values), `server` (who may ask for what), `page/` (what a browser shows).
"""
