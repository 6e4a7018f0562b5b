"""Population based training and schedules: who goes on as whose copy, and that it can be replayed."""

import csv
import dataclasses
import json
import math
import signal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from processes import start, wait_for
from run_dirs import records, rows

from jaxrl.dqn.environment import make
from jaxrl.dqn.hyperparameters import Configuration
from jaxrl.errors import InputError
from jaxrl.policy import load_policy
from jaxrl.population.devices import configure
from jaxrl.population.layout import Copy, Layout, Verdict
from jaxrl.population.plan import Agent, Budget, make_plan
from jaxrl.population.program import ProgramStore
from jaxrl.population.snapshot import Control
from jaxrl.population.train import train
from jaxrl.search.generation import SEARCH, Generation
from jaxrl.search.pbt import Evolution
from jaxrl.search.schedule import CHANGEABLE, check_schedule, to_agent, to_json, to_values
from jaxrl.search.space import Space, load_space
from jaxrl.sweep import main as sweep
from jaxrl.tracking.journal import read

pytestmark = pytest.mark.usefixtures("compilation_cache")

ENV = make("CartPole-v1")
STORE = ProgramStore()
STEPS = 2000
SMALL = {"hidden_sizes": [8], "buffer_size": 5000, "learning_starts": 100, "train_freq": 7}
OTHER = {**SMALL, "hidden_sizes": [12], "gradient_steps": 2}


def plan_of(agents):
    budget = Budget(STEPS, eval_every=500, eval_episodes=2, final_episodes=3)
    return make_plan(agents, budget, ENV, configure("cpu"))


def agents_of(*values):
    """An agent for each, with seeds 0, 1, …"""
    return [to_agent(v, seed, STEPS) for seed, v in enumerate(values)]


def trained(agents, decided=None):
    """Evaluations by agent and step, and last parameters by agent."""
    control, evaluations, params = Control(), {}, {}
    for rung, verdict in (decided or {}).items():
        control.decide(rung, verdict)
    for report in train(plan_of(agents), control, rungs=decided or (), store=STORE):
        for place, agent in enumerate(report.agents.tolist()):
            if report.evaluation is not None:
                values = {n: column[place] for n, column in report.evaluation.items()}
                evaluations[agent, report.step] = values
            if report.final is not None:
                leaves = [np.asarray(x)[place] for x in _leaves(report.params["last"])]
                params[agent] = leaves
    return evaluations, params


def _leaves(tree):
    return (
        [x for child in tree.values() for x in _leaves(child)] if isinstance(tree, dict) else [tree]
    )


def same(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def configuration(values):
    return Configuration.create(values, STEPS)


def test_a_copy_with_the_seed_of_its_source_has_its_numbers_from_then_on_to_the_bit():
    """Agents 0 to 4 of one network, 5 of another; 1 becomes 5, and has its seed."""
    agents = [*agents_of(*[SMALL] * 5), Agent(configuration(OTHER), 1)]
    before, _ = trained(agents)
    verdict = Verdict(copies={1: Copy(5, configuration(OTHER))})
    after, params = trained(agents, {1000: verdict})
    for agent, step in before:
        source = 5 if agent == 1 and step > 1000 else agent
        for name, value in after[agent, step].items():
            np.testing.assert_array_equal(value, before[source, step][name])
    same(params[1], params[5])


def test_a_copy_has_its_own_seed_and_hyperparameters():
    agents = agents_of(SMALL, SMALL)
    changed = configuration({**SMALL, "learning_rate": 1e-3})
    _, params = trained(agents, {500: Verdict(copies={1: Copy(0, changed)})})
    assert any(np.any(a != b) for a, b in zip(params[0], params[1], strict=True))


def test_a_schedule_that_ends_learning_keeps_the_parameters_of_that_step():
    """So small a rate changes no parameter; what was learned until then is as without a schedule."""
    frozen = {**SMALL, "schedule": [[1500, {"learning_rate": 1e-30}]]}
    agents = agents_of(SMALL, frozen)
    generation = Generation(0, SEARCH, 0, tuple(agents), (0, 1))
    evaluations, params = trained(agents, generation.scheduled)
    alone, _ = trained([Agent(configuration(SMALL), 1)])
    for step in (500, 1000, 1500):
        assert evaluations[1, step]["loss"] == alone[0, step]["loss"]
    assert evaluations[1, 2000]["updates"] == evaluations[0, 2000]["updates"]
    short = Budget(1500, eval_every=500, eval_episodes=2, final_episodes=3)
    plan = make_plan([Agent(configuration(SMALL), 1)], short, ENV, configure("cpu"))
    (final,) = [r for r in train(plan, store=STORE) if r.final is not None]
    same(params[1], [np.asarray(x)[0] for x in _leaves(final.params["last"])])


@given(st.data())
def test_a_layout_after_copies_keeps_everybody_once_where_their_sources_are(data):
    agents = agents_of(*[SMALL] * 7, *[OTHER] * 6)
    plan = plan_of(agents)
    layout, alive = Layout.of(plan), set(range(13))
    cohort_of = {a: tile.cohort for tile in layout.tiles for a in tile.agents}
    for _ in range(3):
        stopped = data.draw(st.sets(st.sampled_from(sorted(alive)), max_size=3)) if alive else set()
        left = sorted(alive - stopped)
        copiers = data.draw(st.sets(st.sampled_from(left), max_size=4)) if left else set()
        sources = {c: data.draw(st.sampled_from(left)) for c in sorted(copiers)}
        copies = {c: Copy(s, layout.configuration(s)) for c, s in sources.items()}
        before = {tile.number: tile for tile in layout.tiles}
        layout = layout.after(Verdict(frozenset(stopped), copies))
        alive -= stopped
        cohort_of = {a: cohort_of[sources.get(a, a)] for a in alive}
        found = {a: tile.cohort for tile in layout.tiles for a in tile.agents}
        assert found == cohort_of
        assert sum(len(tile.agents) for tile in layout.tiles) == len(alive)
        for cohort in plan.cohorts:
            mine = [len(tile.agents) for tile in layout.tiles if tile.cohort == cohort]
            assert len(mine) == -(-sum(mine) // plan.widths[cohort.shape])
        for tile in layout.tiles:
            for agent, (number, lane) in zip(tile.agents, tile.sources, strict=bool(tile.sources)):
                assert before[number].agents[lane] == sources.get(agent, agent)
            assert tile.sources or tile.agents == before[tile.number].agents


SPACE = load_space("cartpole-wide")


def members(count, seed=0):
    points = np.random.default_rng(seed).random((count, len(SPACE.varying)))
    agents = [to_agent(SPACE.at(point), 0, STEPS) for point in points]
    return {i: dataclasses.asdict(agent.configuration) for i, agent in enumerate(agents)}


@given(
    st.lists(st.floats(0, 500) | st.just(math.nan), min_size=1, max_size=40), st.integers(0, 2**31)
)
def test_the_worst_fifth_goes_on_as_the_best_and_so_do_all_that_diverged(scores, seed):
    values = members(len(scores))
    by_agent = dict(enumerate(scores))
    copies = Evolution(SPACE, (500,), (seed,)).copies(500, by_agent, values)
    assert copies == Evolution(SPACE, (500,), (seed,)).copies(500, by_agent, values)
    sound = sorted((s for s in scores if not math.isnan(s)), reverse=True)
    share = min(len(scores) // 5, len(sound))
    if not share:
        assert not copies
        return
    diverged = {i for i, score in by_agent.items() if math.isnan(score)}
    assert diverged <= copies.keys()
    assert len(copies) == max(len(scores) // 5, len(diverged))
    for agent, (source, new) in copies.items():
        assert by_agent[source] >= sound[share - 1]
        assert (
            agent in diverged
            or by_agent[agent] <= sound[len(sound) - (len(copies) - len(diverged))]
        )
        fixed = {n: v for n, v in values[source].items() if n not in CHANGEABLE}
        assert {n: new[n] for n in fixed} == fixed
        SPACE.coordinates({**new, "seed": 0})  # each value is one of the space's
        low, high = 1e-5, 1e-2
        assert low <= new["learning_rate"] <= high


def test_numbers_are_changed_by_a_fifth_and_choices_to_a_neighbour_or_drawn_again():
    space = Space(
        {
            "learning_rate": {"low": 1e-5, "high": 1e-2, "log": True},
            "gamma": {"choices": [0.9, 0.95]},
        }
    )
    values = {0: {"learning_rate": 1e-3, "gamma": 0.9}, **{i: {} for i in range(1, 5)}}
    seen = []
    for seed in range(400):
        scores = {0: 5.0, 1: 4.0, 2: 3.0, 3: 2.0, 4: 1.0}
        (copy,) = Evolution(space, (500,), (seed,)).copies(500, scores, values).values()
        seen.append(copy[1]["learning_rate"])
    shares = [np.isclose(seen, factor * 1e-3).mean() for factor in (0.8, 1.2)]
    assert sum(shares) == pytest.approx(0.75, abs=0.07)
    assert min(shares) > 0.3


@pytest.mark.parametrize(
    ("entry", "before", "after"),
    [
        ({"low": 1, "high": 50}, 1, {1, 2}),
        ({"low": 1, "high": 50}, 30, {24, 36}),
        ({"low": 100, "high": 1_000, "step": 100}, 200, {100, 300}),
        ({"low": 100, "high": 1_000, "step": 100}, 1_000, {800, 1_000}),
    ],
    ids=str,
)
def test_whole_numbers_and_steps_change_by_one_at_least(entry, before, after):
    space = Space({"target_update_interval": entry})
    values = {i: {"target_update_interval": before} for i in range(5)}
    scores = {i: float(i) for i in range(5)}
    seen = []
    for seed in range(100):
        (copy,) = Evolution(space, (500,), (seed,)).copies(500, scores, values).values()
        seen.append(copy[1]["target_update_interval"])
    moved = {value for value in seen if seen.count(value) > 20}  # the others were drawn anew
    assert moved == after


def test_a_value_that_is_outside_its_interval_is_drawn_anew():
    interval = {"low": 0.1, "high": 10.0, "when": {"double_q": [True]}, "otherwise": math.inf}
    space = Space({"double_q": {"choices": [True, False]}, "huber_delta": interval})
    values = {i: {"double_q": False, "huber_delta": math.inf} for i in range(5)}
    scores, seen = {i: float(i) for i in range(5)}, set()
    for seed in range(50):
        ((_, new),) = Evolution(space, (500,), (seed,)).copies(500, scores, values).values()
        seen.add(new["double_q"])
        right = (
            0.1 <= new["huber_delta"] <= 10 if new["double_q"] else new["huber_delta"] == math.inf
        )
        assert right
    assert seen == {True, False}


def test_what_varies_under_a_condition_follows_it():
    interval = {"choices": [100, 500], "when": {"double_q": [True]}}
    space = Space({"double_q": {"choices": [True, False]}, "target_update_interval": interval})
    plain = {"double_q": False, "target_update_interval": 10_000}
    values = {
        0: plain,
        **{i: {"double_q": True, "target_update_interval": 100} for i in range(1, 5)},
    }
    seen = set()
    for seed in range(100):
        for best in (0, 1):
            scores = {i: float(i == best) for i in range(5)}
            ((_, new),) = Evolution(space, (500,), (seed,)).copies(500, scores, values).values()
            seen.add((new["double_q"], new["target_update_interval"]))
    assert seen == {(True, 100), (True, 500), (False, 10_000)}


def test_a_space_without_anything_to_change_is_refused():
    with pytest.raises(InputError, match="varies none that can"):
        Evolution(Space({"batch_size": {"choices": [16, 32]}}), (500,), (0,))


@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        ("fast", "schedule is 'fast'; it must be a list such as"),
        ([[500]], "schedule has [500]; it must be"),
        ([[1.5, {}]], "schedule has [1.5, {}]"),
        ([[500, {}], [500, {}]], "schedule has step 500, which must be above 500"),
        ([[0, {}]], "schedule has step 0, which must be above 0"),
        ([[500, {"batch_size": 32}]], "'batch_size'"),
        ([[500, {"gamma": 2}]], "gamma is 2; it must be"),
    ],
)
def test_a_schedule_that_cannot_be_used_is_refused(schedule, said):
    with pytest.raises(InputError) as error:
        check_schedule(schedule)
    assert said in str(error.value)


def test_a_schedule_survives_being_written():
    changes = [[500, {"huber_delta": "inf"}], [1000, {"learning_rate": 0.5, "gamma": 0.5}]]
    agent = to_agent({**SMALL, "schedule": changes}, 3, STEPS)
    assert to_json(agent) == changes
    assert to_agent(json.loads(json.dumps(to_values(agent))), 3, STEPS) == agent
    generation = Generation(1, SEARCH, 4, (agent,), (7,))
    record = json.loads(json.dumps(generation.to_record(), allow_nan=False))
    assert Generation.of_record(record, STEPS) == generation


RUN = [
    *("--steps", "4000", "--eval-every", "400", "--eval-episodes", "2", "--final-episodes", "2"),
    *("--set", "hidden_sizes=[8]", "--set", "learning_starts=100", "--device", "cpu"),
    *("--configs", "10"),
]
PBT = [*RUN, "--pbt", "--pbt-every", "800", "--finalists", "1", "--final-seeds", "2"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, compilation_cache):
    """Ten agents, of which two go on as copies at each of four rungs."""
    folder = tmp_path_factory.mktemp("pbt")
    tracked = ["--tracking-uri", f"jsonl:{folder / 'lines.jsonl'}"]
    assert sweep([*PBT, "--run-dir", str(folder / "whole"), *tracked]) == 0
    return folder / "whole"


def test_the_lineage_is_in_the_journal_and_the_schedules_in_the_results(whole):
    lineage = records(whole, "copies")
    assert [record["step"] for record in lineage] == [800, 1600, 2400, 3200]
    schedules = {agent: [] for agent in range(10)}
    for record in lineage:
        assert len(record["agents"]) == 2
        assert not set(record["agents"]) & set(record["sources"])
        before = {agent: list(s) for agent, s in schedules.items()}
        for agent, source in zip(record["agents"], record["sources"], strict=True):
            schedules[agent] = [*before[source], record["step"]]
    results = rows(whole / "results.csv")
    for row in results:
        steps = [step for step, _ in json.loads(row["schedule"])]
        assert steps == schedules[int(row["config"])]
        assert row["status"] == "finished"
    assert len({row["learning_rate"] for row in results}) < 10  # whose line ended is no more


def test_the_finalist_follows_the_schedule_of_its_search(whole):
    results, finalists = rows(whole / "results.csv"), rows(whole / "finalists.csv")
    (chosen,) = {row["config"] for row in finalists}
    (searched,) = [row for row in results if row["config"] == chosen]
    for row in finalists:
        assert row["schedule"] == searched["schedule"] or not json.loads(searched["schedule"])
    saved = load_policy(whole / "best" / "1")
    assert saved.configuration.get("schedule", []) == json.loads(searched["schedule"])


def test_a_schedule_from_the_results_can_be_trained_again(whole, tmp_path):
    """As a table, with the seeds of the finalists: the finalists' numbers, to the bit."""
    (first, *_) = finalists = rows(whole / "finalists.csv")
    table = tmp_path / "table.csv"
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(first))
        writer.writeheader()
        writer.writerows(finalists)
    again = tmp_path / "again"
    command = [*RUN[:-2], "--config-table", str(table), "--run-dir", str(again), "--no-track"]
    assert sweep(command) == 0
    for row, before in zip(rows(again / "results.csv"), finalists, strict=True):
        for name in ("train_return_mean", "updates", "schedule", "seed"):
            assert row.get(name, "[]") == before.get(name, "[]")
    assert load_policy(again / "best" / "1").scores["config"] in (0, 1)


def test_a_tracker_hears_who_became_whose_copy(whole):
    points = {}
    for line in (whole.parent / "lines.jsonl").read_text().splitlines():
        update = json.loads(line)
        for metric in update.get("metrics", ()):
            if metric["key"].startswith("pbt/"):
                points[update["config"], metric["step"], metric["key"]] = metric["value"]
    for record in records(whole, "copies"):
        pairs = zip(record["agents"], record["sources"], record["configurations"], strict=True)
        for agent, source, values in pairs:
            assert points[agent, record["step"], "pbt/source"] == source
            rate = points[agent, record["step"], "pbt/learning_rate"]
            assert rate == values["learning_rate"]


@pytest.mark.parametrize("moment", [0, 2])
def test_one_that_is_killed_at_a_rung_goes_on_to_the_same_results(whole, moment, tmp_path):
    run_dir = tmp_path / "killed"
    (run_dir / "journal").mkdir(parents=True)
    (run_dir / "sweep.json").write_bytes((whole / "sweep.json").read_bytes())
    lines = (whole / "journal" / "000000.jsonl").read_bytes().splitlines(keepends=True)
    rungs = [i for i, line in enumerate(lines) if json.loads(line)["kind"] == "copies"]
    (run_dir / "journal" / "000000.jsonl").write_bytes(b"".join(lines[: rungs[moment] + 1]))
    assert sweep(["--resume", str(run_dir), "--no-track"]) == 0
    assert_same(run_dir, whole)


@pytest.mark.slow
def test_one_that_is_really_killed_goes_on_from_its_checkpoints(whole, tmp_path):
    run_dir, command = tmp_path / "killed", [*PBT, "--run-dir", str(tmp_path / "killed")]
    for count in (14, 30):
        process = start(*command, "--no-track", "--checkpoint-every", "0", cwd=tmp_path)
        wait_for(lambda: len([*read(run_dir / "journal")]) >= count, process)  # noqa: B023
        process.send_signal(signal.SIGKILL)
        process.wait(60)
        command = ["--resume", str(run_dir)]
    assert sweep([*command, "--no-track"]) == 0
    assert_same(run_dir, whole)


def assert_same(run_dir, whole):
    for name in ("results.csv", "finalists.csv", "best/1/params.safetensors"):
        assert (run_dir / name).read_bytes() == (whole / name).read_bytes()
    assert [r["agents"] for r in records(run_dir, "copies")] == [
        r["agents"] for r in records(whole, "copies")
    ]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--pbt-every", "800"], "--pbt-every is for --pbt"),
        (["--pbt", "--pbt-every", "700"], "pbt_every is 700; it must be a multiple of the 400"),
        (["--pbt", "--pbt-every", "4000"], "pbt_every is 4000"),
        (["--pbt", "--seeds", "2"], "--seeds 2 contradicts"),
        (["--pbt", "--pruner", "median"], "--pruner median contradicts"),
        (["--pbt", "--sampler", "tpe"], "--sampler tpe contradicts"),
        (["--pbt", "--set", "gamma=2"], "gamma is"),
        (["--pbt", "--generations", "3"], "there would be 3 in a generation"),
    ],
)
def test_what_cannot_be_combined_is_refused(options, said, tmp_path, capsys):
    run_dir = tmp_path / "none"
    assert sweep([*RUN, *options, "--run-dir", str(run_dir), "--no-track"]) == 2
    assert said in capsys.readouterr().err
    assert not run_dir.exists()


def test_a_schedule_off_the_evaluations_is_refused(tmp_path, capsys):
    table = tmp_path / "table.json"
    table.write_text(json.dumps([{"schedule": [[300, {"gamma": 0.5}]]}]))
    command = [*RUN[:-2], "--config-table", str(table), "--no-track"]
    assert sweep([*command, "--run-dir", str(tmp_path / "none")]) == 2
    assert "at step 300, which is no evaluation step" in capsys.readouterr().err


def test_before_its_first_change_a_scheduled_agent_is_as_one_without(tmp_path):
    table = tmp_path / "table.json"
    table.write_text(json.dumps([{}, {"schedule": [[2000, {"learning_rate": 0.1}]]}]))
    run_dir = tmp_path / "scheduled"
    command = [*RUN[:-2], "--config-table", str(table), "--no-track"]
    assert sweep([*command, "--run-dir", str(run_dir)]) == 0
    losses = {}
    for record, _ in read(run_dir / "journal"):
        if record["kind"] == "evaluation":
            for agent, loss in zip(record["agents"], record["metrics"]["loss"], strict=True):
                losses[agent, record["step"]] = loss
    for step in range(400, 4001, 400):
        assert (losses[0, step] == losses[1, step]) == (step <= 2000)
