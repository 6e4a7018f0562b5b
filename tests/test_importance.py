"""Which hyperparameters mattered, for the score and for the steps to solve."""

import json
import math

import numpy as np
import pytest

from jaxrl.population.plan import Agent
from jaxrl.search.importance import of_results, shares
from jaxrl.search.results import Results
from jaxrl.search.schedule import to_agent
from jaxrl.sweep import main as sweep
from jaxrl.tracking.journal import read
from jaxrl.tracking.projection import Description, Projection

EVAL_STEPS = [100, 200, 300]


def results_of(rows):
    """Of rows of hyperparameters, final score (None: stopped early) and evaluations."""
    agents = [to_agent(values, 0, 300) for values, _, _ in rows]
    results = Results(agents, range(len(rows)), 100, "last")
    for result, (_, score, evaluations) in zip(results.of_agent, rows, strict=True):
        result.evaluations = dict(zip(EVAL_STEPS, evaluations, strict=False))
        result.status = "pruned" if score is None else "finished"
        result.eval_return_mean = math.nan if score is None else float(score)
    return results


def test_steps_to_a_target_are_those_of_the_first_evaluation_that_reached_it():
    results = results_of([({}, 0, (10, 480, 20)), ({}, 0, (10, 20, 30)), ({}, None, (10,))])
    assert [results.steps_to(475, c, EVAL_STEPS) for c in range(3)] == [200, 400, 400]


def test_steps_to_a_target_are_an_average_over_seeds():
    agent = to_agent({}, 0, 300)
    results = Results([agent, Agent(agent.configuration, 1)], [0, 0], 100, "last")
    results.of_agent[0].evaluations = {100: 500.0}
    results.of_agent[1].evaluations = {100: 10.0, 200: 500.0}
    assert results.steps_to(475, 0, EVAL_STEPS) == 150


def test_score_and_speed_may_depend_on_different_hyperparameters():
    """The score follows gamma, and the learning rate decides when it is solved."""
    rng, rows = np.random.default_rng(0), []
    for _ in range(80):
        rate, gamma = float(10 ** rng.uniform(-5, -2)), float(rng.uniform(0.9, 1))
        first = 0 if rate > 1e-3 else 1 if rate > 1e-4 else 2
        evaluations = [500.0 if place >= first else 10.0 for place in range(3)]
        rows.append(({"learning_rate": rate, "gamma": gamma}, 1000 * gamma, evaluations))
    found = of_results(results_of(rows), EVAL_STEPS, 475.0)
    assert found["score"]["gamma"] > 0.9
    assert found["steps_to_solve"]["learning_rate"] > 0.9
    assert of_results(results_of(rows), EVAL_STEPS, None).keys() == {"score"}


def test_scores_are_of_those_that_were_trained_to_their_end_and_speed_of_all():
    rows = [
        ({"gamma": 0.9 + 0.001 * i}, i if i < 7 else None, (500 if i % 2 else 0,))
        for i in range(30)
    ]
    assert of_results(results_of(rows), EVAL_STEPS, 475.0).keys() == {"steps_to_solve"}


@pytest.mark.parametrize(("solvers", "said"), [(1, False), (7, False), (8, True)])
def test_of_speed_nothing_is_said_where_few_solved_it(solvers, said):
    rows = [({"gamma": 0.9 + 0.001 * i}, i, (500 if i < solvers else 0,)) for i in range(30)]
    assert ("steps_to_solve" in of_results(results_of(rows), EVAL_STEPS, 475.0)) == said


def test_of_hyperparameters_that_changed_on_the_way_nothing_is_said():
    schedule = [[100, {"gamma": 0.5}]]
    rows = [({"gamma": 0.9 + 0.001 * i, "schedule": schedule}, i, (i,)) for i in range(30)]
    assert of_results(results_of(rows), EVAL_STEPS, 475.0) == {}


@pytest.mark.parametrize("scores", [range(7), [3.0] * 30, [float("inf")] * 0])
def test_too_few_or_equal_scores_say_nothing(scores):
    rows = [to_agent({"gamma": 0.9 + 0.001 * i}, 0, 300) for i in range(len(scores))]
    values = [vars(agent.configuration) for agent in rows]
    assert shares(values, list(scores)) == {}


def test_a_sweep_says_writes_and_tracks_it(tmp_path, capsys):
    run_dir = tmp_path / "weighed"
    command = [
        *("--configs", "12", "--steps", "600", "--eval-every", "300", "--eval-episodes", "1"),
        *("--final-episodes", "2", "--set", "hidden_sizes=[4]", "--set", "learning_starts=100"),
        *("--set", "gradient_steps=8", "--set", "train_freq=8", "--device", "cpu", "--no-track"),
    ]
    assert sweep([*command, "--run-dir", str(run_dir)]) == 0
    written = json.loads((run_dir / "importances.json").read_text())
    assert written.keys() == {"score"}  # in 600 steps none is solved
    assert sum(written["score"].values()) == pytest.approx(1)
    first, share = next(iter(written["score"].items()))
    assert f"what mattered for the score: {first} {share:.0%}" in capsys.readouterr().out
    (record,) = [r for r, _ in read(run_dir / "journal") if r["kind"] == "importances"]
    projection = Projection(Description("a", "b", "c", {}, [], [], []))
    (update,) = projection.feed(record)
    assert update.config is None
    assert not update.metrics
    assert update.tags["importance/score"].startswith(f"{first} {share:.0%}, ")
