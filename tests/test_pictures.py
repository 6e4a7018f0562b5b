"""What pictures show: curves from a journal, and importance that finds what mattered."""

import json

import numpy as np
import pytest

from jaxrl.errors import InputError
from jaxrl.report.data import Curves
from jaxrl.report.pictures import draw_curves, draw_importances, importances
from jaxrl.search.table import RESULT_COLUMNS, format_cell
from jaxrl.tracking.journal import Journal


@pytest.fixture
def run_dir(tmp_path):
    """Of two configurations with two seeds, and one, half way."""
    sweep = {"spec": {"steps": 100}, "configs": [0, 0, 1], "seeds": [5, 6, 5]}
    sweep["parameters"] = None
    (tmp_path / "sweep.json").write_text(json.dumps(sweep))
    return tmp_path


def record(journal, step, agents, returns):
    metrics = {"eval_return_mean": np.array(returns)}
    journal.append("evaluation", step=step, agents=agents, metrics=metrics)


def test_curves_follow_a_journal_that_grows(run_dir):
    curves = Curves.of(run_dir)
    assert curves.fraction == 0
    journal = Journal(run_dir / "journal")
    record(journal, 25, [0, 2], [1.0, 3.0])
    record(journal, 25, [1], [np.nan])
    record(journal, 50, [0], [2.0])
    curves.update()
    steps, returns = curves.table()
    np.testing.assert_array_equal(steps, [25, 50])
    np.testing.assert_array_equal(returns, [[1, np.nan, 3], [2, np.nan, np.nan]])
    assert curves.fraction == pytest.approx((2 * 25 + 25) / 300)
    journal.append("final", step=100, agents=[0, 1, 2], metrics={"eval_return_mean": [1.0] * 3})
    curves.update()
    assert curves.fraction == 1
    assert [curves.name(agent) for agent in range(3)] == [
        "config 0, seed 5",
        "config 0, seed 6",
        "config 1",
    ]


def test_the_best_as_they_are_now_are_drawn_over_the_population(run_dir):
    journal = Journal(run_dir / "journal")
    record(journal, 50, [0, 1, 2], [9.0, 1.0, 2.0])
    record(journal, 100, [0, 1, 2], [1.0, 5.0, 3.0])
    (axes,) = draw_curves(Curves.of(run_dir)).axes
    lines = {line.get_label(): line.get_ydata().tolist() for line in axes.lines}
    assert lines["median"] == [2, 3]
    assert list(lines)[1:] == ["config 0, seed 6", "config 1", "config 0, seed 5"]
    assert lines["config 0, seed 6"] == [1, 5]


def test_before_anything_is_evaluated_there_is_a_frame(run_dir):
    (axes,) = draw_curves(Curves.of(run_dir)).axes
    assert not axes.lines


def test_what_is_no_run_directory_is_said(tmp_path):
    with pytest.raises(InputError, match="no run directory"):
        Curves.of(tmp_path)


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
