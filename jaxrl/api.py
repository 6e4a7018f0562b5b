"""Sweeps from Python: what ``python -m jaxrl.sweep`` does, in a call.

>>> from jaxrl import Space, SweepSpec, sweep
>>> space = Space({"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}, "learning_starts": 100})
>>> spec = SweepSpec(configs=4, steps=1_000, final_episodes=10, device="cpu")
>>> found = sweep(spec, "runs/first", space=space)
>>> len(found.results)
4
>>> found.policy().act([0.0, 0.0, 0.1, 0.0]) in (0, 1)
True
"""

import dataclasses
import pathlib
import time
from typing import Any

import pandas as pd
from rich.console import Console

from jaxrl.errors import InputError
from jaxrl.loader import Policy
from jaxrl.policy import load_policy
from jaxrl.preparation import prepare
from jaxrl.rundir import SPACE, RunDirectory
from jaxrl.runner import begin, resume
from jaxrl.saved import SavedSweep
from jaxrl.search.space import Space
from jaxrl.search.table import parse_cell
from jaxrl.specification import SweepSpec
from jaxrl.tracking.console import ConsoleDisplay
from jaxrl.tracking.session import Tracking


@dataclasses.dataclass(frozen=True)
class Sweep:
    """A sweep that has been trained, or as far as it was."""

    run_dir: pathlib.Path
    status: str
    """``finished`` or ``killed``."""
    spec: SweepSpec

    @property
    def results(self) -> pd.DataFrame:
        """``results.csv``: a row for each agent."""
        return _read(RunDirectory(self.run_dir).results)

    @property
    def finalists(self) -> pd.DataFrame:
        """``finalists.csv``: the same on fresh seeds, where there are finalists."""
        return _read(RunDirectory(self.run_dir).finalists)

    @property
    def report(self) -> pathlib.Path:
        """A page that shows it."""
        return RunDirectory(self.run_dir).report

    def policy(self, rank: int = 1) -> Policy:
        """One of its best policies.

        Raises:
            InputError: it has none of that rank.
        """
        path = RunDirectory(self.run_dir).best / str(rank)
        return load_policy(path, self.spec.network, self.spec.env)


def sweep(
    spec: SweepSpec = SweepSpec(),
    run_dir: str | pathlib.Path | None = None,
    *,
    space: Space | None = None,
    tracking: Tracking | None = None,
    experiment: str = "jaxrl",
    quiet: bool = True,
) -> Sweep:
    """Trains a sweep into a new ``run_dir``; where that holds this sweep already, goes on with it.

    Args:
        run_dir: None for a name of the time.
        space: instead of the one that ``spec`` names.
        tracking: where to, for instance ``Tracking("sqlite:///mlflow.db")``; None for nowhere.
        quiet: whether nothing is printed.

    Raises:
        InputError: something in it cannot be used, or another sweep is there; nothing was trained.
        SweepError: it cannot go on; what was done can be resumed.
    """
    for value, kind in ((spec, SweepSpec), (space, Space), (tracking, Tracking)):
        if value is not None and not isinstance(value, kind):
            raise InputError(f"sweep() takes a {kind.__name__}, and got {value!r}.")
    path = pathlib.Path(run_dir or f"runs/{time.strftime('%Y%m%d-%H%M%S')}")
    if space is not None:
        spec = dataclasses.replace(spec, space=str(path / SPACE))
    console = Console(quiet=quiet)
    if path.exists():
        saved = SavedSweep.read(path)
        given = {**dataclasses.asdict(spec), "experiment": experiment}
        if space is not None:
            del given["space"]  # its file, which may be called otherwise now
        saved.refuse_other(given)
        if space is not None and space.fix(spec.fixed) != saved.space:
            raise InputError(f"{path} holds a sweep of another space: give another run_dir.")
        prepared = saved.prepare()
        display = ConsoleDisplay(console, prepared.warnings)
        outcome = resume(saved, prepared, display=display, tracking=tracking)
    else:
        prepared = prepare(spec, space)
        display = ConsoleDisplay(console, prepared.warnings)
        outcome = begin(prepared, path, display=display, tracking=tracking, experiment=experiment)
    return Sweep(path, outcome.status, spec)


def _read(path: pathlib.Path) -> pd.DataFrame:
    """A table as it was written: lists as lists, infinities as such."""

    def value(cell: str) -> Any:
        return float(cell) if cell in ("nan", "inf", "-inf") else parse_cell(cell)

    return pd.read_csv(path, dtype=str, keep_default_na=False).map(value).infer_objects()
