"""Following a sweep: its journal, and what carries it to a tracker."""

import json
import pathlib
from typing import TYPE_CHECKING, Any

from jaxrl.errors import InputError
from jaxrl.tracking.journal import read

if TYPE_CHECKING:
    import pandas


def read_journal(run_dir: str | pathlib.Path) -> "pandas.DataFrame":
    """What a sweep has recorded so far, also while it runs: a row for each agent and evaluation.

    Columns are ``kind`` (``evaluation``, or ``final`` after the last step), ``config``, ``seed`` (from
    2^30 on that of a finalist), ``step`` (environment steps of the agent), ``time`` (UTC), then the
    metrics of :mod:`jaxrl.tracking.journal`, NaN where they do not apply or were not finite.

    Raises:
        InputError: ``run_dir`` is no run directory.
    """
    import pandas  # slow to import

    path = pathlib.Path(run_dir)
    try:
        sweep = json.loads((path / "sweep.json").read_text("utf-8"))
        configs, seeds = list(sweep["configs"]), list(sweep["seeds"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no run directory ({type(error).__name__}: {error}).") from None
    rows: list[dict[str, Any]] = []
    for record, _ in read(path / "journal"):
        if record["kind"] == "generation":
            configs += record["configs"]
            seeds += record["seeds"]
        if "metrics" not in record:
            continue
        for place, agent in enumerate(record["agents"]):
            row = {"kind": record["kind"], "config": configs[agent], "seed": seeds[agent]}
            row |= {"step": record["step"], "time": record["time"]}
            rows.append(row | {name: column[place] for name, column in record["metrics"].items()})
    table = pandas.DataFrame(
        rows, columns=None if rows else ["kind", "config", "seed", "step", "time"]
    )
    table["time"] = pandas.to_datetime(table["time"], unit="ms", utc=True)
    return table
