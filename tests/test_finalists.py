"""What finalists are worth on fresh seeds."""

import math

import numpy as np
import pytest

from jaxrl.dqn.hyperparameters import Configuration
from jaxrl.population.plan import Agent
from jaxrl.search.finalists import compare, interval, to_json
from jaxrl.search.results import Results

CONFIGURATION = Configuration.create({}, 100)


def results(scores, rank_by="mean", first_seed=0):
    """Of configurations by number, each a list of its seeds' scores."""
    pairs = [(config, k) for config, seeds in scores.items() for k in range(len(seeds))]
    agents = [Agent(CONFIGURATION, first_seed + k) for _, k in pairs]
    made = Results(agents, [config for config, _ in pairs], 100, "last", rank_by)
    for result, (config, k) in zip(made.of_agent, pairs, strict=True):
        result.eval_return_mean, result.train_return_mean = scores[config][k], 0.0
        result.status = "finished"
    return made


def test_the_winner_is_who_does_best_on_fresh_seeds_and_flattery_is_said():
    search = results({3: [500.0], 7: [480.0]})
    fresh = results({3: [100.0, 200, 300, 400], 7: [470.0, 480, 490, 500]})
    first, second = compare(search, fresh, threshold=475)
    assert (first.config, second.config) == (7, 3)
    assert (first.fresh_iqm, first.fresh_mean, first.solved) == (485, 485, 0.75)
    assert first.flattery == -5
    assert (second.search_score, second.fresh_iqm, second.flattery) == (500, 250, 250)
    assert second.solved == 0
    assert first.fresh_low < 485 < first.fresh_high


def test_the_interquartile_mean_ranks_where_it_is_asked_for():
    """One seed of four that fails costs the mean much, and the middle half nothing."""
    scores = {0: [0.0, 500, 500, 500], 1: [400.0, 400, 400, 400]}
    assert results(scores).ranking() == [1, 0]
    assert results(scores, rank_by="iqm").ranking() == [0, 1]


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    """Of 20 seeds with uniform scores; percentile intervals of small samples are a little narrow."""
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(60):
        low, high = interval(rng.uniform(0, 500, 20))
        covered += low <= 250 <= high
    assert 50 <= covered <= 60


def test_the_interval_of_equal_scores_is_a_point_and_of_one_seed_there_is_none():
    assert interval([500.0] * 8) == (500, 500)
    assert all(map(math.isnan, interval([500.0])))
    assert all(map(math.isnan, interval([500.0, math.nan])))
    assert interval([1.0, 5, 9, 13]) == interval([1.0, 5, 9, 13])


def test_the_interval_and_the_flattery_are_of_the_average_that_ranks():
    scores = [500.0] * 7 + [9.0]
    low, high = interval(scores, "mean")
    assert low < np.mean(scores) <= high
    assert low < interval(scores)[0]  # the middle half forgives the one that failed
    same = {0: [500.0] * 15 + [9.0] * 5}
    for rank_by in ("mean", "iqm"):
        search, fresh = results(same, rank_by=rank_by), results(same, rank_by=rank_by)
        assert compare(search, fresh, 475)[0].flattery == 0


def test_in_json_what_is_not_known_is_null():
    (row,) = to_json(compare(results({0: [3.0]}), results({0: [4.0]}), threshold=None))
    assert row["fresh_low"] is row["fresh_high"] is row["solved"] is None
    assert (row["config"], row["search_score"], row["fresh_iqm"]) == (0, 3.0, 4.0)


@pytest.mark.parametrize("rank_by", ["mean", "iqm"])
def test_a_missing_score_comes_last(rank_by):
    assert results({0: [math.nan], 1: [1.0], 2: [2.0]}, rank_by).ranking() == [2, 1, 0]
