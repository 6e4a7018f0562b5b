"""What is compiled, how often, and what the compiler made of it."""

import re

import jax
import numpy as np
import pytest

from jaxrl.dqn.environment import make
from jaxrl.dqn.hyperparameters import Configuration, Shape
from jaxrl.population.devices import configure
from jaxrl.population.plan import Agent, Budget, make_plan
from jaxrl.population.program import Programs
from jaxrl.population.train import train
from jaxrl.search.samplers import random
from jaxrl.search.space import load_space

COMPILED = "/jax/core/compile/backend_compile_duration"


def compilations_of(population, steps):
    """How many programs XLA compiles while ``population`` is trained."""
    count = 0

    def listen(event, _seconds, **_):
        nonlocal count
        count += event == COMPILED

    budget = Budget(steps, steps, 1, 1)
    plan = make_plan(population, budget, make("CartPole-v1"), configure("cpu"))
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        for _ in train(plan):
            pass
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    return plan, count


def draw(space, count, **fixed):
    space = load_space(space).fix(fixed)
    rows = [space.at(point) for point in random(0, count, len(space.varying))]
    return [
        Agent(Configuration.create({n: v for n, v in row.items() if n != "seed"}, 64), row["seed"])
        for row in rows
    ]


def test_the_notebooks_whole_space_compiles_five_programs_a_shape():
    population = draw("hands-on-rl", 256, learning_starts=10)
    plan, count = compilations_of(population, steps=64)
    assert len(plan.cohorts) == 48
    assert len(plan.shapes) == 4  # batch sizes 16, 32, 64, 128
    statistics = 1  # of observations, once
    assert count == 5 * len(plan.shapes) + statistics


def test_configurations_and_cadences_compile_nothing_more():
    one = [Agent(Configuration.create({"hidden_sizes": [8]}, 64), 0)]
    many = [
        Agent(Configuration.create({"hidden_sizes": [8], "train_freq": f, "gamma": g}, 64), seed)
        for seed, (f, g) in enumerate([(1, 0.9), (2, 0.9), (3, 0.8), (64, 0.7), (100, 1.0)] * 3)
    ]
    assert compilations_of(one, 64)[1] == 5
    assert compilations_of(many, 64)[1] == 5


@pytest.fixture(scope="module")
def training_program():
    programs = Programs(
        Shape((16,), False, 8, 1),
        make("CartPole-v1"),
        width=4,
        capacity=5000,
        eval_episodes=2,
        final_episodes=2,
    )
    programs.compile_training()
    programs.compile_evaluation()
    return programs


def test_the_replay_is_never_copied(training_program):
    ring = r"f32\[4,5000,12\]"
    for program in (training_program.train, training_program.act):
        text = program.as_text()
        assert re.search(ring, text)
        assert not re.findall(rf"= {ring}\S* copy\(", text)


def test_the_replay_is_written_by_a_slice_update_and_not_a_scatter(training_program):
    for program in (training_program.train, training_program.act):
        text = program.as_text()
        assert re.search(r"f32\[4,5000,12\]\S* dynamic-update-slice\(", text)
        assert not re.search(r"f32\[4,5000,12\]\S* scatter\(", text)


def test_the_state_is_donated(training_program):
    header = training_program.train.as_text().splitlines()[0]
    leaves = len(jax.tree.leaves(jax.eval_shape(training_program._start, np.zeros(4, np.uint32))))
    assert header.count("may-alias") + header.count("must-alias") == leaves


def test_no_program_calls_back_to_the_host(training_program):
    programs = training_program
    for program in (programs.train, programs.act, programs.evaluate, programs.start):
        text = program.as_text()
        assert "callback" not in text
        assert not re.search(r"\b(infeed|outfeed|send|recv)\(", text)
