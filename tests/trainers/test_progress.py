"""What is shown while a run goes on: the time left counts every stage, and a line fits a terminal."""

import pytest

from evolution.config import EvolutionConfig
from trainers.cli.progress import Clock, Progress, _successes
from trainers.config import TrainConfig

TOOK = {"breeding": 1, "collecting": 10, "learning": 4, "evaluating": 20, "competing": 7, "comparing": 30}


def run_through(config, resumed_at=0, after=()):
    """Go through a run whose stages take as long as `TOOK` says; (said, true) seconds left, once a second."""
    now, left = 0, []
    clock = Clock(config, resumed_at, after, lambda: now)

    def go_through(stage):
        nonlocal now
        clock.begin(stage)
        for second in range(TOOK[stage]):
            if second and stage in ("collecting", "evaluating"):
                clock.go_on(second / TOOK[stage])
            left.append((now, clock.left()))
            now += 1

    breeds = config.evolution.enabled
    for generation in range(resumed_at, config.generations):
        clock.generation(generation)
        rollouts = ["collecting", "learning"] * config.rollouts_per_generation
        stages = ["breeding"] * (generation > 0 and breeds) + rollouts + ["evaluating", *after]
        for stage in stages + ["comparing"] * (generation == 0):
            go_through(stage)
    clock.generation(config.generations)
    go_through("comparing")
    return [(said, now - at) for at, said in left]


@pytest.mark.parametrize(
    ("config", "after"),
    [
        (TrainConfig(generations=5), []),
        (TrainConfig(generations=5, rollouts_per_generation=2), []),
        (TrainConfig(generations=1), []),
        (TrainConfig(generations=4, evolution=EvolutionConfig(enabled=False)), []),
        (TrainConfig(generations=5), ["competing"]),
    ],
)
def test_once_every_stage_was_timed_the_time_left_is_right_and_it_never_stands_still(config, after):
    shown = run_through(config, after=after)
    assert shown[0][0] is None
    rollouts = config.rollouts_per_generation * (TOOK["collecting"] + TOOK["learning"])
    first = rollouts + TOOK["evaluating"] + sum(TOOK[stage] for stage in after) + TOOK["comparing"]
    assert all(left > 0.3 * true for left, true in shown[1:first])  # guesses, while stages have not been timed
    for left, true in shown[first + 1 :]:
        assert left == pytest.approx(true, abs=config.generations)  # breeding is not timed before the second
    assert [left for left, _ in shown[-TOOK["comparing"] :]] == list(range(TOOK["comparing"], 0, -1))


def test_a_resumed_run_counts_what_is_left_of_it():
    whole, resumed = run_through(TrainConfig(generations=6)), run_through(TrainConfig(generations=6), resumed_at=4)
    assert resumed[5][0] < 0.7 * whole[5][0]
    assert resumed[-1][1] == 1


def test_however_many_generations_are_left_it_is_told_at_once():
    now = 0
    clock = Clock(TrainConfig(generations=10**9), now=lambda: now)
    clock.generation(3)
    for stage in ("breeding", "collecting", "learning", "evaluating"):
        clock.begin(stage)
        now += TOOK[stage]
    clock.begin("comparing")
    generation = sum(TOOK[stage] for stage in ("breeding", "collecting", "learning", "evaluating"))
    assert clock.left() == pytest.approx((10**9 - 4) * generation, rel=1e-6)


@pytest.mark.parametrize("food", [{}, {"food_eaten_mean": 135.15}])
def test_a_generation_fits_a_line_of_80_columns(capsys, food):
    figures = {"generation": 1999, "fitness_mean": -132.58, "fitness_max": 140.94, "lifetime_mean": 126.0}
    Progress(TrainConfig(generations=2000)).done(figures | food | {"wall_s": 1304.5})
    line = capsys.readouterr().out.rstrip("\n")
    assert line.startswith("generation 1999  fitness -132.58")
    assert len(line) <= 80


def test_success_is_told_of_each_task_and_of_rollouts_where_they_are_known():
    figures = {"env_steps": 20480.0, "success_mean": 0.41}
    assert _successes({"env_steps": 1.0}) == ""
    assert _successes(figures) == "  success 41% after 20,480 steps"
    tasks = {"success_of_goto_mean": 0.6, "success_of_open_mean": 0.22}
    rollouts = {"rollout_success_mean": 0.38, "rollout_success_of_goto_mean": 0.5}
    told = "  success 41% (goto 60%, open 22%), 38% while learning, after 20,480 steps"
    assert _successes(figures | tasks | rollouts) == told
