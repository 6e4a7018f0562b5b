"""What the population engine promises: an agent's numbers are its own."""

import dataclasses
import threading
import time

import jax
import numpy as np
import pytest

from jaxrl.dqn.environment import make
from jaxrl.dqn.hyperparameters import Configuration
from jaxrl.errors import InputError
from jaxrl.population import train as train_module
from jaxrl.population.devices import configure
from jaxrl.population.plan import Agent, Budget, make_plan
from jaxrl.population.program import ProgramStore
from jaxrl.population.train import train

pytestmark = pytest.mark.usefixtures("compilation_cache")

STEPS = 700
BUDGET = Budget(steps=STEPS, eval_every=300, eval_episodes=3, final_episodes=5)
QUICK = {
    "learning_rate": 1e-3,
    "batch_size": 16,
    "hidden_sizes": [16],
    "train_freq": 4,
    "learning_starts": 100,
    "target_update_interval": 50,
    "buffer_size": 400,
}


def agents(count, seed=0, **fixed):
    """Agents that differ in every traced hyperparameter, in cadence and in seed."""
    rng = np.random.default_rng(seed)
    result = []
    for _ in range(count):
        values = QUICK | {
            "learning_rate": 10 ** rng.uniform(-4, -2),
            "gamma": rng.choice([0.9, 0.99]),
            "batch_size": int(rng.choice([11, 16])),  # of one shape
            "buffer_size": int(rng.choice([50, 300, 5000])),
            "train_freq": int(rng.choice([4, 7])),
            "gradient_steps": int(rng.choice([1, 3])),
            "learning_starts": int(rng.choice([0, 100, 290])),
            "target_update_interval": int(rng.choice([3, 50])),
            "tau": rng.choice([0.5, 1.0]),
            "max_grad_norm": rng.choice([0.1, 10.0, np.inf]),
            "huber_delta": rng.choice([1.0, np.inf]),
            "double_q": bool(rng.integers(2)),
            "normalize_observations": bool(rng.integers(2)),
            "epsilon_decay_steps": int(rng.choice([10, 500])),
        }
        configuration = Configuration.create(values | fixed, STEPS)
        result.append(Agent(configuration, int(rng.integers(2**32))))
    return result


def run(population, budget=BUDGET, env="CartPole-v1", hardware=None):
    """Everything that training says of each agent: a list of evaluations and the final report."""
    plan = make_plan(population, budget, make(env), hardware or configure("cpu"))
    history = [[] for _ in population]
    for report in train(plan):
        parts = [report.evaluation, report.final, report.params]
        for place, index in enumerate(report.agents):
            for part in parts:
                if part is not None:
                    own = jax.tree.map(lambda x, i=place: x[i], part)
                    history[index].append((report.step, own))
    return history


def assert_identical(first, second):
    assert len(first) == len(second)
    for (step_a, a), (step_b, b) in zip(first, second, strict=True):
        assert step_a == step_b
        jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture(scope="module")
def population():
    return agents(37)


@pytest.fixture(scope="module")
def together(population):
    return run(population)


@pytest.mark.parametrize("index", [0, 5, 17, 36])
def test_an_agent_trained_alone_equals_itself_in_a_population_to_the_bit(
    population, together, index
):
    alone = run([population[index]])[0]
    assert_identical(alone, together[index])


def test_order_and_neighbours_change_no_bit(population, together):
    shuffled = np.random.default_rng(1).permutation(len(population))[:20]
    again = run([population[i] for i in shuffled])
    for history, index in zip(again, shuffled, strict=True):
        assert_identical(history, together[index])


def test_chunk_cuts_change_no_bit(population, together, monkeypatch):
    monkeypatch.setattr(train_module, "CHUNK_SECONDS", 1e-4)
    again = run(population[:8])
    for history, expected in zip(again, together, strict=False):
        assert_identical(history, expected)


def test_the_number_of_workers_changes_no_bit(population, together):
    hardware = configure("cpu")
    one = dataclasses.replace(hardware, devices=hardware.devices[:1])
    for history, expected in zip(run(population[:8], hardware=one), together, strict=False):
        assert_identical(history, expected)


def test_other_ring_sizes_change_no_bit(population, together):
    small = [a for a in population if a.configuration.buffer_size <= 300][:4]
    expected = [together[population.index(agent)] for agent in small]
    for history, whole in zip(run(small), expected, strict=True):
        assert_identical(history, whole)


def test_different_seeds_differ_and_equal_seeds_do_not():
    configuration = Configuration.create(QUICK, STEPS)
    one, same, other = run(
        [Agent(configuration, 7), Agent(configuration, 7), Agent(configuration, 8)]
    )
    assert_identical(one, same)
    weights = [jax.tree.leaves(history[-1][1]["last"]) for history in (one, other)]
    assert not any(np.array_equal(a, b) for a, b in zip(*weights, strict=True))


def test_every_evaluation_step_is_reported_exactly_and_in_order(population):
    plan = make_plan(population[:10], BUDGET, make("CartPole-v1"), configure("cpu"))
    steps = [report.step for report in train(plan) if report.evaluation is not None]
    assert steps == sorted(steps)
    assert set(steps) == {300, 600, 700}


def test_steps_are_exact_and_updates_follow_the_clock():
    configurations = [
        {"train_freq": 4, "gradient_steps": 1, "learning_starts": 100},
        {"train_freq": 7, "gradient_steps": 3, "learning_starts": 100},
        {"train_freq": 1000, "gradient_steps": 1, "learning_starts": 0},
        {"train_freq": 1, "gradient_steps": 1, "learning_starts": 699},
        {"train_freq": 1, "gradient_steps": 1, "learning_starts": 700},
    ]
    population = [Agent(Configuration.create(QUICK | c, STEPS), 0) for c in configurations]
    for history, c in zip(run(population), configurations, strict=True):
        rounds = [
            t for t in range(1, STEPS + 1) if t % c["train_freq"] == 0 and t > c["learning_starts"]
        ]
        evaluation = history[-3]
        assert evaluation[0] == STEPS
        assert evaluation[1]["updates"] == len(rounds) * c["gradient_steps"]


def test_a_diverged_agent_is_flagged_and_poisons_nobody():
    sound = agents(3, seed=5)
    broken = Agent(
        Configuration.create(
            QUICK | {"learning_rate": 1e30, "huber_delta": np.inf, "learning_starts": 50}, STEPS
        ),
        0,
    )
    histories = run([sound[0], broken, *sound[1:]])
    assert histories[1][0][1]["diverged"]
    for history, expected in zip([histories[0], *histories[2:]], run(sound), strict=True):
        assert_identical(history, expected)
        assert not history[-3][1]["diverged"]


def test_the_best_policy_along_the_way_is_kept():
    population = agents(6, seed=3, learning_rate=3e-3, train_freq=4, gradient_steps=3)
    budget = Budget(steps=3000, eval_every=200, eval_episodes=5, final_episodes=20)
    for history in run(population, budget):
        evaluations = [
            part["eval_return_mean"] if part["updates"] else -1 for _, part in history[:-2]
        ]
        last, best = history[-1][1]["last"], history[-1][1]["best"]
        was_last = np.argmax(evaluations) == len(evaluations) - 1
        same = all(
            np.array_equal(a, b)
            for a, b in zip(jax.tree.leaves(last), jax.tree.leaves(best), strict=True)
        )
        assert same == was_last


def test_a_policy_that_was_never_trained_is_not_the_best():
    population = agents(4, seed=4, learning_starts=650, train_freq=4, learning_rate=1e-2)
    for history in run(population, Budget(STEPS, 100, 5, 5)):
        trained = [part["updates"] > 0 for _, part in history[:-2]]
        assert trained == [False] * 6 + [True]
        jax.tree.map(np.testing.assert_array_equal, history[-1][1]["last"], history[-1][1]["best"])


@pytest.mark.parametrize("env", ["Acrobot-v1", "MountainCar-v0"])
def test_other_environments_train(env):
    history = run(agents(2), env=env)[0]
    assert -500 <= history[-2][1]["last_mean"] <= 0


@pytest.mark.parametrize(
    "shape", [{"hidden_sizes": []}, {"hidden_sizes": [8, 8, 8], "dueling": True, "n_step": 3}]
)
def test_every_shape_trains_and_matches_itself_alone(shape):
    population = agents(5, seed=11, **shape)
    together = run(population)
    assert_identical(run([population[3]])[0], together[3])


def workers():
    return [thread for thread in threading.enumerate() if thread.name.startswith("jaxrl-")]


def test_closing_the_generator_stops_the_workers(population):
    plan = make_plan(population, BUDGET, make("CartPole-v1"), configure("cpu"))
    reports = train(plan)
    next(reports)
    assert workers()
    reports.close()
    assert not workers()


def test_training_does_not_wait_for_its_reports_to_be_read(population):
    plan = make_plan(population[:8], BUDGET, make("CartPole-v1"), configure("cpu"))
    reports = train(plan)
    next(reports)
    deadline = time.monotonic() + 60
    while workers():  # they end when every tile has had its final evaluation
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert sum(len(report.agents) for report in reports if report.final) == 8


def test_a_shape_trains_while_another_is_still_being_compiled(monkeypatch):
    trained = threading.Event()
    use = train_module.Programs.use

    def use_after_the_other_trained(programs, stage, compiled):
        if programs.functions.shape.minibatch_rows == 8 and stage == "training":
            assert trained.wait(60)
        use(programs, stage, compiled)

    monkeypatch.setattr(train_module.Programs, "use", use_after_the_other_trained)
    population = [
        Agent(Configuration.create(QUICK | {"batch_size": size}, STEPS), 0) for size in (8, 4)
    ]
    plan = make_plan(population, BUDGET, make("CartPole-v1"), configure("cpu"))
    first, *rest = iterate(train(plan, store=ProgramStore()), after_first=trained.set)
    assert first.agents.tolist() == [1]
    assert {tuple(report.agents) for report in rest if report.final} == {(0,), (1,)}


def iterate(reports, after_first):
    for report in reports:
        after_first()
        yield report


def test_an_error_in_a_worker_reaches_the_caller(population, monkeypatch):
    def broken(*_):
        raise RuntimeError("the device is gone")

    monkeypatch.setattr(train_module.Programs, "training", broken)
    plan = make_plan(population, BUDGET, make("CartPole-v1"), configure("cpu"))
    with pytest.raises(RuntimeError, match="the device is gone"):
        list(train(plan, store=ProgramStore()))


def test_what_does_not_fit_at_once_is_trained_in_waves_to_the_same_numbers(population, together):
    whole = make_plan(population, BUDGET, make("CartPole-v1"), configure("cpu"))
    assert len(whole.waves) == 1
    states = whole.memory_bytes - whole.work_bytes
    free = int((states / 2.5 + whole.work_bytes) / 0.9)
    hardware = dataclasses.replace(configure("cpu"), memory_bytes=free)
    plan = make_plan(population, BUDGET, make("CartPole-v1"), hardware)
    waves = [{index for _, tile in wave for index in tile} for wave in plan.waves]
    assert len(waves) >= 3
    assert sorted(index for wave in waves for index in wave) == list(range(len(population)))
    finished = set()
    for report in train(plan):
        (number,) = (k for k, wave in enumerate(waves) if wave & set(report.agents.tolist()))
        assert finished >= set().union(*waves[:number])
        if report.final is not None:
            finished |= set(report.agents.tolist())
    for again, first in zip(run(population, hardware=hardware), together, strict=True):
        assert_identical(again, first)


def test_a_tile_that_does_not_fit_is_refused_with_numbers():
    hardware = dataclasses.replace(configure("cpu"), memory_bytes=10 * 2**20)
    population = [Agent(Configuration.create({}, 1_000_000), seed) for seed in range(4)]
    budget = Budget(1_000_000, 100_000, 5, 5)
    with pytest.raises(InputError, match=r"a tile of 4 agents needs 0\.2 GiB .* 0\.0 GiB are free"):
        make_plan(population, budget, make("CartPole-v1"), hardware)


@pytest.mark.parametrize(("hidden_sizes", "width"), [([64, 64], 4), ([256, 256], 1), ([], 4)])
def test_a_large_networks_tile_holds_one_agent(hidden_sizes, width):
    population = [
        Agent(Configuration.create({"hidden_sizes": hidden_sizes}, 50), seed) for seed in range(5)
    ]
    plan = make_plan(population, BUDGET, make("CartPole-v1"), configure("cpu"))
    (cohort,) = plan.cohorts
    assert max(map(len, cohort.tiles)) == plan.widths[cohort.shape] == width


def _gpu(memory_bytes=10**9):
    """Hardware that is planned for as a GPU is, and is a core of this CPU."""
    cpu = configure("cpu")
    return dataclasses.replace(
        cpu, platform="gpu", devices=cpu.devices[:1], tile_width=4, memory_bytes=memory_bytes
    )


def test_on_a_gpu_agents_of_every_cadence_share_tiles_and_learn_the_same(population, together):
    plan = make_plan(population, BUDGET, make("CartPole-v1"), _gpu())
    assert len(plan.cohorts) == len(plan.shapes)
    assert len({agent.configuration.cadence for agent in population}) > len(plan.cohorts)
    for cohort in plan.cohorts:
        rhythms = [population[i].configuration.cadence for tile in cohort.tiles for i in tile]
        assert rhythms == sorted(rhythms, key=lambda c: (-c.gradient_steps / c.train_freq, *c[:1]))
    for mixed, apart in zip(run(population, hardware=_gpu()), together, strict=True):
        for a, b in zip(jax.tree.leaves(mixed), jax.tree.leaves(apart), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_on_a_gpu_tiles_are_as_wide_as_is_predicted_to_be_fastest_and_fits():
    def width(count, hardware, **values):
        agents = [Agent(Configuration.create(QUICK | values, STEPS), k) for k in range(count)]
        plan = make_plan(agents, BUDGET, make("CartPole-v1"), hardware)
        return next(iter(plan.widths.values()))

    assert width(3, _gpu()) == 4
    assert width(60, _gpu()) == 64
    assert width(1000, _gpu()) == 256
    assert width(1000, _gpu(2 * 2**20)) < 256
    assert width(60, configure("cpu")) == 4
