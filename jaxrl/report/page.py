"""``report.html``: one page that opens from a file, without a network."""

import functools
import html
import importlib.resources
import json
import math
import string
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from jaxrl.conclusion import Conclusion
from jaxrl.report import figures
from jaxrl.report.data import SoFar
from jaxrl.report.figures import Figure
from jaxrl.search.finalists import interval
from jaxrl.search.table import format_cell
from jaxrl.tracking.delivery import deliveries

_ROWS = 50
"""Of the leaderboard; ``results.csv`` has them all."""
_INTERVALS = 4
"""Seeds from which on an interval over them is worth showing."""
_REFRESH_SECONDS = 30
_CAPTIONS = {
    "curves": "Learning. Hover the best for their hyperparameters; the legend switches what is shown.",
    "coordinates": "Hyperparameters and score. Drag along an axis to choose lines.",
    "importances": "What mattered.",
    "fresh": "How much the search flattered: finalists, with 95 % intervals over fresh seeds.",
    "cost": "What a score costs.",
    "time": "The device, and the tracker behind it.",
}


def build(
    sweep: SoFar,
    conclusion: Conclusion,
    episode: np.ndarray | None = None,
    played: str | None = None,
) -> str:
    """The page, as far as the sweep is.

    Args:
        episode: ``[T, 4]``, what a CartPole's winner observed.
        played: how the winner did elsewhere, for people.
    """
    pictures = _pictures(sweep, conclusion)
    sections = [_leaderboard(sweep, conclusion)]
    if played is not None:
        sections.append(_winner(played, episode is not None))
    sections += [_picture(name) for name in pictures]
    shown = {
        "facts": _facts(sweep),
        "status": _status(sweep),
        "title": sweep.run_dir.resolve().name,
    }
    poles = [] if episode is None else np.round(episode[:, [0, 2]], 4).tolist()
    return _template().substitute(
        **{name: html.escape(text) for name, text in shown.items() if name != "facts"},
        facts=shown["facts"],
        percent=f"{100 * sweep.fraction:.0f}",
        refresh="" if sweep.status else f'<meta http-equiv="refresh" content="{_REFRESH_SECONDS}">',
        sections="\n".join(sections),
        command=html.escape(sweep.saved.spec.command()),
        plotly=_plotly(),
        figures=_json(pictures),
        episode=_json(poles),
    )


def _pictures(sweep: SoFar, conclusion: Conclusion) -> dict[str, Figure]:
    made = {
        "curves": figures.curves(sweep),
        "coordinates": figures.coordinates(sweep, _scores(sweep)),
        "importances": figures.importances(conclusion.importances),
        "fresh": figures.against_fresh(conclusion.finalists),
        "cost": figures.cost(conclusion.costs),
        "time": figures.time_line(sweep, deliveries(sweep.run_dir)),
    }
    return {name: figure for name, figure in made.items() if figure is not None}


def _scores(sweep: SoFar) -> dict[int, float]:
    """Of every configuration, the average over its seeds; the latest evaluation where that is all."""
    results, scores = sweep.history.results, {}
    for config in results.ranking():
        score = results.average(config)
        if math.isnan(score):
            score = float(np.mean([r.latest_return_mean for r in results.seeds(config)]))
        scores[config] = score
    return scores


def _status(sweep: SoFar) -> str:
    seconds = sweep.milliseconds / 1000
    took = f"{seconds:,.0f} s" if seconds < 600 else f"{seconds / 60:,.0f} min"
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime())
    if sweep.status is None:
        return f"running for {took}, {sweep.fraction:.0%} done; as of {when}"
    return f"{sweep.status} after {took}; as of {when}"


def _facts(sweep: SoFar) -> str:
    spec, saved = sweep.saved.spec, sweep.saved
    results = sweep.history.results.of_agent
    counts: dict[str, int] = {}
    for result in results:
        status = "running" if result.status == "killed" and sweep.status is None else result.status
        counts[status] = counts.get(status, 0) + 1
    configs = len({result.config for result in results})
    facts = {
        "trained": f"{configs:,} configurations, {len(results):,} agents of {spec.steps:,} steps in "
        f"{spec.env}",
        "agents": ", ".join(f"{count:,} {status}" for status, count in counts.items()),
        "search": f"{spec.space if spec.config_table is None else spec.config_table}, sampler "
        f"{spec.sampler}, {len(sweep.history.generations):,} generations, pruner {spec.pruner}",
        "device": saved.device,
        "versions": ", ".join(f"{name} {v}" for name, v in saved.versions.items() if v),
    }
    return "".join(
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd>" for name, text in facts.items()
    )


def _leaderboard(sweep: SoFar, conclusion: Conclusion) -> str:
    results = sweep.history.results
    fresh = {finalist.config: finalist for finalist in conclusion.finalists}
    ranking = results.ranking() if sweep.status else results.latest_ranking()
    ranking = [*fresh, *(config for config in ranking if config not in fresh)][:_ROWS]
    names = figures.varying([results.seeds(config)[0] for config in ranking])
    head = ["", "config", "score", "seeds"]
    head += ["on fresh seeds", "solve it", "flattered by"] if fresh else []
    rows, scores = [[*head, *names]], _scores(sweep)
    for rank, config in enumerate(ranking, 1):
        seeds = results.seeds(config)
        score = _number(scores[config]) + _interval([results.score(result) for result in seeds])
        row = [str(rank), str(config), score, str(len(seeds))]
        if fresh:
            row += _fresh_cells(fresh.get(config))
        configuration = seeds[0].agent.configuration
        rows.append(row + [_cell(getattr(configuration, name)) for name in names])
    more = len({result.config for result in results.of_agent}) - len(ranking)
    note = f'<p class="soft">{more:,} more are in results.csv.</p>' if more else ""
    return f"<h2>Leaderboard</h2>{''.join(_table(rows))}{note}"


def _fresh_cells(finalist: Any) -> list[str]:
    if finalist is None:
        return [""] * 3
    span = f" [{_number(finalist.fresh_low)}, {_number(finalist.fresh_high)}]"
    known = math.isfinite(finalist.fresh_low)
    solved = "" if finalist.solved is None else f"{finalist.solved:.0%}"
    score = _number(finalist.fresh_iqm) + (span if known else "")
    return [score, solved, _number(finalist.flattery)]


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield '<div class="scroll"><table>'
    for place, row in enumerate(rows):
        tag = "td" if place else "th"
        yield f"<tr>{''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in row)}</tr>"
    yield "</table></div>"


def _winner(played: str, is_drawn: bool) -> str:
    canvas = '<canvas id="pole" width="720" height="320"></canvas>' if is_drawn else ""
    return f"<h2>The winner</h2><figure>{canvas}<figcaption>{html.escape(played)}</figcaption></figure>"


def _picture(name: str) -> str:
    kind = "plot wide" if name == "coordinates" else "plot"
    caption = f"<figcaption>{_CAPTIONS[name]}</figcaption>"
    return f'<figure>{caption}<div class="{kind}" id="{name}"></div></figure>'


def _interval(scores: Sequence[float]) -> str:
    if len(scores) < _INTERVALS:
        return ""
    low, high = interval(scores)
    return "" if math.isnan(low) else f" [{_number(low)}, {_number(high)}]"


def _number(value: float) -> str:
    return f"{value:.1f}" if math.isfinite(value) else "–"


def _cell(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else format_cell(value)


def _json(value: Any) -> str:
    """For a script element, which must not end in it."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("</", "<\\/")


@functools.cache
def _template() -> string.Template:
    return string.Template(_file("jaxrl.report", "page.html"))


@functools.cache
def _plotly() -> str:
    return _file("plotly", "package_data/plotly.min.js")


def _file(package: str, name: str) -> str:
    return importlib.resources.files(package).joinpath(name).read_text("utf-8")
