"""What pictures show: curves from a journal, and importance that finds what mattered."""

import json

import numpy as np
import pytest

from jaxrl.errors import InputError
from jaxrl.preparation import describe, prepare
from jaxrl.report.data import SoFar
from jaxrl.report.pictures import draw_curves, draw_importances, importances
from jaxrl.saved import sweep_json
from jaxrl.search.table import RESULT_COLUMNS, format_cell
from jaxrl.specification import SweepSpec
from jaxrl.tracking.journal import Journal


@pytest.fixture
def run_dir(tmp_path):
    """Of two configurations with two seeds each, before its first record."""
    table = tmp_path / "table.json"
    table.write_text(json.dumps([{"gamma": 0.9}, {"gamma": 0.8}]))
    spec = SweepSpec(config_table=str(table), seeds=2, seed=5, steps=100, device="cpu")
    sweep = prepare(spec)
    content = sweep_json(sweep, describe(sweep, "name", "experiment"))
    (tmp_path / "sweep.json").write_text(json.dumps(content))
    return tmp_path


def record(journal, step, agents, returns):
    names = ("train_return_mean", "updates", "diverged", "device_seconds")
    metrics = {"eval_return_mean": np.array(returns), **dict.fromkeys(names, [0] * len(agents))}
    journal.append("evaluation", step=step, agents=agents, metrics=metrics)


def test_a_journal_that_grows_is_followed(run_dir):
    sweep = SoFar(run_dir)
    assert sweep.fraction == 0
    journal = Journal(run_dir / "journal")
    journal.append("begin")
    record(journal, 25, [0, 2], [1.0, 3.0])
    record(journal, 25, [1], [np.nan])
    record(journal, 50, [0], [2.0])
    sweep.update()
    steps, returns = sweep.table()
    np.testing.assert_array_equal(steps, [25, 50])
    np.testing.assert_array_equal(returns, [[1, np.nan, 3, np.nan], [2, *[np.nan] * 3]])
    assert sweep.fraction == pytest.approx((50 + 2 * 25) / 400)
    assert [steps for _, steps in sweep.work] == [0, 50, 75, 100]
    journal.append("rung", step=50, agents=[1, 2, 3])
    sweep.update()
    assert sweep.fraction == pytest.approx((50 + 3 * 100) / 400)
    journal.append("end", status="finished")
    sweep.update()
    assert (sweep.fraction, sweep.status) == (1, "finished")
    names = [sweep.name(agent) for agent in range(4)]
    assert names == [f"config {config}, seed {seed}" for config in (0, 1) for seed in (5, 6)]


def test_the_best_as_they_are_now_are_drawn_over_the_population(run_dir):
    journal = Journal(run_dir / "journal")
    record(journal, 50, [0, 1, 2], [9.0, 1.0, 2.0])
    record(journal, 100, [0, 1, 2], [1.0, 5.0, 3.0])
    (axes,) = draw_curves(SoFar(run_dir)).axes
    lines = {line.get_label(): line.get_ydata().tolist() for line in axes.lines}
    assert lines["median"] == [2, 3]
    assert list(lines)[1:] == ["config 0, seed 6", "config 1, seed 5", "config 0, seed 5"]
    assert lines["config 0, seed 6"] == [1, 5]


def test_before_anything_is_evaluated_there_is_a_frame(run_dir):
    (axes,) = draw_curves(SoFar(run_dir)).axes
    assert not axes.lines


def test_what_is_no_run_directory_is_said(tmp_path):
    with pytest.raises(InputError, match="no run directory"):
        SoFar(tmp_path)


def write_results(path, rows):
    from jaxrl.dqn.hyperparameters import NAMES, Configuration

    lines = [",".join(["config", "seed", *NAMES, *RESULT_COLUMNS])]
    for number, (values, score) in enumerate(rows):
        configuration = Configuration.create(values, 1000)
        cells = [number, 0, *(format_cell(getattr(configuration, name)) for name in NAMES)]
        results = [score if name == "eval_return_mean" else 0 for name in RESULT_COLUMNS]
        quoted = ('"' + str(cell).replace('"', '""') + '"' for cell in [*cells, *results])
        lines.append(",".join(quoted))
    (path / "results.csv").write_text("\n".join(lines))


def test_importance_finds_the_one_that_mattered(tmp_path):
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(60):
        rate, gamma = 10 ** rng.uniform(-5, -2), float(rng.choice([0.9, 0.99]))
        sizes = ([64, 64], [256, 256])[rng.integers(2)]
        rows.append(
            (
                {"learning_rate": rate, "gamma": gamma, "hidden_sizes": sizes},
                100 * np.log10(rate),
            )
        )
    write_results(tmp_path, rows)
    found = importances(tmp_path)
    assert next(iter(found)) == "learning_rate"
    assert set(found) == {"learning_rate", "gamma", "hidden_sizes"}
    assert found["learning_rate"] > 0.9
    assert sum(found.values()) == pytest.approx(1)
    (axes,) = draw_importances(found).axes
    assert [label.get_text() for label in axes.get_yticklabels()][-1] == "learning_rate"


@pytest.mark.parametrize("scores", [range(3), [7.0] * 20])
def test_too_few_or_equal_results_say_nothing(tmp_path, scores):
    write_results(tmp_path, [({"gamma": 0.9 + 0.001 * i}, score) for i, score in enumerate(scores)])
    with pytest.raises(InputError, match="say nothing of importance"):
        importances(tmp_path)


def test_no_results_are_said(tmp_path):
    with pytest.raises(InputError, match=r"results\.csv cannot be read"):
        importances(tmp_path)
