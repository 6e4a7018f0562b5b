"""What is compiled, how often, and what the compiler made of it."""

import functools
import re
import subprocess
import sys

import jax
import numpy as np
import pytest

from jaxrl.dqn.environment import make
from jaxrl.dqn.hyperparameters import Cadence, Configuration, Shape
from jaxrl.population.devices import configure
from jaxrl.population.plan import Agent, Budget, make_plan
from jaxrl.population.program import Programs
from jaxrl.population.tile import TileFunctions
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
    functions = TileFunctions(Shape((16,), False, 8, 1), make("CartPole-v1"), 4, 5000, 2, 2)
    programs = Programs(functions, jax.devices()[0])
    programs.compile("training")
    programs.compile("evaluation")
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
    leaves = len(
        jax.tree.leaves(jax.eval_shape(training_program.functions.start, np.zeros(4, np.uint32)))
    )
    assert header.count("may-alias") + header.count("must-alias") == leaves


def test_no_program_calls_back_to_the_host(training_program):
    programs = training_program
    for program in (programs.train, programs.act, programs.evaluate, programs.start):
        text = program.as_text()
        assert "callback" not in text
        assert not re.search(r"\b(infeed|outfeed|send|recv)\(", text)


CADENCES = [Cadence(1, 1), Cadence(3, 2), Cadence(8, 1), Cadence(20, 5)]


def test_agents_of_different_cadence_learn_together_as_they_do_apart(make_hyper):
    """Through chunks that begin and end within rounds, and agents that start to learn in turn."""
    agents = [
        make_hyper(learning_starts=n, double_q=n > 6, buffer_size=40, observation_mean=np.zeros(4),
                   observation_std=np.ones(4), target_update_interval=5, learning_rate=0.01)
        for n in (5, 6, 7, 30)
    ]  # fmt: skip
    hyper = jax.tree.map(lambda *x: np.stack(x), *agents)
    seeds = np.arange(4, dtype=np.uint32)

    def trained(mixed, cadence):
        programs = _compiled(mixed)
        tile = programs.start(seeds)
        for start, stop in [(0, 2), (2, 19), (19, 40), (40, 47), (47, 75)]:
            tile = programs.advance(tile, seeds, hyper, cadence, start, stop)
        return jax.device_get(tile)

    together = trained(True, Cadence(*map(np.array, zip(*CADENCES, strict=True))))
    for lane, (freq, steps) in enumerate(CADENCES):
        apart = trained(False, Cadence(np.int32(freq), np.int32(steps)))
        rounds = 75 // freq - (5, 6, 7, 30)[lane] // freq
        assert together.learner.updates[lane] == rounds * steps
        jax.tree.map(
            lambda a, b, k=lane: np.testing.assert_allclose(a[k], b[k], rtol=1e-3, atol=1e-4),
            together,
            apart,
        )


def test_a_program_of_mixed_cadences_leaves_no_branch_to_the_host():
    text = _compiled(True).train.as_text()
    assert " while(" in text
    assert " conditional(" not in text
    assert " conditional(" in _compiled(False).train.as_text()  # double DQN, which a CPU leaves out


@functools.cache
def _compiled(mixed):
    functions = TileFunctions(Shape((16,), False, 8, 1), make("CartPole-v1"), 4, 64, 2, 2, mixed)
    programs = Programs(functions, jax.devices()[0])
    programs.compile("training")
    return programs


SEVERAL_DEVICES = """
import hashlib, jax, numpy as np
jax.config.update("jax_num_cpu_devices", 4)
from jaxrl.population.devices import Hardware, configure
hardware = configure("cpu")
from jaxrl.dqn.environment import make
from jaxrl.dqn.hyperparameters import Configuration
from jaxrl.population.plan import Agent, Budget, make_plan
from jaxrl.population.program import Programs
from jaxrl.population.train import train
advance, used = Programs.advance, set()
def recorded(self, tile, *arguments):
    tile = advance(self, tile, *arguments)
    used.update(tile.ring.devices())
    return tile
Programs.advance = recorded
agents = [Agent(Configuration.create({"hidden_sizes": [8], "learning_rate": 10**-(1 + k / 9),
    "learning_starts": 10, "train_freq": 1 + k % 2}, 60), k) for k in range(18)]
for devices in (1, 2, 4):
    hardware = Hardware("cpu", tuple(jax.devices()[:devices]), 2, 10**9)
    digest = {}
    used.clear()
    for report in train(make_plan(agents, Budget(60, 20, 2, 2), make("CartPole-v1"), hardware)):
        if report.final is not None:
            for place, index in enumerate(report.agents):
                leaves = jax.tree.leaves((report.final, report.params))
                digest[index] = b"".join(np.ascontiguousarray(x[place]).tobytes() for x in leaves)
    whole = b"".join(digest[index] for index in sorted(digest))
    print(len(used), len(digest), hashlib.sha256(whole).hexdigest())
"""


@pytest.mark.slow
def test_one_two_and_four_devices_give_the_same_numbers():
    output = subprocess.run(
        [sys.executable, "-c", SEVERAL_DEVICES], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    used, *numbers = zip(*(line.split() for line in output), strict=True)
    assert used == ("1", "2", "4")
    agents, digests = numbers
    assert agents == ("18",) * 3
    assert len(set(digests)) == 1
