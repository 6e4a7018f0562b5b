"""Tables of explicit configurations: CSV, or JSON as a list of objects.

Columns are hyperparameters, ``seed`` and ``schedule``. The result columns of a ``results.csv`` are
passed over, so that such a file, or a part of it, is itself a table.
"""

import csv
import functools
import io
import json
import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jaxrl.dqn.hyperparameters import NAMES
from jaxrl.errors import InputError
from jaxrl.search.parameters import check_parameter
from jaxrl.search.schedule import check_schedule

RESULT_COLUMNS = (
    "train_return_mean",
    "eval_return_mean",
    "eval_return_std",
    "eval_episodes",
    "best_return_mean",
    "env_steps",
    "updates",
    "diverged",
    "status",
)
"""What a sweep adds to a configuration and its seed, in the order of ``results.csv``."""

_IGNORED = {*RESULT_COLUMNS, "config"}


def read_table(path: str) -> list[dict[str, Any]]:
    """The configurations in a table, one a row: names to values, as given but checked.

    Raises:
        InputError: the file cannot be read, is empty or ragged, or a name or value in it is unknown.
    """
    file = pathlib.Path(path)
    try:
        text = file.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the table {path}: {error}.") from None
    rows = _read_json(text, path) if file.suffix.lower() == ".json" else _read_csv(text, path)
    if not rows:
        raise InputError(f"the table {path} has no configuration: give one a row.")
    return [_check_row(row, f"{path}, configuration {index}") for index, row in enumerate(rows)]


def format_cell(value: Any) -> str:
    """A value as a table cell: JSON, with ``inf``, ``-inf`` and ``nan``; floats round-trip."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, str):
        return value
    return json.dumps(value)


def write_table(names: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """CSV with a column for each of ``names``; blank where a row has no such value."""
    file = io.StringIO()
    writer = csv.DictWriter(file, list(names), lineterminator="\n")
    writer.writeheader()
    writer.writerows({n: format_cell(value) for n, value in row.items()} for row in rows)
    return file.getvalue()


def parse_cell(cell: str) -> Any:
    """What a table cell holds: JSON (or Python's True and False), else its text."""
    for text in (cell, cell.lower()):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            continue
    return cell.strip()


def _read_csv(text: str, path: str) -> list[dict[str, Any]]:
    try:
        lines = [line for line in csv.reader(text.splitlines()) if line]
    except csv.Error as error:
        raise InputError(f"the table {path} is not valid CSV: {error}.") from None
    if not lines:
        return []
    header = [name.strip() for name in lines[0]]
    if len(set(header)) < len(header):
        raise InputError(f"the table {path} names a column twice: {', '.join(header)}.")
    for name in header:
        _check_column(name, path)
    rows = []
    for number, line in enumerate(lines[1:]):
        if len(line) != len(header):
            raise InputError(
                f"the table {path} is ragged: configuration {number} has {len(line)} cells and the "
                f"header {len(header)}. Quote cells that hold commas."
            )
        cells = zip(header, line, strict=True)
        rows.append({name: parse_cell(cell) for name, cell in cells if cell.strip()})
    return rows


def _read_json(text: str, path: str) -> list[dict[str, Any]]:
    try:
        rows = json.loads(text, object_pairs_hook=functools.partial(_once, path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"the table {path} is not valid JSON: {error}.") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"the table {path} must be a JSON list of objects, one a configuration.")
    return rows


def _once(path: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        raise InputError(f"the table {path} has a name twice in {', '.join(names)}.")
    return dict(pairs)


def _check_row(row: dict[str, Any], where: str) -> dict[str, Any]:
    for name in row:
        _check_column(name, where)
    try:
        check_schedule(row.get("schedule", []))
        plain = {n: v for n, v in row.items() if n != "schedule" and n not in _IGNORED}
        checked = {n: check_parameter(n, v) for n, v in plain.items()}
        return {**checked, "schedule": row["schedule"]} if "schedule" in row else checked
    except InputError as error:
        raise InputError(f"in {where}: {error}") from None


def _check_column(name: str, where: str) -> None:
    known = (*NAMES, "seed", "schedule")
    if name not in known and name not in _IGNORED:
        raise InputError(f"in {where}: {InputError.unknown('column', name, known)}")
