"""The report's pictures for plotly.js: traces and layouts, as plain data."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxrl.report.data import SoFar
from jaxrl.search.cost import Cost
from jaxrl.search.finalists import Finalist
from jaxrl.search.results import Result, course, varying
from jaxrl.search.table import format_cell

Figure = dict[str, Any]

BEST_SHOWN = 12
_BINS = 80
"""Of the time line."""
_LOGARITHMIC = 30.0
"""From which ratio of the largest to the smallest value on an axis is logarithmic."""
_FAINT, _BAND, _LINE, _STOPPED = "#94a3b8", "rgba(59,130,246,0.22)", "#2563eb", "#d97706"


def described(result: Result, names: Sequence[str]) -> str:
    """Hyperparameters for people, a line each."""
    return "<br>".join(f"{name} {course(result, name, short)}" for name in names)


def curves(sweep: SoFar) -> Figure | None:
    """Evaluation returns of the population: its deciles and median, the best, everybody else faintly,
    and where agents were stopped."""
    steps, returns = sweep.table()
    if not len(steps):
        return None
    results = sweep.history.results.of_agent
    names = varying(results)
    known = np.flatnonzero(np.isfinite(returns).any(axis=0))
    last = np.array([column[np.isfinite(column)][-1] for column in returns[:, known].T])
    order = known[np.argsort(-last, kind="stable")]
    traces = [_everybody(steps, returns[:, order[BEST_SHOWN:]]), *_fan(steps, returns)]
    for agent in order[:BEST_SHOWN].tolist():
        text = f"<b>{sweep.name(agent)}</b><br>{described(results[agent], names)}<extra></extra>"
        hover = f"step %{{x:,}}, return %{{y:.1f}}<br>{text}"
        line = {"x": _plain(steps), "y": _plain(returns[:, agent]), "name": sweep.name(agent)}
        traces.append({**line, "mode": "lines", "hovertemplate": hover, "line": {"width": 1.5}})
    traces.append(_stops(sweep, names))
    axes = _axes("environment steps of each agent", "mean return of an evaluation")
    axes["xaxis"]["range"] = [0, sweep.saved.spec.steps]
    return {"data": traces, "layout": {**axes, "hovermode": "closest"}}


def _everybody(steps: np.ndarray, returns: np.ndarray) -> Figure:
    """One broken line, which is drawn quickly however many there are."""
    gap = np.full((1, returns.shape[1]), np.nan)
    y = np.concatenate([returns, gap]).T.ravel()
    x = np.tile(np.append(steps.astype(float), np.nan), returns.shape[1])
    line = {"x": _plain(x), "y": _plain(y), "name": "everybody else", "type": "scattergl"}
    style = {"line": {"width": 0.5, "color": _FAINT}, "opacity": 0.35, "visible": "legendonly"}
    return {**line, **style, "mode": "lines", "hoverinfo": "skip"}


def _fan(steps: np.ndarray, returns: np.ndarray) -> list[Figure]:
    reached = np.isfinite(returns).any(axis=1)
    low, median, high = np.nanquantile(returns[reached], (0.1, 0.5, 0.9), axis=1)
    x = _plain(steps[reached])
    edge = {"x": x, "mode": "lines", "line": {"width": 0}, "hoverinfo": "skip"}
    return [
        {**edge, "y": _plain(low), "showlegend": False},
        {
            **edge,
            **{"y": _plain(high), "name": "eight of ten agents"},
            **{"fill": "tonexty", "fillcolor": _BAND},
        },
        {
            **{"x": x, "y": _plain(median), "name": "median", "mode": "lines"},
            "line": {"width": 3, "color": _LINE},
        },
    ]


def _stops(sweep: SoFar, names: Sequence[str]) -> Figure:
    results = sweep.history.results.of_agent
    stopped = [agent for agent, result in enumerate(results) if result.status == "pruned"]
    return {
        "x": [results[agent].env_steps for agent in stopped],
        "y": _plain([results[agent].latest_return_mean for agent in stopped]),
        "text": [f"<b>{sweep.name(a)}</b><br>{described(results[a], names)}" for a in stopped],
        "hovertemplate": "stopped at step %{x:,} with %{y:.1f}<br>%{text}<extra></extra>",
        **{"name": "stopped early", "type": "scattergl", "mode": "markers"},
        "marker": {"symbol": "x", "size": 5, "color": _STOPPED, "opacity": 0.6},
        "showlegend": bool(stopped),
    }


def coordinates(sweep: SoFar, scores: Mapping[int, float]) -> Figure | None:
    """Parallel coordinates: a line for each configuration, through its hyperparameters, those at its
    end where they changed, to its score."""
    results = sweep.history.results
    shown = [config for config, score in scores.items() if math.isfinite(score)]
    first = [results.seeds(config)[0] for config in shown]
    names = varying(first)
    if len(shown) < 2 or not names:
        return None
    values = [_plain([scores[config] for config in shown])]
    axes = [_axis(n, [getattr(r.agent.last, n) for r in first]) for n in names]
    colours = {"color": values[0], "colorscale": "Viridis", "showscale": False}
    axes.append({"label": "score", "values": values[0]})
    return {"data": [{"type": "parcoords", "dimensions": axes, "line": colours}], "layout": {}}


def _axis(name: str, values: Sequence[Any]) -> Figure:
    if all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values):
        finite = [v for v in values if math.isfinite(v)]
        if len(finite) == len(values) and len(set(values)) > 8:
            if min(values) > 0 and max(values) / min(values) > _LOGARITHMIC:
                powers = range(
                    math.floor(math.log10(min(values))), 1 + math.ceil(math.log10(max(values)))
                )
                ticks = {"tickvals": list(powers), "ticktext": [f"{10.0**p:g}" for p in powers]}
                return {"label": name, "values": _plain(np.log10(values)), **ticks}
            return {"label": name, "values": _plain(values)}
        kinds = sorted(set(values))
    else:
        kinds = sorted(set(values), key=format_cell)
    place = {format_cell(kind): index for index, kind in enumerate(kinds)}
    codes = [place[format_cell(value)] for value in values]
    ticks = {"tickvals": list(place.values()), "ticktext": [short(kind) for kind in kinds]}
    return {"label": name, "values": codes, **ticks}


def importances(shares: Mapping[str, Mapping[str, float]]) -> Figure | None:
    """Bars: which hyperparameters mattered, for each thing that was explained."""
    if not shares:
        return None
    order = list(next(iter(shares.values())))[::-1]
    bars = [
        {
            **{"type": "bar", "orientation": "h", "name": what.replace("_", " "), "y": order},
            "x": [round(found.get(name, 0.0), 4) for name in order],
            "hovertemplate": "%{y}: %{x:.0%}<extra></extra>",
        }
        for what, found in shares.items()
    ]
    axes = _axes("share of the spread that it accounts for (fANOVA)", "")
    axes["xaxis"]["tickformat"] = ".0%"
    return {"data": bars, "layout": {**axes, "barmode": "group"}}


def against_fresh(finalists: Sequence[Finalist]) -> Figure | None:
    """What the search said of the finalists, and what fresh seeds say."""
    if not finalists:
        return None
    x = [finalist.search_score for finalist in finalists]
    y = [finalist.fresh_iqm for finalist in finalists]
    above = [max(f.fresh_high - f.fresh_iqm, 0.0) for f in finalists]
    below = [max(f.fresh_iqm - f.fresh_low, 0.0) for f in finalists]
    low, high = min(*x, *y), max(*x, *y)
    points = {
        **{"x": _plain(x), "y": _plain(y), "mode": "markers", "name": "finalists"},
        "text": [f"config {finalist.config}" for finalist in finalists],
        "hovertemplate": "%{text}: search %{x:.1f}, fresh %{y:.1f}<extra></extra>",
        "marker": {"size": 10, "color": _LINE},
        "error_y": {"type": "data", "array": _plain(above), "arrayminus": _plain(below)},
    }
    honest = {"x": [low, high], "y": [low, high], "mode": "lines", "name": "as the search said"}
    line = {**honest, "line": {"dash": "dot", "color": _FAINT}, "hoverinfo": "skip"}
    return {"data": [line, points], "layout": _axes("score in the search", "score on fresh seeds")}


def cost(rows: Sequence[Cost]) -> Figure | None:
    """Score against operations, and who is worth it."""
    scored = [row for row in rows if math.isfinite(row.score)]
    if len(scored) < 2:
        return None
    front = sorted((row for row in scored if row.on_front), key=lambda row: row.operations)
    traces = []
    for name, some, mode in (
        ("configurations", scored, "markers"),
        ("front", front, "lines+markers"),
    ):
        points = {
            "x": [row.operations for row in some],
            "y": _plain([row.score for row in some]),
            "text": [
                f"config {row.config}, {row.device_seconds:.1f} device seconds" for row in some
            ],
        }
        hover = "%{text}<br>score %{y:.1f} for %{x:.3s} operations<extra></extra>"
        kind = "scattergl" if mode == "markers" else "scatter"
        traces.append({**points, "mode": mode, "name": name, "hovertemplate": hover, "type": kind})
    axes = _axes("floating-point operations of a training", "score")
    axes["xaxis"]["type"] = "log"
    return {"data": traces, "layout": axes}


def time_line(sweep: SoFar, delivered: Sequence[tuple[int, int]]) -> Figure | None:
    """How fast the devices went, and how far the tracker was.

    Args:
        delivered: times and how many updates had arrived by then.
    """
    if len(sweep.work) < 2:
        return None
    times, steps = np.array(sweep.work, float).T
    edges = np.linspace(times[0], times[-1], _BINS + 1)
    speed = np.diff(np.interp(edges, times, steps)) / np.maximum(np.diff(edges) / 1000, 1e-9)
    traces: list[Figure] = [
        {
            **{"x": _dates(edges[1:]), "y": _plain(speed.round()), "name": "steps a second"},
            **{"mode": "lines", "line": {"shape": "hv", "color": _LINE}, "fill": "tozeroy"},
        }
    ]
    if delivered:
        at, count = zip(*delivered, strict=True)
        arrived = {"x": _dates(at), "y": list(count), "name": "updates at the tracker"}
        traces.append({**arrived, "mode": "lines", "yaxis": "y2", "line": {"color": _STOPPED}})
    axes = _axes("", "environment steps a second")
    axes["xaxis"]["type"] = "date"
    second = {"overlaying": "y", "side": "right", "title": {"text": "updates"}, "showgrid": False}
    return {"data": traces, "layout": {**axes, "yaxis2": second}}


def _axes(x: str, y: str) -> Figure:
    return {"xaxis": {"title": {"text": x}}, "yaxis": {"title": {"text": y}}}


def _dates(milliseconds: Sequence[float] | np.ndarray) -> list[str]:
    return np.array(milliseconds, "datetime64[ms]").astype(str).tolist()


def _plain(values: Any) -> list[Any]:
    """Numbers for JSON, of five digits, None for what is none."""
    numbers = np.asarray(values, float).tolist()
    return [float(f"{number:.5g}") if math.isfinite(number) else None for number in numbers]


def short(value: Any) -> str:
    """A hyperparameter for people: floats to three figures."""
    return f"{value:.3g}" if isinstance(value, float) else format_cell(value)
