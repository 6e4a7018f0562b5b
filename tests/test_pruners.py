"""Where rungs are, and who stops at them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrl.search.pruners import PRUNERS, Halving, Hyperband, Median

STEPS = range(2500, 50_001, 2500)


def test_rungs_are_at_a_ninth_and_a_third_of_what_follows_the_warm_up():
    assert Halving(STEPS, []).rungs == (5000, 17_500)
    assert Halving(STEPS, [], warm_up=5000).rungs == (10_000, 20_000)
    assert Hyperband(STEPS, [], warm_up=5000).rungs == (10_000, 20_000)
    assert Halving(STEPS, [], warm_up=50_000).rungs == Halving(STEPS, [], warm_up=25_000).rungs
    assert Halving([100], [], warm_up=10).rungs == ()


def test_the_median_judges_after_a_quarter_of_it():
    assert Median(STEPS, []).rungs[0] == 12_500
    assert Median(STEPS, [], warm_up=5000).rungs[0] == 17_500
    assert Median(STEPS, []).rungs[-1] == 47_500


def test_the_best_third_goes_on_and_who_diverged_goes_first():
    scores = {0: 1.0, 1: math.nan, 2: 3.0, 3: 2.0, 4: 3.0, 5: 0.0}
    assert Halving(STEPS, scores).stopped(5000, scores) == {0, 1, 3, 5}
    assert Median(STEPS, scores).stopped(12_500, scores) == {0, 1, 5}


@given(st.lists(st.floats(0, 500) | st.just(math.nan), min_size=1, max_size=40))
def test_somebody_always_goes_on(scores):
    configs = dict(enumerate(scores))
    for make in (Halving, Hyperband, Median):
        pruner = make(STEPS, list(configs), 1000)
        assert configs.keys() - pruner.stopped(pruner.rungs[-1], configs)


def test_one_bracket_of_hyperband_is_never_stopped():
    pruner = Hyperband(STEPS, range(60))
    scores = {config: float(config) for config in range(60)}
    for rung in pruner.rungs:
        for config in pruner.stopped(rung, scores):
            del scores[config]
    assert min(scores) < 10  # those of the bracket without rungs, however bad


def test_no_pruner_stops_nobody():
    assert PRUNERS["none"](STEPS, [0], 0) is None
    with pytest.raises(KeyError):
        PRUNERS["best"]
