"""Experience and learning: the main program, and what it is made of."""
