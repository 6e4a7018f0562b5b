"""``report.html``: one page that opens from a file, without a network."""

import functools
import html
import importlib.resources
import json
import math
import shlex
import string
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxrl.conclusion import Conclusion
from jaxrl.dqn.hyperparameters import NAMES
from jaxrl.report import figures
from jaxrl.report.data import SoFar
from jaxrl.report.figures import Figure
from jaxrl.search.finalists import interval
from jaxrl.search.generation import SEARCH
from jaxrl.search.results import Result, course, varying
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
    scores = _scores(sweep)
    pictures = _pictures(sweep, conclusion, scores)
    sections = [_leaderboard(sweep, conclusion, scores)]
    if played is not None:
        sections.append(_winner(played, episode is not None))
    sections += _schedules(sweep, conclusion)
    sections += [_picture(name) for name in pictures]
    poles = [] if episode is None else np.round(episode[:, [0, 2]], 4).tolist()
    return _template().substitute(
        title=html.escape(sweep.run_dir.resolve().name),
        status=html.escape(_status(sweep)),
        facts=_facts(sweep),
        percent=f"{100 * sweep.fraction:.0f}",
        refresh="" if sweep.status else f'<meta http-equiv="refresh" content="{_REFRESH_SECONDS}">',
        sections="\n".join(sections),
        command=html.escape(_commands(sweep)),
        plotly=_plotly(),
        figures=_json(pictures),
        episode=_json(poles),
    )


def _pictures(
    sweep: SoFar, conclusion: Conclusion, scores: Mapping[int, float]
) -> dict[str, Figure]:
    made = {
        "curves": figures.curves(sweep),
        "coordinates": figures.coordinates(sweep, scores),
        "importances": figures.importances(conclusion.importances),
        "fresh": figures.against_fresh(conclusion.finalists),
        "cost": figures.cost(conclusion.costs),
        "time": figures.time_line(sweep, deliveries(sweep.run_dir)),
    }
    return {name: figure for name, figure in made.items() if figure is not None}


def _scores(sweep: SoFar) -> dict[int, float]:
    """Of every configuration, the average over its seeds; of evaluations where these are all."""
    results, scores = sweep.history.results, {}
    for config in results.ranking():
        score = results.average(config)
        if math.isnan(score):
            score = results.mean(config, results.column_so_far)
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
        "search": _how(sweep),
        "device": saved.device,
        "versions": ", ".join(f"{name} {v}" for name, v in saved.versions.items() if v),
    }
    return "".join(
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd>" for name, text in facts.items()
    )


def _commands(sweep: SoFar) -> str:
    repeat = sweep.saved.spec.command()
    if sweep.status in (None, "finished"):
        return repeat
    go_on = shlex.join(["python", "-m", "jaxrl.sweep", "--resume", str(sweep.run_dir)])
    return f"{repeat}\n\n# or, to go on with this one:\n{go_on}"


def _how(sweep: SoFar) -> str:
    """How it was searched."""
    spec = sweep.saved.spec
    count = sum(generation.stage == SEARCH for generation in sweep.history.generations)
    parts = [spec.config_table] if spec.config_table else [spec.space, f"sampler {spec.sampler}"]
    parts.append(f"{count:,} generation{'' if count == 1 else 's'}")
    if spec.pbt:
        parts.append(f"population based training every {spec.exploit_every:,} steps")
    elif spec.pruner != "none":
        parts.append(f"pruner {spec.pruner}")
    if spec.verify:
        parts.append(f"the best {spec.verify} of each verified")
    return ", ".join(parts)


def _leaderboard(sweep: SoFar, conclusion: Conclusion, scores: Mapping[int, float]) -> str:
    results = sweep.history.results
    fresh = {finalist.config: finalist for finalist in conclusion.finalists}
    ranking = results.ranking() if sweep.status else results.ranking_so_far()
    ranking = [*fresh, *(config for config in ranking if config not in fresh)][:_ROWS]
    names = varying([results.seeds(config)[0] for config in ranking])
    head = ["", "config", "score", "seeds", "status"]
    head += ["on fresh seeds", "solve it", "flattered by"] if fresh else []
    rows = [[*head, *names]]
    for rank, config in enumerate(ranking, 1):
        seeds = results.seeds(config)
        score = _number(scores[config])
        score += _interval([results.score(r) for r in seeds], sweep.saved.spec.rank_by)
        if math.isnan(results.average(config)):
            score = f"({score})"
        row = [str(rank), str(config), score, str(len(seeds)), _state(sweep, seeds)]
        if fresh:
            row += _fresh_cells(fresh.get(config))
        rows.append(row + [course(seeds[0], name, figures.short) for name in names])
    unlike = len({len(results.seeds(config)) for config in ranking}) > 1
    notes = ["Where some have more seeds than others, an average counts less a standard error."]
    notes = notes if unlike else []
    if any(math.isnan(results.average(config)) for config in ranking):
        which = results.column_so_far.split("_")[0]
        notes.append(
            f"In brackets: the {which} evaluation of those that were not trained to their end."
        )
    more = len({result.config for result in results.of_agent}) - len(ranking)
    if more:
        notes.append(f"{more:,} more are in results.csv.")
    return f'<h2>Leaderboard</h2>{"".join(_table(rows))}<p class="soft">{" ".join(notes)}</p>'


def _state(sweep: SoFar, seeds: Sequence[Result]) -> str:
    """What has become of a configuration."""
    states = {result.status for result in seeds}
    last = seeds[0].env_steps
    if states == {"killed"}:
        return f"at {last:,}" if sweep.status is None else f"killed at {last:,}"
    return f"stopped at {last:,}" if states == {"pruned"} else ", ".join(sorted(states))


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


def _schedules(sweep: SoFar, conclusion: Conclusion) -> Iterator[str]:
    """What the winner of population based training went through: of its line, step by step."""
    results = sweep.history.results
    first = [f.config for f in conclusion.finalists] or results.ranking()
    agent = results.seeds(first[0])[0].agent
    if not agent.schedule:
        return
    line = [(0, agent.configuration), *agent.schedule]
    names = [n for n in NAMES if len({getattr(now, n) for _, now in line}) > 1]
    rows = [["from step", *names]]
    rows += [[f"{step:,}", *(figures.short(getattr(now, n)) for n in names)] for step, now in line]
    yield f"<h2>The winner’s schedule</h2>{''.join(_table(rows))}"


def _winner(played: str, is_drawn: bool) -> str:
    canvas = '<canvas id="pole" width="720" height="320"></canvas>' if is_drawn else ""
    return f"<h2>The winner</h2><figure>{canvas}<figcaption>{html.escape(played)}</figcaption></figure>"


def _picture(name: str) -> str:
    kind = "plot wide" if name == "coordinates" else "plot"
    caption = f"<figcaption>{_CAPTIONS[name]}</figcaption>"
    return f'<figure>{caption}<div class="{kind}" id="{name}"></div></figure>'


def _interval(scores: Sequence[float], rank_by: str) -> str:
    if len(scores) < _INTERVALS:
        return ""
    low, high = interval(scores, rank_by)
    return "" if math.isnan(low) else f" [{_number(low)}, {_number(high)}]"


def _number(value: float) -> str:
    return f"{value:.1f}" if math.isfinite(value) else "–"


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
