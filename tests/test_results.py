"""Results: who is ahead, and what results.csv holds."""

import csv
import io
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl.dqn.hyperparameters import Configuration
from jaxrl.population.plan import Agent
from jaxrl.population.report import Report
from jaxrl.search.results import Results, interquartile_mean

NAN = math.nan
COLUMNS = [
    "config",
    "seed",
    "learning_rate",
    "gamma",
    "batch_size",
    "buffer_size",
    "train_freq",
    "gradient_steps",
    "target_update_interval",
    "tau",
    "learning_starts",
    "epsilon_start",
    "epsilon_end",
    "epsilon_decay_steps",
    "max_grad_norm",
    "hidden_sizes",
    "huber_delta",
    "n_step",
    "double_q",
    "dueling",
    "normalize_observations",
    "train_return_mean",
    "eval_return_mean",
    "eval_return_std",
    "eval_episodes",
    "best_return_mean",
    "env_steps",
    "updates",
    "diverged",
    "status",
]


def results_of(*configs, select="last"):
    """Results of configurations, each a list of its seeds' results by name."""
    configuration = Configuration.create({}, 100)
    numbers = [number for number, seeds in enumerate(configs) for _ in seeds]
    agents = [Agent(configuration, k) for seeds in configs for k in range(len(seeds))]
    results = Results(agents, numbers, 100, select)
    for result, values in zip(results.of_agent, itertools.chain(*configs), strict=True):
        for name, value in values.items():
            setattr(result, name, value)
    return results


def scores(evaluation, train=0.0, **more):
    return {"eval_return_mean": evaluation, "train_return_mean": train, **more}


def report(agents, step, **values):
    """An evaluation or, where ``last_mean`` is given, a final report of ``agents``."""
    columns = {name: np.array(column, np.float32) for name, column in values.items()}
    kind = "final" if "last_mean" in columns else "evaluation"
    return Report(0, np.array(agents), step, step, 0.1, 1, **{kind: columns})


def evaluation_report(agents, step, returns, diverged):
    n = len(agents)
    return report(
        agents,
        step,
        eval_return_mean=returns,
        eval_return_std=[1] * n,
        train_return_mean=[20 + agent for agent in agents],
        loss=[0.1] * n,
        q_mean=[0.1] * n,
        grad_norm=[0.1] * n,
        epsilon=[0.1] * n,
        updates=[7] * n,
        diverged=diverged,
    )


def read_csv(results):
    return list(csv.DictReader(io.StringIO(results.to_csv())))


def test_the_higher_evaluation_is_ahead_whatever_the_training_says():
    results = results_of([scores(100, 500)], [scores(300, 1)], [scores(200, 2)])
    assert results.ranking() == [1, 2, 0]


def test_of_equal_evaluations_the_higher_training_mean_is_ahead():
    results = results_of([scores(500, 100)], [scores(500, 300)], [scores(500, 200)])
    assert results.ranking() == [1, 2, 0]


def test_of_equal_means_the_lower_number_is_ahead():
    assert results_of(*[[scores(500, 100)]] * 12).ranking() == list(range(12))


def test_seeds_are_averaged():
    results = results_of(
        [scores(500), scores(0)], [scores(260), scores(260)], [scores(0), scores(510)]
    )
    assert results.ranking() == [1, 2, 0]


def test_of_equal_averages_the_average_training_mean_decides():
    results = results_of([scores(1, 1), scores(3, 1)], [scores(2, 0), scores(2, 3)])
    assert results.ranking() == [1, 0]


def test_a_missing_evaluation_comes_after_every_known_one():
    results = results_of([scores(NAN, 500)], [scores(9, 1)], [scores(NAN, NAN)], [scores(8, NAN)])
    assert results.ranking() == [1, 3, 0, 2]


def test_a_configuration_that_misses_one_of_its_seeds_has_no_mean():
    results = results_of([scores(500), scores(NAN)], [scores(9), scores(9)])
    assert results.ranking() == [1, 0]
    assert math.isnan(results.mean(0, "eval_return_mean"))
    assert results.mean(1, "eval_return_mean") == 9


def test_a_diverged_configuration_comes_last_even_behind_what_was_never_evaluated():
    results = results_of(
        [scores(500, 500, diverged=True)],
        [scores(NAN, NAN)],
        [scores(9, 9), scores(9, 9)],
        [scores(500, 500), scores(500, 500, diverged=True)],
    )
    assert results.ranking() == [2, 1, 0, 3]


def test_the_policy_that_was_asked_for_decides():
    seeds = ([scores(100, best_return_mean=400)], [scores(200, best_return_mean=300)])
    assert results_of(*seeds, select="last").ranking() == [1, 0]
    assert results_of(*seeds, select="best").ranking() == [0, 1]


def test_agents_are_ordered_by_their_own_score_then_configuration_and_seed():
    results = results_of(
        [scores(100), scores(300)], [scores(300), scores(400, diverged=True)], [scores(NAN)]
    )
    assert sorted(range(5), key=results.agent_order) == [1, 2, 0, 4, 3]


def test_while_training_goes_on_the_latest_evaluation_decides():
    results = results_of([scores(NAN)], [scores(NAN)])
    results.update(evaluation_report([0, 1], 10, [50, 40], [False, False]))
    assert results.ranking_so_far() == [0, 1]
    results.update(evaluation_report([1], 20, [60], [False]))
    assert results.ranking_so_far() == [1, 0]
    results.update(evaluation_report([1], 30, [500], [True]))
    assert results.ranking_so_far() == [0, 1]


def test_where_the_best_policy_is_asked_for_the_highest_evaluation_so_far_decides():
    results = results_of([scores(NAN)], [scores(NAN)], select="best")
    results.update(evaluation_report([0, 1], 10, [70, 40], [False, False]))
    results.update(evaluation_report([0, 1], 20, [20, 60], [False, False]))
    assert results.ranking_so_far() == [0, 1]
    assert results.mean(0, results.column_so_far) == 70


def test_reports_fill_the_row_of_their_agents():
    results = results_of([scores(NAN)], [scores(NAN)])
    results.update(evaluation_report([1, 0], 50, [30, 40], [False, False]))
    results.update(report([1], 50, last_mean=[123], last_std=[4], best_mean=[456], best_std=[7]))
    killed, finished = read_csv(results)
    assert (killed["status"], killed["env_steps"], killed["eval_return_mean"]) == (
        "killed",
        "50",
        "nan",
    )
    wanted = {
        "train_return_mean": "21.0",
        "eval_return_mean": "123.0",
        "eval_return_std": "4.0",
        "eval_episodes": "100",
        "best_return_mean": "456.0",
        "env_steps": "50",
        "updates": "7",
        "diverged": "false",
        "status": "finished",
    }
    assert {name: finished[name] for name in wanted} == wanted


def test_the_last_policy_of_a_diverged_agent_has_no_score():
    results = results_of([scores(NAN)])
    results.update(evaluation_report([0], 50, [9], [True]))
    results.update(report([0], 50, last_mean=[500], last_std=[0], best_mean=[77], best_std=[1]))
    (row,) = read_csv(results)
    assert (row["eval_return_mean"], row["eval_return_std"]) == ("nan", "nan")
    assert (row["diverged"], row["status"], row["best_return_mean"]) == ("true", "diverged", "77.0")


def test_results_csv_has_the_columns_of_the_design_in_their_order():
    header = results_of([scores(1)]).to_csv().splitlines()[0]
    assert header == ",".join(COLUMNS)


def test_rows_are_sorted_by_configuration_and_seed_as_numbers():
    configuration = Configuration.create({}, 100)
    pairs = [(11, 2), (2, 10), (11, 1), (2, 9), (0, 2**32 - 1)]
    agents = [Agent(configuration, seed) for _, seed in pairs]
    rows = read_csv(Results(agents, [config for config, _ in pairs], 100, "last"))
    assert [(int(row["config"]), int(row["seed"])) for row in rows] == sorted(pairs)


def test_cells_are_json_and_what_is_missing_or_infinite_is_text():
    values = {"hidden_sizes": [256, 256], "huber_delta": math.inf, "double_q": True}
    results = Results([Agent(Configuration.create(values, 100), 3)], [0], 100, "last")
    (row,) = read_csv(results)
    wanted = {
        "hidden_sizes": "[256, 256]",
        "huber_delta": "inf",
        "double_q": "true",
        "dueling": "false",
        "batch_size": "32",
        "gamma": "0.99",
        "eval_return_mean": "nan",
        "eval_episodes": "0",
        "status": "killed",
    }
    assert {name: row[name] for name in wanted} == wanted


@settings(max_examples=100)
@given(st.floats(), st.floats(0, 1))
def test_floats_survive_results_csv(score, gamma):
    agent = Agent(Configuration.create({"gamma": gamma}, 100), 0)
    results = Results([agent], [0], 100, "last")
    results.of_agent[0].eval_return_mean = score
    (row,) = read_csv(results)
    assert repr(float(row["eval_return_mean"])) == repr(score)
    assert float(row["gamma"]) == gamma


@pytest.mark.parametrize(
    ("values", "mean"),
    [
        ([7], 7),
        ([1, 4], 2.5),
        ([0, 1, 11], 4),
        ([-1000, 1, 4, 1000], 2.5),
        ([-1000, 1, 2, 6, 1000], 3),
        ([-1000, -1000, 1, 2, 3, 6, 1000, 1000], 3),
        ([-100] * 3 + [1, 1, 2, 4, 5, 5] + [100] * 3, 3),
    ],
    ids=lambda value: str(len(value)) if isinstance(value, list) else "",
)
def test_the_interquartile_mean_is_that_of_the_middle_half(values, mean):
    rng = np.random.default_rng(0)
    for _ in range(5):
        assert interquartile_mean(rng.permutation(values)) == pytest.approx(mean, rel=1e-12)
