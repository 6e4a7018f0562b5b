"""Score against cost."""

import csv
import io
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrl.dqn.environment import make
from jaxrl.dqn.hyperparameters import Configuration
from jaxrl.population.cost import operations
from jaxrl.population.plan import Agent
from jaxrl.search.cost import costs, to_csv
from jaxrl.search.results import Results


def results(scores):
    """One seed a configuration."""
    agents = [Agent(Configuration.create({}, 100), 0) for _ in scores]
    made = Results(agents, range(len(agents)), 100, "last")
    for result, score in zip(made.of_agent, scores, strict=True):
        result.eval_return_mean, result.device_seconds = score, 2.0
    return made


scores = st.lists(st.sampled_from([9.0, 100.0, 475.0, 500.0, math.nan]), min_size=1, max_size=8)


@given(st.data(), scores)
def test_on_the_front_is_who_is_beaten_by_nobody_that_is_as_cheap(data, points):
    operations = {c: data.draw(st.sampled_from([1.0, 2.0, 4.0])) for c in range(len(points))}
    found = costs(results(points), operations)
    front = [row for row in found if row.on_front]
    for row in found:
        beaten = any(
            f.score >= row.score and f.operations <= row.operations and f is not row for f in front
        )
        assert row.on_front or beaten or math.isnan(row.score)
        assert not (row.on_front and math.isnan(row.score))
    for one in front:
        for other in found:
            is_better = other.score > one.score and other.operations <= one.operations
            assert not is_better


def test_the_table_says_what_each_configuration_took():
    rows = list(csv.DictReader(io.StringIO(to_csv(costs(results([500.0, 9.5]), {0: 8.0, 1: 2.0})))))
    assert rows[0] == {
        "config": "0",
        "score": "500.0",
        "operations": "8.0",
        "device_seconds": "2.0",
        "on_front": "true",
    }
    assert rows[1]["on_front"] == "true"


def test_configurations_of_the_course_differ_five_hundredfold_in_arithmetic():
    """More updates an environment step, of more rows each."""
    env = make("CartPole-v1")

    def cost(**values):
        values |= {"hidden_sizes": [256, 256], "learning_starts": 1000}
        return operations(Configuration.create(values, 50_000), env, 50_000)

    most = cost(train_freq=8, gradient_steps=16, batch_size=128)
    least = cost(train_freq=256, gradient_steps=1, batch_size=16)
    assert most / least == pytest.approx(32 * 16 * 8, rel=0.02)
