"""What all foreign worlds have in common: one seed fixes them, they keep quiet, and they are closed in the end."""

import random
import sys
from types import ModuleType

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from pettingzoo import AECEnv, ParallelEnv
from pettingzoo.utils import parallel_to_aec

from envs import HELD_OUT
from envs.extras import EXTRAS
from envs.worlds.foreign import Chance, aside, fitting
from envs.worlds.gym_world import GymWorld, make_gym
from envs.worlds.team_world import TeamWorld, make_team


def test_seeds_fit_into_32_bits_and_small_and_held_out_ones_stay_what_they_are():
    for seed in (0, 7, HELD_OUT - 1, HELD_OUT, HELD_OUT + 5, 2**32 - 1):
        assert fitting(seed) == seed
    for seed in (2**32, 2**32 + 7, HELD_OUT + 1000 * (2**32 - 1) + 999, 2**53):
        assert HELD_OUT <= fitting(seed) < 2**32, "held out, and small enough for NumPy's old generator"


def drawn():
    return random.random(), np.random.rand(), np.random.default_rng().random(), gymnasium.utils.seeding.np_random()[1]


def test_within_chance_all_that_nobody_seeded_follows_from_a_seed_and_outside_all_is_as_ever():
    random.seed(1)
    np.random.seed(1)
    first = random.random(), np.random.rand()
    random.seed(1)
    np.random.seed(1)
    chance, again = Chance(5), Chance(5)
    with chance:
        one = drawn()
    assert (random.random(), np.random.rand()) == first
    with again:
        assert drawn() == one
        two = drawn()
    with chance:
        assert drawn() == two, "it goes on where it stopped"
    with Chance(6) as other:
        assert not set(drawn()) & set(one)
    assert np.random.default_rng().random() != one[2]
    assert other.was_used
    with Chance(7) as unused:
        np.random.default_rng(3).random()
    assert not unused.was_used


@pytest.mark.parametrize("draw", [random.random, np.random.rand, np.random.default_rng], ids=["python", "old", "new"])
def test_chance_notices_every_kind_of_draw(draw):
    with Chance(0) as chance:
        draw()
    assert chance.was_used


class Spy:
    """Counts what is made and closed."""

    made: list  # of all environments of a test
    closed: list


class Lonely(gymnasium.Env):
    """Rooms whose layout is drawn when they are made; they draw more from NumPy's old generators, talk, and count."""

    observation_space, action_space = Box(0, 9), Discrete(3, start=5)

    def __init__(self, masked=False, fails_at=99):
        Spy.made.append(self)
        self.layout, self.masked, self.fails_at = np.random.default_rng().random(), masked, fails_at
        self.seen, self.info = np.zeros(4), {"action_mask": np.ones(3, np.int8)} if masked else {}

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            np.random.seed(seed)
        print("a new episode")
        self.seen[:] = 0, np.random.rand(), random.random(), self.layout
        return self.seen, self.info

    def step(self, action):
        self.seen[0] += 1
        self.seen[1] = np.random.rand()
        if self.seen[0] == self.fails_at:
            raise RuntimeError("out of order")
        if self.masked:
            self.info["action_mask"][:] = np.arange(3) == self.seen[0] % 3
        print("Sampling rejected: something\nStep", action)
        return self.seen, float(action), False, self.seen[0] == 4, self.info

    def close(self):
        Spy.closed.append(self)


class Together(ParallelEnv):
    """Four who come and go: a is there from the beginning, b comes at step 2 and leaves at 4, c never, d says no word.

    Everything that it gives is written into at each step.
    """

    metadata = {"name": "together", "is_parallelizable": True}  # noqa: RUF012
    possible_agents = ["a", "b", "c", "d"]  # noqa: RUF012

    def __init__(self, first=("a", "d"), masked=False):
        self.first, self.masked, self.log, self.agents = first, masked, [], []
        self.rows = {name: {"here": np.zeros(1), "pair": (np.zeros(1),)} for name in self.possible_agents}
        self.mask = np.ones(3, np.int8)
        Spy.made.append(self)

    def observation_space(self, agent):
        return Box(0, 9)

    def action_space(self, agent):
        return Discrete(3, start=2)

    def reset(self, seed=None, options=None):
        self.agents, self.t = list(self.first), 0
        return self.seen(self.agents)

    def seen(self, names):
        for name in names:
            self.rows[name]["here"][0] = self.rows[name]["pair"][0][0] = self.t
        self.mask[:] = np.arange(3) == self.t % 3
        infos = {name: {"action_mask": self.mask} if self.masked else {} for name in names}
        return {name: self.rows[name] for name in names}, infos

    def step(self, actions):
        assert set(actions) == set(self.agents)
        self.t += 1
        self.log.append(dict(actions))
        over = {name: name == "b" and self.t == 4 for name in self.agents}
        cut = {name: self.t == 6 for name in self.agents}
        reward = dict.fromkeys(self.agents, 1.0)
        there = [name for name in self.agents if not (name == "d" and self.t == 3)]
        if self.t == 2:
            there.append("b")
        rows, infos = self.seen(there)
        self.agents = [name for name in there if not (over.get(name) or cut.get(name))]
        return rows, reward, over, cut, infos

    def close(self):
        Spy.closed.append(self)


gymnasium.register("TerrariumTest/Lonely-v0", Lonely, disable_env_checker=True)
LONELY, TOGETHER = "TerrariumTest/Lonely-v0", "terrarium_test.together_v0"


@pytest.fixture(autouse=True)
def worlds(monkeypatch):
    """A registry of worlds that are closed when a test ends; and a module of PettingZoo's kind."""
    monkeypatch.setattr(Spy, "made", [], raising=False)
    monkeypatch.setattr(Spy, "closed", [], raising=False)
    module = ModuleType(TOGETHER)
    module.parallel_env = Together
    monkeypatch.setitem(sys.modules, "terrarium_test", ModuleType("terrarium_test"))
    monkeypatch.setitem(sys.modules, TOGETHER, module)
    return module


def lonely(agents=2, renews=True, **options):
    return GymWorld(LONELY, options, agents, 99, renews=renews)


def together(agents=4, renews=False, **options):
    return TeamWorld(TOGETHER, options, agents, 99, renews=renews)


def life(world, seeds, steps=6):
    seen = [world.reset(np.array(seeds))]
    seen += [world.step(np.zeros(seen[0].shape, int)).observation for _ in range(steps)]
    return [[one.tolist() for one in row.flat] for row in seen]


def test_what_a_world_draws_when_it_is_made_begun_or_played_follows_from_the_seeds_alone():
    world = lonely()
    once = life(world, [3, 4])
    random.seed(99)
    assert life(lonely(), [3, 4]) == once
    assert life(world, [3, 4]) == once, "whatever was played before"
    layouts = [[one[3] for one in row] for row in once]
    assert layouts[0] == layouts[-1], "a life is lived in one layout"
    assert layouts[0][0] == layouts[0][1] != layouts[0][2] == layouts[0][3], "common to all agents of a world"
    assert once != life(lonely(), [5, 6])
    assert len({copy.layout for copy in Spy.made}) == 4


def test_a_random_map_of_frozen_lake_is_that_of_its_seed_and_common_to_all_agents():
    def maps(world, seeds):
        world.reset(np.array(seeds))
        return [copy.unwrapped.desc.tolist() for copy in world.copies()]

    world = GymWorld("FrozenLake-v1", {"map_name": None}, 3, 9, renews=True)
    first = maps(world, [1, 2])
    assert first[0] == first[1] == first[2] != first[3] == first[4] == first[5]
    assert maps(world, [2, 1]) == first[3:] + first[:3]
    world.close()


def test_a_world_that_draws_nothing_when_it_is_made_is_made_once():
    world = GymWorld("FrozenLake-v1", {}, 2, 9, renews=True)
    world.reset([1])
    copies = world.copies()
    world.reset([2])
    assert all(a is b for a, b in zip(copies, world.copies(), strict=True))
    world.close()


def test_what_was_seen_last_is_not_written_over_by_what_comes_next():
    world = lonely(agents=1)
    first = world.reset([0])[0, 0]
    steps = [world.step(np.array([[0]])) for _ in range(5)]
    assert [step.last_seen[0, 0][0] for step in steps] == [1, 2, 3, 4, 1]
    assert [step.observation[0, 0][0] for step in steps] == [1, 2, 3, 0, 1]
    assert first[0] == 0
    team = together(renews=True, first=("a",))
    first = team.reset([0])[0, 0]
    steps = [team.step(np.zeros((1, 4), int)) for _ in range(7)]
    assert [step.last_seen[0, 0]["here"][0] for step in steps] == [1, 2, 3, 4, 5, 6, 1]
    assert [step.last_seen[0, 0]["pair"][0][0] for step in steps] == [1, 2, 3, 4, 5, 6, 1]
    assert [step.observation[0, 0]["here"][0] for step in steps] == [1, 2, 3, 4, 5, 0, 1]
    assert first["here"][0] == 0


def test_who_comes_later_plays_from_then_on_and_who_never_comes_never():
    world = together()
    seen = world.reset([0])[0]
    assert [one is not None for one in seen] == [True, False, False, True]
    assert world.is_playing.tolist() == [[True, False, False, True]]
    steps = [world.step(np.zeros((1, 4), int)) for _ in range(7)]
    playing = np.stack([step.is_playing[0] for step in steps]).astype(int)
    assert playing.T.tolist() == [[1, 1, 1, 1, 1, 0, 0], [0, 1, 1, 0, 0, 0, 0], [0] * 7, [1, 1, 0, 0, 0, 0, 0]]
    reward = np.stack([step.reward[0] for step in steps])
    assert reward.T.tolist() == [[1] * 6 + [0], [0, 0, 1, 1, 0, 0, 0], [0] * 7, [1, 1, 1, 0, 0, 0, 0]]
    ends = {name: np.argwhere([getattr(step, name)[0] for step in steps]).tolist() for name in steps[0]._fields[2:4]}
    assert ends == {"is_terminal": [[2, 3], [3, 1]], "is_truncated": [[5, 0]]}, "who is seen no more expects no more"
    assert [sorted(done) for done in Spy.made[-1].log] == [*[["a", "d"]] * 2, ["a", "b", "d"], ["a", "b"], ["a"], ["a"]]


def test_who_left_is_there_again_when_the_next_episode_begins():
    world = together(renews=True)
    world.reset([0])
    steps = [world.step(np.zeros((1, 4), int)) for _ in range(12)]
    assert steps[5].is_playing.tolist() == [[True, False, False, True]]
    assert [one is None for one in steps[5].observation[0]] == [False, True, True, False]
    playing = [step.is_playing.tolist() for step in steps]
    assert playing[:6] == playing[6:]


def test_actions_count_from_where_the_space_begins():
    world = lonely(agents=3)
    world.reset([0])
    assert world.step(np.array([[0, 1, 2]])).reward.tolist() == [[5, 6, 7]]
    team = together()
    team.reset([0])
    team.step(np.array([[1, 0, 0, 2]]))
    assert Spy.made[-1].log == [{"a": 3, "d": 4}]


def test_a_mask_says_which_actions_are_open_as_long_as_nobody_writes_into_it():
    world = lonely(agents=1, masked=True)
    world.reset([0])
    assert world.legal().tolist() == [[[True] * 3]]
    masks = [(world.step(np.zeros((1, 1), int)), world.legal()[0, 0].argmax())[1] for _ in range(3)]
    assert masks == [1, 2, 0]
    world.step(np.zeros((1, 1), int))
    assert lonely().reset([0]).shape == (1, 2)
    team = together(masked=True)
    team.reset([0])
    assert team.legal()[0, 0].tolist() == [True, False, False]
    before = team.legal().copy()
    Spy.made[-1].mask[:] = 0
    assert (team.legal() == before).all()
    team.step(np.zeros((1, 4), int))
    assert team.legal()[0].tolist() == [[False, True, False], [True] * 3, [True] * 3, [False, True, False]]


def test_in_a_spare_seat_something_is_done_that_is_open_there():
    world = together(agents=6, masked=True, first=("a", "b", "c", "d"))
    world.reset([0])
    world.step(np.full((1, 6), 2))
    tables = [copy.log[-1] for copy in Spy.made[-2:]]
    assert tables == [{"a": 4, "b": 4, "c": 4, "d": 4}, {"a": 4, "b": 4, "c": 2, "d": 2}]


def test_a_mask_of_another_length_is_refused():
    class Odd(Lonely):
        def reset(self, seed=None, options=None):
            return self.seen, {"action_mask": np.ones(2)}

    gymnasium.register("TerrariumTest/Odd-v0", Odd, disable_env_checker=True)
    world = GymWorld("TerrariumTest/Odd-v0", {}, 1, 9, renews=True)
    with pytest.raises(ValueError, match=r"its action_mask has the shape \(2,\): must be \(3,\), one for each action"):
        world.reset([0])


@pytest.mark.parametrize("kind", [lonely, together])
def test_all_that_was_made_is_closed(kind):
    world = kind(agents=5)
    world.reset([0, 1, 2])
    world.reset([3])
    world.close()
    assert len(Spy.made) >= 6
    assert sorted(map(id, Spy.closed)) == sorted(map(id, Spy.made))
    world.reset([0])
    world.close()
    assert len(Spy.closed) == len(Spy.made)


def test_the_others_are_closed_even_where_one_cannot_be(caplog):
    world = lonely(agents=3)
    world.reset([0])

    def fail():
        raise OSError("stuck")

    world.copies()[1].unwrapped.close = fail
    world.close()
    assert len(Spy.closed) == 2
    assert f"note: {LONELY}: close raised OSError: stuck (" in caplog.text


def test_what_a_world_prints_goes_to_standard_error_but_for_known_noise(capsys):
    world = lonely(agents=1)
    world.reset([0])
    world.step(np.zeros((1, 1), int))
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "a new episode\nStep 5\n"

    @aside()
    def fail():
        print("before it failed")
        raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert capsys.readouterr().err == "before it failed\n"


def by_turns(metadata):
    def env(**options):
        made = parallel_to_aec(Together(**options))
        made.metadata = metadata
        return made

    return env


def test_a_world_by_turns_is_made_parallel_where_that_is_allowed(worlds):
    del worlds.parallel_env
    worlds.env = by_turns({"is_parallelizable": True})
    assert isinstance(make_team(TOGETHER, {}), ParallelEnv)
    team = together(first=("a", "b", "c", "d"))
    team.reset([0])
    assert team.step(np.zeros((1, 4), int)).reward.tolist() == [[1.0] * 4]
    worlds.env = by_turns({})
    says = r"its agents move by turns \(AEC\), and its metadata does not allow it to be made parallel"
    with pytest.raises(ValueError, match=says):
        make_team(TOGETHER, {})
    assert isinstance(worlds.env(), AECEnv)


def test_who_can_ever_play_must_be_known(worlds):
    worlds.parallel_env = lambda: type("Nobody", (Together,), {"possible_agents": []})()
    with pytest.raises(ValueError, match="it has no possible_agents: who can ever play must be known beforehand"):
        make_team(TOGETHER, {})


def refusing(monkeypatch, *absent):
    """Let some packages be absent."""
    for name in [name for name in sys.modules if name.partition(".")[0] in absent]:
        monkeypatch.delitem(sys.modules, name)
    find = type("Absent", (), {"find_spec": staticmethod(lambda name, path=None, target=None: _absent(name, absent))})
    monkeypatch.setattr(sys, "meta_path", [find, *sys.meta_path])


def _absent(name, absent):
    if name.partition(".")[0] in absent:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name.partition(".")[0])


@pytest.mark.parametrize(
    ("make", "name", "says"),
    [
        (
            make_team,
            "mpe2.simple_spread_v3",
            r"the package mpe2 is not installed; `pip install -e ..\[worlds\].` brings it",
        ),
        (
            make_gym,
            "MiniGrid-Empty-5x5-v0",
            r"the package minigrid is not installed; `pip install -e '.\[worlds\]'` brings",
        ),
        (make_team, "terrarium_needs.one_v0", "^the package pymunk is not installed$"),
        (make_team, "terrarium_needs.two_v0", "^there is no module terrarium_needs.two_v0$"),
        (make_team, "nowhere.one_v0", "^there is no module nowhere$"),
        (make_team, "terrarium_needs.old_v0", "^it has moved to another package$"),
    ],
)
def test_a_missing_package_is_named_and_an_extra_only_where_it_brings_it(make, name, says, monkeypatch, tmp_path):
    (tmp_path / "terrarium_needs").mkdir()
    (tmp_path / "terrarium_needs" / "one_v0.py").write_text("import pymunk")
    (tmp_path / "terrarium_needs" / "old_v0.py").write_text("raise ImportError('it has moved\\nto another package')")
    monkeypatch.syspath_prepend(tmp_path)
    refusing(monkeypatch, "mpe2", "minigrid", "pymunk")
    with pytest.raises(ValueError, match=says):
        make(name, {})


def test_extras_are_those_of_the_project(pytestconfig):
    import tomllib

    extras = tomllib.loads((pytestconfig.rootpath / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    names = {"pygame": "pygame-ce", "sb3_contrib": "sb3-contrib", "stable_baselines3": "stable-baselines3"}
    for package, extra in EXTRAS.items():
        assert any(line.startswith(names.get(package, package) + ">=") for line in extras[extra]), package
