"""A search that is given device time: what it draws, what that costs, when it ends."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_dirs import records, rows

from jaxrl.population.cost import COMPILE_SECONDS
from jaxrl.population.devices import configure
from jaxrl.search.allowance import Allowance, Spent, choose
from jaxrl.search.models import Told
from jaxrl.search.space import load_space
from jaxrl.search.study import Proposer
from jaxrl.sweep import main as sweep

pytestmark = pytest.mark.usefixtures("compilation_cache")


def chosen(costs, room=1e9, workers=1, seed=0, shapes=None, known=("a",), most=9999):
    shapes = shapes or ["a"] * len(costs)
    return choose(costs, shapes, known, room, workers, np.random.default_rng(seed), most)


@given(
    st.lists(st.floats(0.01, 100), min_size=1, max_size=50),
    st.floats(0.1, 200),
    st.integers(1, 8),
    st.integers(0, 99),
)
def test_what_is_chosen_fits_or_is_the_cheapest(costs, room, workers, seed):
    found, longest = chosen(costs, room, workers, seed), 0.375 * room
    assert found == sorted(set(found))
    if found != [int(np.argmin(costs))]:
        assert sum(costs[i] for i in found) <= room * workers * (1 + 1e-9)
        assert max(costs[i] for i in found) <= longest  # for a longer one the others would wait
    left = room * workers - sum(costs[i] for i in found)
    others = [cost for i, cost in enumerate(costs) if i not in found and cost <= longest]
    assert all(cost > left - 1e-6 for cost in others)  # nothing that would have fitted is left out


def test_what_fits_is_drawn_evenly_whatever_it_costs():
    costs = [1.0] * 10_000 + [20.0] * 10_000
    cheap = dear = 0
    for seed in range(10):
        found = chosen(costs, room=2000, seed=seed)
        cheap += sum(i < 10_000 for i in found)
        dear += sum(i >= 10_000 for i in found)
    assert cheap / dear == pytest.approx(1, rel=0.25)


def test_new_programs_take_a_quarter_of_a_generation_at_most_but_for_the_first():
    shapes = ["a", "b", "c", "d"] * 50
    costs = [0.01] * 200
    for room, opened in ((0.1, 0), (4 * COMPILE_SECONDS, 1), (8 * COMPILE_SECONDS, 2), (1e6, 3)):
        found = chosen(costs, room=room, shapes=shapes)
        assert len({shapes[i] for i in found} - {"a"}) == opened
    assert len({shapes[i] for i in chosen(costs, room=0.1, shapes=shapes, known=())}) == 1


def test_no_more_are_chosen_than_fit_in_memory():
    assert len(chosen([1.0] * 100, most=7)) == 7


def test_time_is_shared_out_until_less_than_half_a_part_is_left():
    allowance = Allowance(80.0, 8)
    assert allowance.room(0, Spent()) == 10
    assert allowance.room(1, Spent(24.0, 6.0)) == 8
    assert allowance.room(8, Spent(72.0, 6.0)) == 8
    assert allowance.room(9, Spent(75.0, 6.0)) == 5
    assert allowance.room(3, Spent(76.1, 6.0)) == 0
    assert Spent().pace == 1
    assert Spent(3.0, 2.0).pace == 1.5


def test_candidates_of_generations_are_those_of_one_sequence():
    space = load_space("hands-on-rl")
    told = [Told(space.at(np.full(len(space.varying), 0.5)), 1.0)]
    for sampler in ("random", "sobol"):
        proposer = Proposer(space, sampler, 3, 10_000)
        whole = proposer.ask(0, 2048, [])
        assert [*proposer.candidates(0, []), *proposer.candidates(1, told)] == whole
    assert len(Proposer(space, "tpe", 3, 10_000).candidates(1, told)) == 64


RUN = [
    *("--space", "hands-on-rl", "--steps", "1000", "--eval-every", "500", "--eval-episodes", "2"),
    *("--final-episodes", "2", "--device", "cpu", "--no-track", "--set", "hidden_sizes=[8]"),
    *("--set", "learning_starts=100", "--set", "batch_size=16"),
]


def test_a_search_ends_about_when_its_time_is_spent_and_says_all_of_it(tmp_path):
    run_dir = tmp_path / "timed"
    command = [*RUN, "--budget-seconds", "3", "--generations", "4", "--run-dir", str(run_dir)]
    assert sweep(command) == 0
    results = rows(run_dir / "results.csv")
    assert [int(row["config"]) for row in results] == [*range(len(results))]
    assert {row["status"] for row in results} <= {"finished", "pruned", "diverged"}
    assert {"pruned", "finished"} <= {row["status"] for row in results}  # halving is the default
    costs = rows(run_dir / "costs.csv")
    spent = sum(float(row["device_seconds"]) for row in costs) / len(configure("cpu").devices)
    assert spent > 3 - 3 / 8  # else there was room for another generation
    later = records(run_dir, "generation")
    firsts = [record["first"] for record in later]
    assert later
    assert firsts == sorted(set(firsts))
    assert sweep(["--resume", str(run_dir), "--no-track"]) == 0


@pytest.mark.slow
def test_one_that_is_killed_goes_on_with_the_generation_it_had_drawn(tmp_path):
    whole = tmp_path / "whole"
    command = [*RUN, "--budget-seconds", "4", "--generations", "6", "--finalists", "1"]
    assert sweep([*command, "--final-seeds", "2", "--run-dir", str(whole)]) == 0
    killed = tmp_path / "killed"
    (killed / "journal").mkdir(parents=True)
    (killed / "sweep.json").write_bytes((whole / "sweep.json").read_bytes())
    lines = (whole / "journal" / "000000.jsonl").read_bytes().splitlines(keepends=True)
    kinds = [json.loads(line)["kind"] for line in lines]
    cut = kinds.index("generation") + 1
    (killed / "journal" / "000000.jsonl").write_bytes(b"".join(lines[:cut]))
    assert sweep(["--resume", str(killed), "--no-track"]) == 0
    count = (
        len(records(whole, "generation")[0]["configs"]) + records(whole, "generation")[0]["first"]
    )
    same = [rows(folder / "results.csv")[:count] for folder in (whole, killed)]
    assert same[0] == same[1]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--budget-seconds", "0"], "budget_seconds is 0.0; it must be a number above 0"),
        (["--budget-seconds", "nan"], "budget_seconds is nan"),
        (["--budget-seconds", "9", "--configs", "8"], "give one of the two"),
        (["--budget-seconds", "9", "--sampler", "cmaes"], "use --sampler random, sobol, tpe"),
        (["--budget-seconds", "9", "--sampler", "grid"], "use --sampler random, sobol, tpe"),
        (["--budget-seconds", "9", "--generations", "0"], "in 0 generations"),
    ],
)
def test_what_cannot_be_budgeted_is_refused(options, said, tmp_path, capsys):
    run_dir = tmp_path / "none"
    assert sweep([*RUN, *options, "--run-dir", str(run_dir)]) == 2
    assert said in capsys.readouterr().err
    assert not run_dir.exists()


def test_a_table_has_no_budget(tmp_path, capsys):
    table = tmp_path / "table.json"
    table.write_text("[{}]")
    command = ["--config-table", str(table), "--budget-seconds", "5", "--no-track"]
    assert sweep([*command, "--run-dir", str(tmp_path / "none")]) == 2
    assert "and --config-table lists them: give one of the two" in capsys.readouterr().err
