"""Which configurations get a run, and what requests cost."""

import pytest

from jaxrl.errors import InputError
from jaxrl.tracking.budget import Budget, default_requests_per_hour
from jaxrl.tracking.projection import Metric, RunUpdate
from jaxrl.tracking.selection import LIVE, Choice, Selection


def evaluation(config, step, value=0.0, **fields):
    return RunUpdate(config, step, [Metric("eval/return_mean", value, step, step)], **fields)


def sent(selection, *updates):
    return list(selection.pass_on(updates))


def points(updates, config):
    return [m.step for update in updates if update.config == config for m in update.metrics]


def test_everything_passes_at_once_where_requests_are_many():
    updates = [evaluation(None, 1), evaluation(0, 1), evaluation(1, 1)]
    assert sent(Selection(Choice.parse("all")), *updates) == updates


def test_where_they_are_few_the_best_are_live_and_the_rest_comes_once_when_finished():
    selection = Selection(Choice.parse("all", is_sparse=True))
    configs = 3 * LIVE
    first = sent(selection, *(evaluation(c, 1, value=c) for c in range(configs)))
    live = set(range(configs - LIVE, configs))
    assert {update.config for update in first} == live
    second = sent(selection, *(evaluation(c, 2, value=c) for c in range(configs)))
    assert {update.config for update in second} == live
    (late,) = sent(selection, evaluation(0, 3, params={"gamma": "1"}, status="FINISHED"))
    assert points([late], 0) == [1, 2, 3]
    assert (late.status, late.params, late.count) == ("FINISHED", {"gamma": "1"}, 3)


def test_whatever_a_metric_is_called_it_is_held_and_passed_on():
    selection = Selection(Choice.parse("top:1"))
    copied = [Metric("pbt/source", 3.0, 5, 100), Metric("verified/return_mean", 4.0, 6, 200)]
    assert sent(selection, evaluation(0, 1), RunUpdate(0, 6, copied)) == []
    (late,) = (u for u in sent(selection, RunUpdate(None, 9, status="FINISHED")) if u.config == 0)
    assert late.metrics[1:] == copied


def test_a_parent_is_never_held_back():
    for text in ("all", "top:1", "parent"):
        selection = Selection(Choice.parse(text, is_sparse=True))
        assert sent(selection, evaluation(None, 1)) == [evaluation(None, 1)]


@pytest.mark.parametrize(("text", "expected"), [("top:2", {2, 1}), ("parent", set())])
def test_few_runs_come_at_the_end(text, expected):
    selection = Selection(Choice.parse(text))
    during = [evaluation(c, step, value=c) for c in range(3) for step in (1, 2)]
    assert sent(selection, *during) == []
    at_end = sent(selection, RunUpdate(None, 9, status="FINISHED"))
    assert {update.config for update in at_end} - {None} == expected
    for config in expected:
        assert points(at_end, config) == [1, 2]


def test_what_is_left_comes_when_the_sweep_ends():
    selection = Selection(Choice.parse("all", is_sparse=True))
    sent(selection, *(evaluation(c, 1, value=c) for c in range(LIVE + 5)))
    at_end = sent(selection, RunUpdate(None, 9, status="KILLED"))
    assert {update.config for update in at_end} == {None, 0, 1, 2, 3, 4}


def test_an_ended_sweep_that_goes_on_holds_back_again():
    selection = Selection(Choice.parse("all", is_sparse=True))
    sent(selection, *(evaluation(c, 1, value=c) for c in range(LIVE + 1)))
    sent(selection, RunUpdate(None, 2, status="KILLED"), RunUpdate(None, 3, status="RUNNING"))
    assert sent(selection, evaluation(0, 4)) == []


def test_what_arrived_before_counts_for_whom_is_sent_later():
    """Another process, after the parent's end has arrived."""
    selection = Selection(Choice.parse("top:2"))
    for update in (evaluation(1, 1, value=9), RunUpdate(None, 2, status="FINISHED")):
        selection.note(update)
    late = sent(selection, *(evaluation(c, 1, value=c) for c in (0, 2, 3)))
    assert {update.config for update in late} == {3}


@pytest.mark.parametrize("text", ["", "none", "top", "top:", "top:0", "top:-1", "top:1.5", "all "])
def test_other_choices_are_refused(text):
    with pytest.raises(InputError, match="give all, top:N"):
        Choice.parse(text)


def test_the_estimate_counts_creation_batch_and_end():
    assert Choice.parse("all").requests(1024) == (3 * 1025 + 4, 1025)
    assert Choice.parse("all", is_sparse=True).requests(1024) == (3 * 1025 + 4, LIVE + 1)
    assert Choice.parse("top:5").requests(1024) == (3 * 6 + 4, 1)
    assert Choice.parse("parent").requests(1024) == (7, 1)


def test_only_ngrok_has_a_limit_by_default():
    for host in (
        "a-b.ngrok-free.app",
        "x.ngrok.io",
        "me.ngrok.app",
        "x.ngrok-free.dev",
        "y.ngrok.dev",
    ):
        assert default_requests_per_hour(f"https://{host}") == 5_000
    for uri in (
        "http://127.0.0.1:5000",
        "sqlite:////x.db",
        "https://ngrok.example.com",
        "databricks",
    ):
        assert default_requests_per_hour(uri) is None


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands until it is moved."""
    now = [1000.0]
    monkeypatch.setattr("jaxrl.tracking.budget.time.monotonic", lambda: now[0])
    return now


def test_a_budget_holds_in_any_hour(clock):
    budget = Budget(10)
    budget.spend(6)
    clock[0] += 1800
    budget.spend(4)
    assert budget.seconds_until_free() == 1800
    clock[0] += 1799
    assert budget.seconds_until_free() == 1
    clock[0] += 1
    assert budget.seconds_until_free() == 0
    budget.spend(6)
    assert budget.seconds_until_free() == 1800


def test_without_a_limit_nobody_waits(clock):
    budget = Budget(None)
    budget.spend(10**9)
    assert budget.seconds_until_free() == 0
    assert budget.pause(0.5) == 0.5


def test_live_curves_are_sent_ever_more_seldom_where_requests_are_few(clock):
    budget, flushes = Budget(5_000), 0
    end = clock[0] + 3600
    while clock[0] < end:
        clock[0] += budget.pause(0.5)
        flushes += 1
    assert flushes * (LIVE + 1) < 5_000 - 3_079
