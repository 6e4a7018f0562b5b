"""Searches of several generations, with early stopping and finalists, from the command line."""

import json
import math
import signal

import numpy as np
import optuna
import pytest
from processes import start, wait_for
from run_dirs import records, rows

from jaxrl.policy import load_policy
from jaxrl.report.__main__ import main as report
from jaxrl.report.data import SoFar
from jaxrl.sweep import main as sweep
from jaxrl.tracking.journal import read

pytestmark = pytest.mark.usefixtures("compilation_cache")

STEPS = 1600
SMALL = [
    *("--steps", str(STEPS), "--eval-every", "100", "--eval-episodes", "2", "--device", "cpu"),
    *("--final-episodes", "2", "--set", "hidden_sizes=[8]", "--set", "learning_starts=100"),
    *("--set", "batch_size=16", "--set", "gradient_steps=8"),
]
SEARCH = [
    *("--configs", "14", "--generations", "2", "--pruner", "halving", "--seeds", "2"),
    *("--finalists", "2", "--final-seeds", "3"),
]


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    return tmp_path_factory.mktemp("tracked") / "lines.jsonl"


@pytest.fixture(scope="module")
def whole(tmp_path_factory, lines, compilation_cache):
    """A search of two generations of seven configurations with two seeds, and two finalists."""
    run_dir = tmp_path_factory.mktemp("search") / "whole"
    tracked = ["--tracking-uri", f"jsonl:{lines}"]
    assert sweep([*SMALL, *SEARCH, "--run-dir", str(run_dir), *tracked]) == 0
    return run_dir


def test_every_configuration_has_its_rows_and_says_how_it_ended(whole):
    results = rows(whole / "results.csv")
    assert [(int(r["config"]), int(r["seed"])) for r in results] == [
        (config, seed) for config in range(14) for seed in (0, 1)
    ]
    for row in results:
        assert row["status"] in ("finished", "pruned")
        steps = {"finished": {STEPS}, "pruned": {300, 600}}[row["status"]]
        assert int(row["env_steps"]) in steps
        assert (row["eval_return_mean"] == "nan") == (row["status"] == "pruned")


def test_at_each_rung_the_best_third_of_a_generation_goes_on_with_all_its_seeds(whole):
    """Rungs at a ninth and a third of the 1,500 steps after the warm-up, of the evaluations every
    100: 300 and 600."""
    results = rows(whole / "results.csv")
    for members in (range(7), range(7, 14)):
        ends = {c: {r["env_steps"] for r in results if int(r["config"]) == c} for c in members}
        assert all(len(steps) == 1 for steps in ends.values())
        counts = [list(ends.values()).count({steps}) for steps in ("300", "600", str(STEPS))]
        assert counts == [4, 2, 1]
    assert len(records(whole, "rung")) == 4


def test_finalists_are_the_best_again_on_seeds_that_the_search_has_not_seen(whole):
    results, finalists = rows(whole / "results.csv"), rows(whole / "finalists.csv")
    score = {
        config: np.mean([float(r["eval_return_mean"]) for r in results if r["config"] == config])
        for config in {r["config"] for r in results}
    }
    best = sorted((c for c in score if not math.isnan(score[c])), key=lambda c: -score[c])
    assert {r["config"] for r in finalists} == set(best[:2])
    assert {int(r["seed"]) for r in finalists} == {2**30, 2**30 + 1, 2**30 + 2}
    assert all(r["eval_episodes"] == "1000" and r["status"] == "finished" for r in finalists)
    chosen = {r["config"]: r["learning_rate"] for r in results}
    assert all(r["learning_rate"] == chosen[r["config"]] for r in finalists)


def test_how_finalists_compare_is_written_and_tracked(whole, lines):
    rows_ = json.loads((whole / "finalists.json").read_text())
    finalists = rows(whole / "finalists.csv")
    for row in rows_:
        mine = [
            float(r["eval_return_mean"]) for r in finalists if int(r["config"]) == row["config"]
        ]
        assert row["fresh_mean"] == pytest.approx(np.mean(mine))
        assert row["flattery"] == pytest.approx(row["search_score"] - np.mean(mine))
    tracked = [json.loads(line) for line in lines.read_text().splitlines()]
    winner = [u for u in tracked if u["config"] is None and "winner" in u.get("tags", {})]
    assert winner[-1]["tags"]["winner"] == str(rows_[0]["config"])
    values = {m["key"]: m["value"] for u in winner for m in u["metrics"]}
    assert values["fresh_iqm"] == rows_[0]["fresh_iqm"]
    assert "finalists.csv" in {update.get("artifact") for update in tracked}


def test_the_best_policies_are_the_finalists_one_a_configuration_the_winner_first(whole):
    finalists = rows(whole / "finalists.csv")
    fresh = {
        config: [float(r["eval_return_mean"]) for r in finalists if r["config"] == config]
        for config in {r["config"] for r in finalists}
    }
    winner = max(fresh, key=lambda config: np.mean(fresh[config]))
    assert sorted(path.name for path in (whole / "best").iterdir()) == ["1", "2"]
    first = load_policy(whole / "best" / "1")
    assert first.scores["config"] == int(winner)
    assert first.scores["eval_return_mean"] == max(fresh[winner])
    assert first.seed >= 2**30
    assert not (whole / "checkpoints").exists()


def test_a_tracker_hears_of_rungs_generations_and_finalists(whole, lines):
    tags, metrics, params = {}, {}, {}
    for line in lines.read_text().splitlines():
        update = json.loads(line)
        run = update["config"]
        if "artifact" in update:
            continue
        tags.setdefault(run, {}).update(update["tags"])
        params.setdefault(run, {}).update(update["params"])
        for metric in update["metrics"]:
            metrics.setdefault(run, {}).setdefault(metric["key"], []).append(metric["step"])
    results, finalists = rows(whole / "results.csv"), rows(whole / "finalists.csv")
    for row in results:
        mine = tags[int(row["config"])]
        pruned_at = row["env_steps"] if row["status"] == "pruned" else None
        assert mine.get("pruned_at") == pruned_at
        assert mine.get("generation", "0") == str(int(row["config"]) // 7)
        assert params[int(row["config"])]["learning_rate"] == row["learning_rate"]
    chosen = {int(r["config"]) for r in finalists}
    assert {c for c, mine in tags.items() if mine.get("finalist") == "true"} == chosen
    assert {c for c, mine in metrics.items() if "fresh_mean_reward" in mine} == chosen
    curve = metrics[None]["population/eval_return_best"]
    assert curve == [*range(100, 2 * STEPS + 1, 100)]  # the second generation goes on


def test_the_curves_for_pictures_know_all_of_the_search(whole):
    curves = SoFar(whole)
    assert curves.fraction == 1
    _, returns = curves.table()
    assert returns.shape == (STEPS // 100, 28)
    alive = np.isfinite(returns).sum(axis=1)
    assert list(alive[[0, 2, 3, 5, 6, 15]]) == [28, 28, 12, 12, 4, 4]
    assert curves.name(27) == "config 13, seed 1"


@pytest.mark.parametrize("moment", range(3))
def test_a_search_that_is_killed_anywhere_goes_on_to_the_same_results(whole, moment, tmp_path):
    """Cuts the journal as a kill does, at each kind of record; no checkpoint is left there."""
    run_dir, lines, kinds = copied(whole, tmp_path / "killed")
    (run_dir / "best" / "5").mkdir(parents=True)  # of when it was interrupted
    rungs = [place for place, kind in enumerate(kinds) if kind == "rung"]
    generations = [place for place, kind in enumerate(kinds) if kind == "generation"]
    cut = [rungs[0] + 1, generations[0], generations[1] + 2][moment]
    (run_dir / "journal" / "000000.jsonl").write_bytes(b"".join(lines[:cut]))
    assert_goes_on(run_dir, whole)


@pytest.mark.parametrize(
    ("kind", "number", "damage", "reported"),
    [
        ("final", 0, (b'"final"', b'"fin\xffal"'), 0),  # a report passes over what is no record
        ("rung", 0, (b",", b";"), 0),
        ("evaluation", -1, (b"eval_return_mean", b"eval_return_mexn"), 2),
        ("generation", 0, (b'"generation"', b'"generosity"'), 2),
        ("evaluation", 3, (b'"agents":[', b'"agents":[99,'), 2),
    ],
)
def test_what_a_damaged_record_said_is_trained_again_to_the_same_results(
    kind, number, damage, reported, whole, tmp_path, capsys
):
    """The rest of the journal, written before the kill, was of no use: it built on what is lost."""
    run_dir, lines, kinds = copied(whole, tmp_path / "damaged")
    lines, kinds = lines[:-2], kinds[:-2]
    place = [place for place, of in enumerate(kinds) if of == kind][number]
    lines[place] = lines[place].replace(*damage, 1)
    (run_dir / "journal" / "000000.jsonl").write_bytes(b"".join(lines))
    assert report([str(run_dir)]) == reported
    assert_goes_on(run_dir, whole)
    said = f"is damaged (segment 0, byte {len(b''.join(lines[:place])):,})"
    assert said in capsys.readouterr().out


def test_a_finished_search_whose_journal_is_damaged_is_left_alone(whole, tmp_path, capsys):
    run_dir, lines, _ = copied(whole, tmp_path / "finished")
    content = b"".join([*lines[:5], b"damaged\n", *lines[6:]])
    (run_dir / "journal" / "000000.jsonl").write_bytes(content)
    assert sweep(["--resume", str(run_dir), "--no-track"]) == 2
    assert "and the sweep has finished" in capsys.readouterr().err
    assert [path.read_bytes() for path in (run_dir / "journal").iterdir()] == [content]


def copied(whole, run_dir):
    """A run directory of the same search without a checkpoint, and the journal's lines, and kinds."""
    (run_dir / "journal").mkdir(parents=True)
    (run_dir / "sweep.json").write_bytes((whole / "sweep.json").read_bytes())
    lines = (whole / "journal" / "000000.jsonl").read_bytes().splitlines(keepends=True)
    return run_dir, lines, [json.loads(line)["kind"] for line in lines]


def assert_goes_on(run_dir, whole):
    assert sweep(["--resume", str(run_dir), "--no-track"]) == 0
    for name in ("results.csv", "finalists.csv"):
        assert (run_dir / name).read_bytes() == (whole / name).read_bytes()
    assert sorted(path.name for path in (run_dir / "best").iterdir()) == ["1", "2"]
    assert_each_record_once(run_dir)


def assert_each_record_once(run_dir):
    seen = [
        (record["kind"], record["step"], agent)
        for record, _ in read(run_dir / "journal")
        for agent in record.get("agents", ())
    ]
    assert len(seen) == len(set(seen))


LONG = [
    *("--configs", "10", "--generations", "2", "--pruner", "hyperband", "--steps", "12000"),
    *("--eval-every", "1000", "--eval-episodes", "2", "--final-episodes", "3", "--device", "cpu"),
    *("--set", "hidden_sizes=[32]", "--finalists", "1", "--final-seeds", "2", "--no-track"),
]


@pytest.mark.slow
def test_a_search_that_is_really_killed_goes_on_from_its_checkpoints(tmp_path):
    whole, run_dir = tmp_path / "whole", tmp_path / "killed"
    assert sweep([*LONG, "--run-dir", str(whole)]) == 0
    ends = len([*read(whole / "journal")])
    command = [*LONG, "--run-dir", str(run_dir)]
    for share in (0.2, 0.45, 0.7):
        process = start(*command, "--checkpoint-every", "0.1", cwd=tmp_path)
        wait_for(lambda: len([*read(run_dir / "journal")]) >= share * ends, process)  # noqa: B023
        process.send_signal(signal.SIGINT if share == 0.45 else signal.SIGKILL)
        process.wait(60)
        command = ["--resume", str(run_dir), "--no-track"]
    assert sweep(command) == 0
    for name in ("results.csv", "finalists.csv", "best/1/params.safetensors"):
        assert (run_dir / name).read_bytes() == (whole / name).read_bytes()
    assert_each_record_once(run_dir)


def test_generations_and_no_pruner_give_the_same_agents_as_one_generation(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    same = [*SMALL, "--configs", "5", "--no-track"]
    assert sweep([*same, "--run-dir", str(one)]) == 0
    assert sweep([*same, "--run-dir", str(two), "--generations", "2"]) == 0
    assert (one / "results.csv").read_bytes() == (two / "results.csv").read_bytes()


def test_a_grid_has_each_combination_once_over_its_generations(tmp_path):
    space, run_dir = tmp_path / "grid.yaml", tmp_path / "grid"
    space.write_text(
        "parameters: {double_q: {choices: [true, false]}, tau: {low: 0.5, high: 1.0, step: 0.25}}"
    )
    grid = ["--space", str(space), "--sampler", "grid", "--configs", "6", "--generations", "2"]
    assert sweep([*SMALL, *grid, "--run-dir", str(run_dir), "--no-track"]) == 0
    found = [(row["double_q"], float(row["tau"])) for row in rows(run_dir / "results.csv")]
    assert sorted(found) == [(flag, tau) for flag in ("false", "true") for tau in (0.5, 0.75, 1.0)]


def test_a_study_in_the_users_own_optuna_storage_has_it_all_once(tmp_path):
    run_dir, storage = tmp_path / "copied", f"sqlite:///{tmp_path / 'study.db'}"
    search = ["--configs", "9", "--generations", "2", "--pruner", "halving", "--sampler", "tpe"]
    command = [*SMALL, *search, "--no-track", "--study", storage]
    assert sweep([*command, "--run-dir", str(run_dir)]) == 0
    for _ in range(2):
        study = optuna.load_study(study_name="copied", storage=storage)
        results = rows(run_dir / "results.csv")
        assert len(study.trials) == 9
        for trial, row in zip(study.trials, results, strict=True):
            assert trial.state.name == {"finished": "COMPLETE", "pruned": "PRUNED"}[row["status"]]
            assert trial.params["learning_rate"] == float(row["learning_rate"])
            if row["status"] == "finished":
                assert trial.value == float(row["eval_return_mean"])
        assert sweep(["--resume", str(run_dir), "--no-track", "--study", storage]) == 0
    other = tmp_path / "other" / "copied"
    assert sweep([*command, "--run-dir", str(other)]) == 2
    assert not other.exists()


def test_a_search_stops_when_its_target_is_reached(tmp_path):
    run_dir = tmp_path / "early"
    search = ["--configs", "6", "--generations", "3", "--stop-at", "1", "--no-track"]
    assert sweep([*SMALL, *search, "--run-dir", str(run_dir)]) == 0
    assert len(rows(run_dir / "results.csv")) == 2
    assert not records(run_dir, "generation")
    assert SoFar(run_dir).fraction == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--generations", "0"], "8 configurations cannot be drawn in 0 generations"),
        (["--generations", "9"], "8 configurations cannot be drawn in 9 generations"),
        (["--finalists", "-1"], "finalists is -1; it must be 0 or more"),
        (["--final-seeds", "0"], "final_seeds is 0; it must be 1 or more"),
        (["--pruner", "best"], "invalid choice: 'best'"),
    ],
)
def test_what_cannot_be_searched_is_refused(options, said, tmp_path, capsys):
    run_dir = tmp_path / "none"
    command = [*SMALL, "--configs", "8", *options, "--run-dir", str(run_dir), "--no-track"]
    try:
        code = sweep(command)
    except SystemExit as error:
        code = error.code
    assert code == 2
    assert said in capsys.readouterr().err
    assert not run_dir.exists()
