"""The report: what is in it, and that a real browser shows it, quickly and without a network."""

import dataclasses
import html
import json
import math
import shlex
import time

import numpy as np
import pytest
from browser import chromium, needs_chromium
from run_dirs import rows

from jaxrl.lease import Lease
from jaxrl.population.layout import Copy
from jaxrl.preparation import describe, prepare
from jaxrl.report import figures, page, writer
from jaxrl.report.__main__ import main as report
from jaxrl.rundir import RunDirectory
from jaxrl.saved import sweep_json
from jaxrl.search.generation import copies_record
from jaxrl.specification import SweepSpec
from jaxrl.sweep import main as sweep
from jaxrl.tracking.journal import Journal

pytest_plugins = ["browser"]
pytestmark = pytest.mark.usefixtures("compilation_cache")

SEARCH = [
    *("--space", "hands-on-rl", "--configs", "12", "--generations", "2", "--pruner", "halving"),
    *("--finalists", "2", "--final-seeds", "4", "--steps", "1000", "--eval-every", "100"),
    *("--eval-episodes", "2", "--final-episodes", "2", "--set", "hidden_sizes=[8]"),
    *("--set", "learning_starts=100", "--set", "batch_size=16", "--device", "cpu"),
]


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A search with everything that a report shows."""
    run_dir = tmp_path_factory.mktemp("report") / "a <b>search & more"
    lines = run_dir.parent / "lines.jsonl"
    options = ["--tracking-uri", f"jsonl:{lines}", "--run-dir", str(run_dir)]
    assert sweep([*SEARCH, *options]) == 0
    return run_dir


def figures_of(text):
    start = text.index("const figures = ") + len("const figures = ")
    return json.JSONDecoder().raw_decode(text, start)[0]


def test_it_says_what_was_run_and_how_to_repeat_it(searched, tmp_path):
    text = (searched / "report.html").read_text()
    assert "finished after" in text
    assert "http-equiv" not in text  # it will not change any more
    assert "a &lt;b&gt;search &amp; more" in text
    assert "a <b>" not in text
    command = text[text.index("<pre>") + 5 : text.index("</pre>")]
    assert command.startswith("python -m jaxrl.sweep --space hands-on-rl --configs 12")
    words = shlex.split(html.unescape(command))[3:]
    assert sweep([*words, "--no-track", "--run-dir", str(tmp_path / "again")]) == 0
    again = (tmp_path / "again" / "finalists.csv").read_text()
    assert again == (searched / "finalists.csv").read_text()


def test_its_leaderboard_begins_with_the_winner_on_fresh_seeds(searched):
    text = (searched / "report.html").read_text()
    winner = json.loads((searched / "finalists.json").read_text())[0]
    table = text[text.index("<table>") : text.index("</table>")]
    first = table.split("<tr>")[2]
    cells = [cell.split("<")[0] for cell in first.split("<td>")[1:]]
    assert cells[:2] == ["1", str(winner["config"])]
    assert cells[3:5] == ["1", "finished"]
    assert cells[5].startswith(f"{winner['fresh_iqm']:.1f} [")


def test_its_pictures_show_all_there_is(searched):
    found = figures_of((searched / "report.html").read_text())
    assert set(found) == {"curves", "coordinates", "fresh", "cost", "time"}
    traces = {trace["name"]: trace for trace in found["curves"]["data"] if "name" in trace}
    results = rows(searched / "results.csv")
    pruned = [row for row in results if row["status"] == "pruned"]
    assert sorted(traces["stopped early"]["x"]) == sorted(int(row["env_steps"]) for row in pruned)
    axes = {axis["label"]: axis for axis in found["coordinates"]["data"][0]["dimensions"]}
    assert len(axes["score"]["values"]) == 12
    assert axes["normalize_observations"]["ticktext"] == ["false", "true"]
    rates = sorted(10**value for value in axes["learning_rate"]["values"])
    expected = sorted(float(row["learning_rate"]) for row in results)
    assert all(math.isclose(*pair, rel_tol=1e-3) for pair in zip(rates, expected, strict=True))


def test_what_mattered_is_drawn_for_each_thing_that_it_explains():
    shares = {"score": {"gamma": 0.7, "tau": 0.3}, "steps_to_solve": {"tau": 0.9, "gamma": 0.1}}
    bars = figures.importances(shares)["data"]
    assert [bar["name"] for bar in bars] == ["score", "steps to solve"]
    assert [dict(zip(bar["y"], bar["x"], strict=True)) for bar in bars] == [*shares.values()]
    assert figures.importances({}) is None


def test_the_schedule_of_a_winner_of_population_based_training_is_told(tmp_path):
    spec = SweepSpec(configs=5, steps=300, eval_every=100, pbt=True, pbt_every=100, device="cpu")
    directory, journal, agents = written(tmp_path / "run", spec)
    evaluation = dict.fromkeys((*EVALUATED, "eval_return_mean"), np.arange(5))
    journal.append("evaluation", step=100, agents=np.arange(5), metrics=evaluation)
    source = agents[1].configuration
    copy = dataclasses.replace(source, learning_rate=0.25)
    journal.append("copies", **copies_record(100, {0: Copy(1, copy)}, 0))
    final = {n: np.array([9, 8, 7, 6, 5]) for n in ("last_mean", "last_std", "best_mean")}
    metrics = {**final, **dict.fromkeys(("diverged", "device_seconds"), np.zeros(5))}
    journal.append("final", step=300, agents=np.arange(5), metrics=metrics)
    assert report([str(directory.path)]) == 0
    text = directory.report.read_text()
    ends = f"{figures.short(source.learning_rate)} → 0.25"
    assert ends in text[: text.index("The winner’s schedule")], "the leaderboard tells both ends"
    axes = {
        axis["label"]: axis for axis in figures_of(text)["coordinates"]["data"][0]["dimensions"]
    }
    assert "0.25" in axes["learning_rate"]["ticktext"]
    table = text[text.index("The winner’s schedule") :]
    rows_ = [row.split("<td>")[1:] for row in table[: table.index("</table>")].split("<tr>")[2:]]
    told = [[cell.split("<")[0] for cell in row] for row in rows_]
    assert told == [["0", figures.short(source.learning_rate)], ["100", "0.25"]]


def test_before_anything_is_known_there_is_a_page_that_looks_again(tmp_path):
    spec = SweepSpec(configs=2, steps=100, device="cpu")
    sweep_ = prepare(spec)
    content = sweep_json(sweep_, describe(sweep_, "name", "experiment"))
    (tmp_path / "sweep.json").write_text(json.dumps(content))
    (tmp_path / "journal").mkdir()
    assert report([str(tmp_path)]) == 0
    text = (tmp_path / "report.html").read_text()
    assert "killed after 0 s" in text  # since nobody works on it
    assert f"--resume {tmp_path}" in text
    holder = Lease(tmp_path)
    assert report([str(tmp_path)]) == 0
    holder.release()
    text = (tmp_path / "report.html").read_text()
    assert "running for 0 s, 0% done" in text
    assert 'http-equiv="refresh"' in text


def test_while_it_runs_the_page_is_kept_up_to_date(tmp_path, monkeypatch):
    seen = []

    def build(sweep_, conclusion, *winner):
        seen.append((sweep_.status, bool(winner)))
        return page.build(sweep_, conclusion, *winner)

    monkeypatch.setattr(writer, "_PAUSE_SECONDS", 0.1)
    monkeypatch.setattr(writer, "_REST", 0.0)
    monkeypatch.setattr(writer, "build", build)
    assert sweep([*SEARCH, "--no-track", "--run-dir", str(tmp_path / "run")]) == 0
    assert seen[0] == (None, False)
    assert seen[-1] == ("finished", True)
    assert len(seen) > 2


def test_a_report_that_fails_stops_nothing(tmp_path, monkeypatch, capsys):
    def build(*_):
        raise RuntimeError("no page today")

    monkeypatch.setattr(writer, "build", build)
    assert sweep([*SEARCH, "--no-track", "--run-dir", str(tmp_path / "run")]) == 0
    assert "the report could not be written: no page today" in capsys.readouterr().out
    assert len(rows(tmp_path / "run" / "results.csv")) == 12


def test_what_is_no_run_directory_is_one_line(tmp_path, capsys):
    assert report([str(tmp_path)]) == 2
    assert "is no run directory" in capsys.readouterr().err


EVALUATED = ("train_return_mean", "updates", "diverged", "device_seconds")


def written(run_dir, spec):
    """A run directory of a sweep that has begun: itself, its journal, its agents."""
    sweep_ = prepare(spec)
    directory = RunDirectory.make(run_dir)
    directory.write_json("sweep.json", sweep_json(sweep_, describe(sweep_, "written", "x")))
    journal = Journal(directory.journal)
    journal.append("begin")
    return directory, journal, sweep_.generation.agents


def large(run_dir, count=2_000, steps=50_000):
    """A search of many configurations, written without training."""
    spec = SweepSpec(space="hands-on-rl", configs=count, steps=steps, device="cpu")
    _, journal, _ = written(run_dir, spec)
    agents, rng = np.arange(count), np.random.default_rng(0)
    for step in spec.budget.eval_steps:
        returns = rng.uniform(9, 500, count) * step / steps
        metrics = {"eval_return_mean": returns, **dict.fromkeys(EVALUATED, np.zeros(count))}
        journal.append("evaluation", step=step, agents=agents, metrics=metrics)
    finals = {n: rng.uniform(9, 500, count) for n in ("last_mean", "last_std", "best_mean")}
    metrics = {**finals, **dict.fromkeys(("diverged", "device_seconds"), np.zeros(count))}
    journal.append("final", step=steps, agents=agents, metrics=metrics)
    shares = {"gamma": 0.5, "tau": 0.3, "learning_rate": 0.2}
    journal.append("importances", shares={"score": shares, "steps_to_solve": shares})
    journal.append("end", status="finished")
    return run_dir


WATCH = """
window.__errors = [];
window.addEventListener("error", event => window.__errors.push(String(event.message)));
"""


def opened(browser, path):
    browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": WATCH})
    browser.execute_cdp_cmd("Network.enable", {})
    browser.get(path.as_uri())


def requests_of(browser):
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    return [params["request"]["url"] for params in sent]


def scroll_through(browser, drawn):
    """Down the page, until so many pictures are drawn."""
    deadline = time.monotonic() + 60
    while browser.execute_script("return document.querySelectorAll('.main-svg').length") < drawn:
        assert time.monotonic() < deadline
        browser.execute_script("window.scrollBy(0, 300)")
        time.sleep(0.2)


@needs_chromium
@pytest.mark.parametrize("width", [1300, 400])
def test_a_browser_shows_it_at_a_desk_and_on_a_phone(searched, width, screenshots):
    with chromium("--enable-unsafe-swiftshader", log=True) as browser:
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        opened(browser, searched / "report.html")
        screenshots(browser, f"report-{width}")
        scroll_through(browser, 6)
        assert browser.execute_script("return window.__errors") == []
        assert [
            url for url in requests_of(browser) if not url.startswith(("file:", "data:", "blob:"))
        ] == []
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        painted = browser.execute_script(
            "const c = document.getElementById('pole'); const d = c.getContext('2d')"
            ".getImageData(0, 0, c.width, c.height).data; return d.some(x => x > 0)"
        )
        assert painted
        browser.execute_script("document.getElementById('curves').scrollIntoView()")
        hovered = browser.execute_script(
            "const plot = document.getElementById('curves');"
            "const best = plot.data.findIndex(t => (t.hovertemplate || '').includes('config'));"
            "Plotly.Fx.hover(plot, [{curveNumber: best, pointNumber: 2}]);"
            "return plot.querySelector('.hoverlayer').textContent"
        )
        assert "learning_rate" in hovered


@needs_chromium
def test_two_thousand_configurations_make_a_page_that_is_not_large(tmp_path):
    run_dir = large(tmp_path / "large")
    assert report([str(run_dir)]) == 0
    assert (run_dir / "report.html").stat().st_size < 10e6
    found = figures_of((run_dir / "report.html").read_text())
    assert [bar["name"] for bar in found["importances"]["data"]] == ["score", "steps to solve"]
    with chromium("--enable-unsafe-swiftshader", log=True) as browser:
        opened(browser, run_dir / "report.html")
        scroll_through(browser, 3)
        assert browser.execute_script("return window.__errors") == []
