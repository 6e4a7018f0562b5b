"""What a person sees while a sweep runs."""

import io

import numpy as np
import pytest
from rich.console import Console

from jaxrl.dqn.environment import make
from jaxrl.dqn.hyperparameters import Configuration
from jaxrl.population.devices import configure
from jaxrl.population.layout import Layout, Verdict
from jaxrl.population.plan import Agent, Budget, make_plan
from jaxrl.population.report import Report, Rung
from jaxrl.search.results import Results
from jaxrl.tracking.console import ConsoleDisplay, Meter


@pytest.fixture
def sweep():
    agents = [
        Agent(Configuration.create({"learning_rate": rate, "train_freq": f}, 1000), 0)
        for rate, f in [(0.001, 4), (0.002, 4), (0.004, 1)]
    ]
    plan = make_plan(agents, Budget(1000, 100, 1, 1), make("CartPole-v1"), configure("cpu"))
    return plan, Results(agents, [0, 1, 2], 1, "last")


def report(agents, step, new_steps, returns, ready=1):
    evaluation = {
        name: np.array(returns, float)
        for name in ("eval_return_mean", "train_return_mean", "updates")
    }
    evaluation["diverged"] = np.zeros(len(agents), bool)
    return Report(0, np.array(agents), step, new_steps, 0.1, ready, evaluation)


def feed(display, results, one):
    results.update(one)
    display.update(one)


def test_a_terminal_shows_progress_speed_and_the_best(sweep):
    plan, results = sweep
    console = Console(file=io.StringIO(), force_terminal=True, width=120, color_system=None)
    display = ConsoleDisplay(console)
    display.start(plan, results, None, [0] * len(plan.agents))
    feed(display, results, report([0, 1], 500, 500, [20.0, 90.0]))
    feed(display, results, report([2], 500, 500, [10.0]))
    display.stop()
    final = console.file.getvalue()
    assert "50%, 1,500 of 3,000 steps" in final
    assert "best 90.0 (config 1)" in final
    assert "learning_rate=0.002 train_freq=4" in final
    assert "gamma=" not in final  # it does not vary


def test_agents_that_stop_at_a_rung_leave_less_to_do(sweep):
    plan, _ = sweep
    meter = Meter(plan, [0] * len(plan.agents))
    meter.update(report([0, 1, 2], 500, 500, [1.0] * 3))
    assert meter.fraction == pytest.approx(0.5)
    verdict = Verdict(frozenset({0, 2}))
    rung = Rung(verdict, Layout.of(plan).after(verdict))
    meter.update(Report(-1, np.array([], int), 500, 0, 0.0, 1, rung=rung))
    assert meter.total_steps == 3000 - 2 * 500
    meter.update(report([1], 1000, 500, [1.0]))
    assert meter.fraction == pytest.approx(1)
    assert meter.steps == meter.total_steps


def test_elsewhere_it_prints_plain_lines(sweep):
    plan, results = sweep
    console = Console(file=io.StringIO(), width=80)
    display = ConsoleDisplay(console)
    display.start(plan, results, None, [0] * len(plan.agents))
    feed(display, results, report([0, 1], 500, 500, [20.0, 90.0]))
    display.stop()
    lines = console.file.getvalue().splitlines()
    assert lines[0] == "compiling the first programs"
    assert all("\x1b" not in line for line in lines)
    assert "best 90.0 (config 1)" in lines[-1]


def test_progress_weighs_steps_by_their_cost(sweep):
    plan, _ = sweep
    meter = Meter(plan, [0] * len(plan.agents))
    meter.update(report([2], 1000, 1000, [10.0]))  # trains four times as often as the others
    assert meter.steps == 1000
    assert 1 / 3 < meter.fraction < 1
    meter.update(report([0, 1], 1000, 1000, [10.0, 10.0]))
    assert meter.fraction == pytest.approx(1.0)
    assert meter.seconds_left == pytest.approx(0.0, abs=1e-6)


def test_the_time_left_is_not_guessed_before_everything_is_compiled(sweep):
    plan, results = sweep
    console = Console(file=io.StringIO(), width=80)
    display = ConsoleDisplay(console, ["something to know"])
    display.start(plan, results, None, [0] * len(plan.agents))
    feed(display, results, report([0, 1], 500, 500, [20.0, 90.0], ready=0))
    lines = console.file.getvalue().splitlines()
    assert lines[0] == "warning: something to know"
    assert "compiling for shape 1 of 1" in lines[-1]
    assert "left" not in lines[-1]
