"""What a search proposes: that it is reproducible, in its space, and goes where scores are good."""

import importlib.util
import json
import math
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import optuna
import pytest

from jaxrl.errors import InputError
from jaxrl.search.mirror import mirror
from jaxrl.search.models import Told
from jaxrl.search.samplers import SAMPLERS
from jaxrl.search.space import Choice, Interval, Space, load_space
from jaxrl.search.study import SAMPLER_NAMES, Proposer
from jaxrl.specification import SweepSpec

ABSENT = {
    name
    for name, package in {"cmaes": "cmaes", "gp": "torch"}.items()
    if importlib.util.find_spec(package) is None
}
EXTRA = pytest.mark.skipif
LEARNING = [
    "tpe",
    pytest.param("cmaes", marks=EXTRA("cmaes" in ABSENT, reason="needs jaxrl[search]")),
    pytest.param("gp", marks=[pytest.mark.slow, EXTRA("gp" in ABSENT, reason="needs jaxrl[gp]")]),
]
MIXED = Space(
    {
        "learning_rate": Interval(1e-5, 1e-1, log=True),
        "buffer_size": Interval(10, 10_000, log=True),
        "learning_starts": Interval(0, 100, step=10),
        "gamma": 0.9,
        "hidden_sizes": Choice(((), (64, 64), (256, 256))),
        "n_step": Choice((1, 3, 5), when={"hidden_sizes": [[64, 64], [256, 256]]}, otherwise=2),
        "seed": Interval(0, 2**30 - 1),
    }
)
CHOICES = Space(
    {
        "double_q": Choice((True, False)),
        "train_freq": Choice((1, 2, 4, 8)),
        "n_step": Choice((1, 2, 3), when={"double_q": [True]}),
    }
)
"""Of 16 combinations."""


def score(values):
    """Best at a learning rate of 1e-3 with the large network."""
    size = sum(values.get("hidden_sizes", ())) / 512
    return size - abs(math.log10(values.get("learning_rate", 1e-3)) + 3)


def run(proposer, generations, count):
    """All that a search is told, generation after generation; some fail and some are pruned."""
    told = []
    for generation in range(generations):
        for n, values in enumerate(proposer.ask(generation, count, told)):
            result = {0: (math.nan, None), 1: (None, 200)}.get(n, (score(values), None))
            told.append(Told(values, *result, intermediate={100: -3.0, 200: score(values)}))
    return told


def is_in(space, values):
    """Whether the space gives these values somewhere, and no others there."""
    coordinate = space.coordinates(values)
    at = space.at(np.array([coordinate.get(name, 0.5) for name in space.varying]))
    assert at.keys() == values.keys()
    for name, value in values.items():
        assert type(at[name]) is type(value)
        assert at[name] == (pytest.approx(value) if isinstance(value, float) else value)
    return True


@pytest.mark.parametrize("sampler", [*SAMPLERS, *LEARNING])
class TestEverySampler:
    def test_proposals_are_in_the_space_whatever_was_told(self, sampler):
        told = run(Proposer(MIXED, sampler, 0, 42), 3, 14)
        assert len(told) == 42
        assert all(is_in(MIXED, trial.values) for trial in told)
        linear = [t.values for t in told if t.values["hidden_sizes"] == ()]
        assert {values["n_step"] for values in linear} == {2}

    def test_a_search_that_is_rebuilt_from_what_was_told_goes_on_alike(self, sampler):
        told = run(Proposer(MIXED, sampler, 5, 48), 2, 16)
        kept = json.loads(json.dumps([trial.values for trial in told]))  # as a journal has them
        again = [
            Told(values, t.score, t.pruned_at, t.intermediate)
            for values, t in zip(kept, told, strict=True)
        ]
        proposals = Proposer(MIXED, sampler, 5, 48).ask(2, 16, told)
        assert Proposer(MIXED, sampler, 5, 48).ask(2, 16, again) == proposals
        assert Proposer(MIXED, sampler, 6, 48).ask(2, 16, told) != proposals

    def test_a_space_in_which_nothing_varies_but_the_seed_is_searched_too(self, sampler):
        space = Space({"gamma": 0.9, "seed": Interval(0, 2**30 - 1)})
        told = run(Proposer(space, sampler, 0, 24), 2, 12)
        assert len({trial.values["seed"] for trial in told}) == 24


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_generations_together_are_the_points_of_one_of_the_total(sampler):
    proposer = Proposer(load_space("hands-on-rl"), sampler, 3, 100)
    told = run(proposer, 4, 25)
    assert [trial.values for trial in told] == proposer.ask(0, 100, [])


@pytest.mark.parametrize("sampler", LEARNING)
class TestLearning:
    def test_it_goes_where_scores_were_good(self, sampler):
        generations, count = (4, 12) if sampler == "gp" else (6, 24)
        told = run(Proposer(MIXED, sampler, 1, generations * count), generations, count)
        first, last = (
            np.mean([score(trial.values) for trial in part])
            for part in (told[:count], told[-count:])
        )
        assert last > first + 0.4

    def test_the_seed_is_noise(self, sampler):
        """Scores that only the seed explains change nothing but by their order."""
        rows = Proposer(MIXED, "random", 0, 30).ask(0, 30, [])
        told = [Told(values, score(values)) for values in rows]
        others = [Told({**t.values, "seed": n}, t.score) for n, t in enumerate(told)]
        first, second = (Proposer(MIXED, sampler, 0, 40).ask(1, 10, t) for t in (told, others))
        assert first == second
        assert len({values["seed"] for values in first}) == 10

    def test_all_that_failed_is_survived(self, sampler):
        rows = Proposer(MIXED, sampler, 0, 24).ask(0, 12, [])
        told = [Told(values, None) for values in rows]
        assert len(Proposer(MIXED, sampler, 0, 24).ask(1, 12, told)) == 12

    def test_what_was_told_is_not_proposed_again_while_there_is_else(self, sampler):
        told = run(Proposer(CHOICES, sampler, 0, 16), 2, 6)
        assert len({str(trial.values) for trial in told}) == 12
        more = run(Proposer(CHOICES, sampler, 0, 24), 2, 12)
        assert len(more) == 24, "there are 16 combinations, and a search goes on beyond them"

    def test_the_user_sees_no_warnings(self, sampler):
        script = (
            "import json, sys; from jaxrl.search.study import Proposer\n"
            "from jaxrl.search.models import Told\n"
            "from jaxrl.search.space import Choice, Space\n"
            "space = Space({'double_q': Choice((True, False)), 'n_step': Choice((1, 2, 3),"
            " when={'double_q': [True]})})\n"
            f"p = Proposer(space, {sampler!r}, 0, 40)\n"
            "told = [Told(v, float(n)) for n, v in enumerate(p.ask(0, 20, []))]\n"
            "p.ask(1, 5, told)"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_pruned_and_failed_configurations_rank_below_every_score():
    values = {"gamma": 0.9}
    failed = [Told(values, None), Told(values, math.nan), Told(values, -math.inf)]
    pruned = [
        Told(values, None, 100, {}),
        Told(values, 9.0, 100, {50: 7.0, 100: 1.0}),
        Told(values, None, 200, {200: 0.5, 300: math.nan}),
        Told(values, None, 200, {200: 0.7}),
    ]
    scored = [Told(values, -5.0), Told(values, 0.0)]
    everything = [*failed, *pruned, *scored]
    assert sorted(everything[::-1], key=lambda t: t.merit)[3:] == everything[3:]
    assert [t.state for t in everything] == ["FAIL"] * 3 + ["PRUNED"] * 4 + ["COMPLETE"] * 2


class TestGrid:
    def test_every_combination_comes_once_in_an_order_that_the_seed_decides(self):
        orders = [
            [t.values for t in run(Proposer(CHOICES, "grid", seed, 16), 4, 4)] for seed in (0, 0, 1)
        ]
        assert orders[0] == orders[1] != orders[2]
        expected = [
            {"double_q": True, "train_freq": f, "n_step": n}
            for f in (1, 2, 4, 8)
            for n in (1, 2, 3)
        ] + [{"double_q": False, "train_freq": f} for f in (1, 2, 4, 8)]
        for order in orders:
            assert sorted(map(str, order)) == sorted(map(str, expected))

    def test_steps_are_combined_and_the_seed_is_not(self):
        space = Space({"gamma": Interval(0.9, 0.99, step=0.03), "seed": Interval(0, 2**30 - 1)})
        proposals = Proposer(space, "grid", 0, 4).ask(0, 4, [])
        assert sorted(values["gamma"] for values in proposals) == [0.9, 0.93, 0.96, 0.99]
        assert len({values["seed"] for values in proposals}) == 4

    @pytest.mark.parametrize(
        ("parameters", "total", "message"),
        [
            ({"gamma": Interval(0, 1)}, 1, "gamma is an interval without a step"),
            ({"gamma": Choice((0.9, 0.99))}, 3, "has 2 combinations, fewer than the 3"),
            ({"buffer_size": Interval(1, 200_000, step=1)}, 5, "more than 100,000 combinations"),
        ],
    )
    def test_what_is_no_grid_is_refused(self, parameters, total, message):
        with pytest.raises(InputError, match=message) as caught:
            Proposer(Space(parameters), "grid", 0, total)
        assert "\n" not in str(caught.value)


def test_an_unknown_sampler_is_refused_with_those_there_are():
    with pytest.raises(InputError, match=r"'tpee'.*'tpe'.*sobol"):
        Proposer(CHOICES, "tpee", 0, 10)


@pytest.mark.parametrize(("sampler", "package"), [("cmaes", "cmaes"), ("gp", "torch")])
def test_a_sampler_whose_package_is_not_here_is_refused(sampler, package, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else 1)
    with pytest.raises(InputError, match=rf"{sampler} needs the package {package}.*pip install"):
        Proposer(CHOICES, sampler, 0, 10)
    assert sampler in SAMPLER_NAMES


@pytest.mark.slow
@EXTRA("gp" in ABSENT, reason="needs jaxrl[gp]")
def test_a_gaussian_process_leaves_torch_its_threads():
    import torch

    torch.set_num_threads(2)
    told = [Told(values, score(values)) for values in Proposer(MIXED, "gp", 0, 20).ask(0, 20, [])]
    assert Proposer(MIXED, "gp", 0, 24).ask(1, 2, told)
    assert torch.get_num_threads() == 2


def test_a_generation_too_large_for_a_gaussian_process_is_refused_before_the_first():
    with pytest.raises(InputError, match=r"72 in a generation are more than 64"):
        SweepSpec(sampler="gp", configs=500, generations=7)


@pytest.mark.parametrize("configs", [1, 7, 9, 64, 500, 1_000, 4_099])
def test_by_default_no_generation_is_too_large_for_it(configs):
    sizes = SweepSpec(sampler="gp", configs=configs).sizes
    assert sum(sizes) == configs
    assert len(sizes) >= min(configs, 8)
    assert 1 <= min(sizes) <= max(sizes) <= 64


@pytest.mark.parametrize(("sampler", "most_apart"), [("tpe", 1), ("random", 1), ("cmaes", 100)])
def test_generations_are_as_even_as_they_can_be(sampler, most_apart):
    sizes = SweepSpec(sampler=sampler, configs=1_000, generations=300).sizes
    assert (len(sizes), sum(sizes)) == (300, 1_000)
    assert max(sizes) - min(sizes) <= most_apart
    assert len(set(sizes[:-1])) == 1 or sampler != "cmaes"


def test_what_failed_counts_as_the_worst(monkeypatch):
    from jaxrl.search import models

    told = [
        Told({"gamma": 0.9}, 100.0),
        Told({"gamma": 0.99}, 400.0),
        Told({"gamma": 0.9}, None, intermediate={100: 377.0}),
    ]
    values = []
    study = SimpleNamespace(add_trial=lambda trial: values.append(trial.value), ask=lambda: None)
    monkeypatch.setattr("optuna.create_study", lambda **_: study)
    next(models._from_optuna(None, Space({"gamma": Choice([0.9, 0.99])}), told, knows_pruned=True))
    assert values == [100.0, 400.0, 100.0]


class TestMirror:
    @pytest.fixture
    def storage(self, tmp_path):
        return f"sqlite:///{tmp_path / 'study.db'}"

    @pytest.fixture
    def told(self):
        return run(Proposer(MIXED, "random", 0, 8), 1, 8)

    def test_trials_are_what_was_told(self, storage, told):
        assert mirror(storage, "mine", "sweep", MIXED, told) == 8
        study = optuna.load_study(study_name="mine", storage=storage)
        assert study.direction.name == "MAXIMIZE"
        for n, (trial, said) in enumerate(zip(study.trials, told, strict=True)):
            expected = dict(said.values)
            attributes = {"config": n, "seed": expected.pop("seed")}
            del expected["gamma"]
            if expected["hidden_sizes"] == ():
                del expected["n_step"]
            expected["hidden_sizes"] = json.dumps(list(said.values["hidden_sizes"]))
            assert trial.params == expected
            assert trial.user_attrs == attributes
            assert trial.state.name == {0: "FAIL", 1: "PRUNED"}.get(n, "COMPLETE")
            assert trial.value == (said.score if n > 1 else None)
            assert trial.intermediate_values == said.intermediate
        assert study.best_trial.value == max(trial.score or -math.inf for trial in told[2:])

    def test_called_again_it_writes_what_is_new(self, storage, told):
        written = [mirror(storage, "mine", "sweep", MIXED, told[:n]) for n in (0, 5, 5, 8)]
        assert written == [0, 5, 0, 3]
        study = optuna.load_study(study_name="mine", storage=storage)
        assert [trial.user_attrs["config"] for trial in study.trials] == list(range(8))

    def test_every_packaged_space_can_be_written(self, storage):
        for name in ("hands-on-rl", "cartpole", "cartpole-wide"):
            rows = Proposer(load_space(name), "random", 0, 5).ask(0, 5, [])
            assert mirror(storage, name, name, load_space(name), [Told(v, 1.0) for v in rows]) == 5

    def test_a_study_of_something_else_is_refused(self, storage, told):
        mirror(storage, "mine", "sweep", MIXED, told)
        with pytest.raises(InputError, match=r"study mine .* holds another search"):
            mirror(storage, "mine", "another", MIXED, told)
        foreign = optuna.create_study(storage=storage, study_name="foreign")
        foreign.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
        with pytest.raises(InputError, match=r"study foreign .* holds another search"):
            mirror(storage, "foreign", "sweep", MIXED, told)

    @pytest.mark.parametrize(
        "storage", ["sqlite:////nowhere/study.db", "garbage", "mysql://me:secret@127.0.0.1:9/db"]
    )
    def test_a_storage_that_cannot_be_used_is_refused_without_its_password(self, storage):
        with pytest.raises(InputError, match=r"Optuna storage .* cannot be used") as caught:
            mirror(storage, "mine", "sweep", MIXED, [])
        assert "\n" not in str(caught.value)
        assert "secret" not in str(caught.value)
