"""Pictures of a sweep: how it learned, and which hyperparameters mattered."""

import csv
import pathlib
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from jaxrl.errors import InputError
from jaxrl.report.data import SoFar
from jaxrl.search.importance import FEWEST, shares
from jaxrl.search.table import parse_cell

_BEST_SHOWN = 5
_MOST_SHOWN = 12


def draw_curves(sweep: SoFar) -> Figure:
    """The population's evaluation returns against environment steps: its deciles and median, and the
    best agents as they are now."""
    steps, returns = sweep.table()
    figure = Figure(figsize=(7.5, 3.6), layout="constrained")
    axes = figure.subplots()
    reached = np.isfinite(returns).any(axis=1)
    steps, returns = steps[reached], returns[reached]
    if len(steps):
        low, median, high = np.nanquantile(returns, (0.1, 0.5, 0.9), axis=1)
        axes.fill_between(steps, low, high, alpha=0.2, label="eight of ten agents")
        axes.plot(steps, median, linewidth=2, label="median")
        known = np.flatnonzero(np.isfinite(returns).any(axis=0))
        last = np.array([column[np.isfinite(column)][-1] for column in returns[:, known].T])
        for agent in known[np.argsort(-last, kind="stable")[:_BEST_SHOWN]]:
            axes.plot(
                steps, returns[:, agent], linewidth=1, alpha=0.8, label=sweep.name(int(agent))
            )
        axes.legend(fontsize=8, loc="upper left")
    axes.set(xlabel="environment steps of each agent", ylabel="mean return of an evaluation")
    axes.set_xlim(0, sweep.saved.spec.steps)
    axes.grid(alpha=0.3)
    return figure


def importances(run_dir: pathlib.Path) -> dict[str, float]:
    """How much of the spread of ``eval_return_mean`` each hyperparameter that varies accounts for,
    the largest first; they sum to 1, see :mod:`jaxrl.search.importance`.

    Raises:
        InputError: there are no results, too few, or all alike.
    """
    rows = _finished_rows(run_dir / "results.csv")
    found = shares(rows, [row["eval_return_mean"] for row in rows])
    if not found:
        raise InputError(
            f"{run_dir}: {len(rows)} configurations say nothing of importance: it takes {FEWEST} "
            "or more, with different results."
        )
    return found


def draw_importances(shares: dict[str, float]) -> Figure:
    """A bar for each hyperparameter."""
    shown = list(shares.items())[:_MOST_SHOWN][::-1]
    figure = Figure(figsize=(7.5, 0.5 + 0.32 * len(shown)), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh([name for name, _ in shown], [share for _, share in shown])
    axes.bar_label(bars, fmt="{:.0%}", padding=3, fontsize=8)
    axes.set(xlabel="share of the spread in evaluation return (fANOVA)")
    axes.set_xlim(0, 1.1 * max(shares.values()))
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _finished_rows(path: pathlib.Path) -> list[dict[str, Any]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [{n: parse_cell(c) for n, c in row.items()} for row in csv.DictReader(file)]
        return [row for row in rows if np.isfinite(float(row["eval_return_mean"]))]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} cannot be read ({type(error).__name__}: {error}).") from None
