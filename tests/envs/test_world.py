"""The forage world as a world among others: an episode is a life."""

import numpy as np

from envs import ForageBatch, WorldConfig
from envs.worlds.world import ForageWorld

HARD = WorldConfig(agents=6, food=60, energy_start=15.0, max_steps=20)


def lived(config=HARD, seeds=(0, 1)):
    """Return the world, and each step of a life of chance with who played before it."""
    world, rng = ForageWorld(config), np.random.default_rng(0)
    is_playing, steps = np.ones(world.reset(seeds).shape[:2], bool), []
    for _ in range(config.max_steps):
        actions = rng.integers(0, 5, is_playing.shape)
        steps.append((is_playing, actions, world.step(actions)))
        is_playing = steps[-1][-1].is_playing
    return world, steps


def test_it_is_the_batch_of_worlds_step_by_step():
    world, steps = lived()
    batch = ForageBatch(HARD)
    np.testing.assert_array_equal(ForageWorld(HARD).reset([0, 1]), batch.reset([0, 1]))
    for _, actions, step in steps:
        observation, result = batch.step(actions)
        np.testing.assert_array_equal(step.observation, observation)
        np.testing.assert_array_equal(step.reward, result.reward)
        assert step.last_seen is step.observation
    figures, state = world.figures(), world.state()
    np.testing.assert_array_equal(figures["food_eaten"], state.food_eaten)
    np.testing.assert_array_equal(figures["energy"], state.energy)
    np.testing.assert_array_equal(state.position, batch.state().position)


def test_a_life_ends_once_by_death_or_by_its_last_step():
    _, steps = lived()
    terminal, truncated = (np.stack([getattr(s, n) for _, _, s in steps]) for n in ("is_terminal", "is_truncated"))
    assert (terminal.sum(0) + truncated.sum(0) == 1).all()
    assert terminal.any()
    assert truncated.any()
    assert not truncated[:-1].any()
    for was_playing, _, step in steps:
        np.testing.assert_array_equal(step.is_playing, was_playing & ~step.is_terminal & ~step.is_truncated)
        assert (step.reward[~was_playing] == 0).all()


def test_a_new_life_begins_with_everybody():
    world, _ = lived()
    world.reset([3])
    assert world.step(np.zeros((1, 6), int)).is_playing.all()
