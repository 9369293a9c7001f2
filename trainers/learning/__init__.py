"""How adapters and the critic learn from a rollout: a class for each value of `learn.algorithm`."""
