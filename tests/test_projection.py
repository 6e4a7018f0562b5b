"""From agents to a tracker's runs: means over seeds, what is left out, and when a run ends."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl.tracking.projection import Description, Metric, Projection, RunUpdate, merge

NAMES = {
    "train_return_mean": "train/episode_return",
    "loss": "train/loss",
    "epsilon": "train/epsilon",
    "q_mean": "train/q_mean",
    "grad_norm": "train/grad_norm",
    "eval_return_mean": "eval/return_mean",
    "eval_return_std": "eval/return_std",
}


def projection(configs, configurations=None):
    """Of agents with these configuration numbers; a configuration's k-th seed is k."""
    seeds = [configs[:place].count(config) for place, config in enumerate(configs)]
    configurations = configurations or [{"gamma": 0.9}] * (max(configs) + 1)
    return Projection(Description("name", "id", "jaxrl", {}, configurations, configs, seeds))


def evaluation(step, returns, diverged=(), time=None, **columns):
    """A record in which agent i has ``eval_return_mean`` ``returns[i]``; the rest is 0 or given."""
    agents = list(returns)
    metrics = {name: [0.0] * len(agents) for name in NAMES} | {"updates": [0] * len(agents)}
    metrics |= {"eval_return_mean": list(returns.values()), **columns}
    metrics["diverged"] = [agent in diverged for agent in agents]
    time = step if time is None else time
    record = {"kind": "evaluation", "time": time, "step": step}
    return {**record, "agents": agents, "metrics": metrics}


def final(step, last, diverged=(), time=None):
    """A record of the final evaluation in which agent i's last policy has mean ``last[i]``."""
    metrics = {name: list(last.values()) for name in ("last_mean", "best_mean")}
    metrics |= {name: [2.0] * len(last) for name in ("last_std", "best_std")}
    metrics["diverged"] = [agent in diverged for agent in last]
    record = {"kind": "final", "time": step if time is None else time, "step": step}
    return {**record, "agents": list(last), "metrics": metrics}


def end(status, time=99):
    return {"kind": "end", "time": time, "status": status}


def feed(subject, *records):
    return [update for record in records for update in subject.feed(record)]


def values(updates, config):
    """The last value of each metric of a configuration."""
    return {m.key: m.value for u in updates if u.config == config for m in u.metrics}


def of(updates, config):
    return [update for update in updates if update.config == config]


def test_a_run_has_the_means_over_its_seeds_under_the_names_of_the_issue():
    columns = {name: [10.0 * k, 10.0 * k + 4] for k, name in enumerate(NAMES)}
    returns = dict(enumerate(columns.pop("eval_return_mean")))
    (update,) = of(feed(projection([0, 0]), evaluation(7, returns, time=123, **columns)), 0)
    wanted = [Metric(NAMES[name], 10.0 * k + 2, 123, 7) for k, name in enumerate(NAMES)]
    assert sorted(update.metrics, key=lambda m: m.key) == sorted(wanted, key=lambda m: m.key)
    assert update.time == 123


def test_a_run_waits_for_all_its_seeds_and_not_for_others():
    subject = projection([0, 1, 0, 0])
    assert feed(subject, evaluation(5, {0: 10})) == []
    assert feed(subject, evaluation(5, {2: 20})) == []
    assert len(of(feed(subject, evaluation(5, {1: 7})), 1)) == 1
    updates = feed(subject, evaluation(5, {3: 60}, time=8))
    assert values(updates, 0)["eval/return_mean"] == 30
    assert {m.time for m in of(updates, 0)[0].metrics} == {8}


def test_steps_are_kept_apart_while_seeds_arrive_in_any_order():
    subject = projection([0, 0])
    assert feed(subject, evaluation(5, {0: 10}), evaluation(10, {0: 100})) == []
    (first,) = of(feed(subject, evaluation(10, {1: 200})), 0)
    (second,) = of(feed(subject, evaluation(5, {1: 20})), 0)
    assert {m.step for m in first.metrics} == {10}
    assert values([first], 0)["eval/return_mean"] == 150
    assert {m.step for m in second.metrics} == {5}
    assert values([second], 0)["eval/return_mean"] == 15


def test_a_diverged_seed_counts_in_no_mean_and_is_told_once():
    subject = projection([0, 0, 0])
    first = of(feed(subject, evaluation(5, {0: 10, 1: 20, 2: 60})), 0)
    assert first[0].tags == {}
    second = of(feed(subject, evaluation(10, {0: 10, 1: 20, 2: 900}, diverged={2})), 0)
    assert values(second, 0)["eval/return_mean"] == 15
    assert second[0].tags == {"diverged": "true"}
    third = of(feed(subject, evaluation(15, {0: 30, 1: 900, 2: 900}, diverged={1, 2})), 0)
    assert values(third, 0)["eval/return_mean"] == 30
    assert third[0].tags == {}


def test_a_run_of_which_every_seed_diverged_has_a_tag_and_no_numbers():
    updates = feed(projection([0, 0]), evaluation(5, {0: 1, 1: 2}, diverged={0, 1}))
    (update,) = of(updates, 0)
    assert (update.metrics, update.tags) == ([], {"diverged": "true"})
    assert of(updates, None) == []


def test_a_diverged_seed_counts_in_no_final_mean_either():
    subject = projection([0, 0, 1])
    feed(subject, evaluation(10, {0: 10, 1: 20, 2: 5}, diverged={1, 2}))
    updates = feed(subject, final(10, {0: 100, 1: 9, 2: 9}, diverged={1, 2}))
    assert values(updates, 0)["mean_reward"] == 100
    assert values(updates, 0)["std_reward"] == 2
    assert "mean_reward" not in values(updates, 1)


def test_a_missing_number_is_left_out_of_its_mean_alone():
    subject = projection([0, 0])
    record = evaluation(5, {0: 10, 1: 20}, loss=[None, 3.0], q_mean=[None, None])
    found = values(feed(subject, record), 0)
    assert found["train/loss"] == 3
    assert "train/q_mean" not in found
    assert found["eval/return_mean"] == 15


def test_parameters_come_with_the_first_update_of_a_run_and_only_then():
    configurations = [
        {"gamma": 0.9, "hidden_sizes": (256, 256), "huber_delta": math.inf, "double_q": True},
        {"gamma": 0.5},
    ]
    subject = projection([0, 0, 1], configurations)
    updates = feed(
        subject,
        evaluation(5, {0: 1, 1: 1}),
        evaluation(10, {0: 1, 1: 1}),
        evaluation(5, {2: 1}),
        final(10, {0: 1, 1: 1}),
    )
    first, *later = of(updates, 0)
    wanted = {"gamma": "0.9", "hidden_sizes": "[256, 256]", "huber_delta": "inf"}
    assert first.params == {**wanted, "double_q": "true", "seeds": "[0, 1]"}
    assert [update.params for update in later] == [{}, {}]
    assert of(updates, 1)[0].params == {"gamma": "0.5", "seeds": "[0]"}


def test_the_final_evaluation_has_the_names_of_the_course_and_finishes_the_run():
    subject = projection([0, 0])
    (update,) = feed(subject, final(50, {0: 100, 1: 300}, time=77))
    wanted = {"mean_reward": 200, "std_reward": 2, "best_mean_reward": 200, "best_std_reward": 2}
    assert values([update], 0) == wanted
    assert {(m.time, m.step) for m in update.metrics} == {(77, 50)}
    assert (update.status, update.time) == ("FINISHED", 77)


def test_population_curves_are_best_median_and_interquartile_mean_of_all_agents():
    subject = projection([0, 0, 1, 2, 2])
    assert of(feed(subject, evaluation(5, {4: 100, 0: 20, 2: 0})), None) == []
    (update,) = of(feed(subject, evaluation(5, {1: 60, 3: 10}, time=9)), None)
    wanted = {
        "population/eval_return_best": 100,
        "population/eval_return_median": 20,
        "population/eval_return_iqm": 30,  # of 10, 20, 60
    }
    assert {m.key: m.value for m in update.metrics} == wanted
    assert {(m.time, m.step) for m in update.metrics} == {(9, 5)}


def test_population_curves_leave_out_diverged_agents_but_do_not_wait_for_them():
    subject = projection([0, 1, 2, 3])
    record = evaluation(5, {0: 10, 1: 900, 2: None, 3: 20}, diverged={1})
    wanted = {
        "population/eval_return_best": 20,
        "population/eval_return_median": 15,
        "population/eval_return_iqm": 15,
    }
    assert values(feed(subject, record), None) == wanted


def test_the_end_of_a_finished_sweep_finishes_the_parent():
    subject = projection([0])
    feed(subject, evaluation(5, {0: 1}), final(5, {0: 1}))
    assert feed(subject, end("finished", time=8)) == [RunUpdate(None, 8, status="FINISHED")]


@pytest.mark.parametrize("status", ["killed", "failed"])
def test_the_end_of_an_unfinished_sweep_closes_what_is_open_and_nothing_else(status):
    subject = projection([0, 1, 2])
    feed(subject, evaluation(5, {0: 1, 1: 1}), final(5, {1: 1}))
    assert feed(subject, end(status, time=8)) == [
        RunUpdate(0, 8, status=status.upper()),
        RunUpdate(None, 8, status=status.upper()),
    ]


def test_merging_keeps_the_order_of_points_and_runs_and_the_last_status():
    points = [Metric("a", float(k), k, k) for k in range(4)]
    merged = merge(
        [
            RunUpdate(1, 10, points[:1], {"p": "1"}),
            RunUpdate(0, 11, points[1:2]),
            RunUpdate(1, 12, points[2:3], {"q": "2"}, {"diverged": "true"}),
            RunUpdate(None, 13),
            RunUpdate(1, 14, points[3:], status="KILLED"),
            RunUpdate(1, 15, status="FINISHED"),
        ]
    )
    assert [update.config for update in merged] == [1, 0, None]
    assert merged[0].metrics == [points[0], points[2], points[3]]
    assert (merged[0].params, merged[0].tags) == ({"p": "1", "q": "2"}, {"diverged": "true"})
    assert (merged[0].status, merged[0].time) == ("FINISHED", 15)
    assert merged[1:] == [RunUpdate(0, 11, points[1:2]), RunUpdate(None, 13)]


NUMBER = st.one_of(st.none(), st.floats(-3e38, 3e38))


@st.composite
def sweeps(draw):
    """Configuration numbers of agents, and records in which each reports every step once."""
    configs = draw(st.lists(st.integers(0, 2), min_size=1, max_size=6))
    configs = [sorted(set(configs)).index(config) for config in configs]
    records = []
    for step in range(1, draw(st.integers(1, 3)) + 1):
        agents = draw(st.permutations(range(len(configs))))
        cut = draw(st.integers(0, len(agents)))
        for part in filter(None, (agents[:cut], agents[cut:])):
            columns = {
                name: draw(st.lists(NUMBER, min_size=len(part), max_size=len(part)))
                for name in NAMES
            }
            diverged = draw(st.sets(st.sampled_from(part)))
            returns = dict(zip(part, columns.pop("eval_return_mean"), strict=True))
            records.append(evaluation(step, returns, diverged, **columns))
    last = draw(st.lists(NUMBER, min_size=len(configs), max_size=len(configs)))
    return configs, [*records, final(9, dict(enumerate(last)))]


@settings(max_examples=200)
@given(sweeps())
def test_only_finite_means_of_sound_seeds_come_out_each_once(sweep):
    configs, records = sweep
    updates = feed(projection(configs), *records, end("finished"))
    points = [(u.config, m.key, m.step, m.value) for u in updates for m in u.metrics]
    assert all(math.isfinite(value) for *_, value in points)
    assert len({point[:3] for point in points}) == len(points)
    expected = {}
    for record in records[:-1]:
        for name, key in NAMES.items():
            columns = (record["agents"], record["metrics"][name], record["metrics"]["diverged"])
            for agent, value, diverged in zip(*columns, strict=True):
                if value is not None and not diverged:
                    place = (configs[agent], key, record["step"])
                    expected.setdefault(place, []).append(value)
    found = {point[:3]: point[3] for point in points if point[1] in NAMES.values()}
    assert found.keys() == expected.keys()
    for place, sound in expected.items():
        scale = max(map(abs, sound))
        assert found[place] == pytest.approx(math.fsum(sound) / len(sound), abs=1e-12 * scale)
    assert [u.config for u in updates if u.params] == list(
        dict.fromkeys(u.config for u in updates if u.config is not None)
    )
    ended = [u.config for u in updates if u.status == "FINISHED"]
    assert sorted(ended[:-1]) == sorted(set(configs))
    assert ended[-1] is None
