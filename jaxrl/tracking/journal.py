"""The journal: everything a sweep produced, appended to local disk before anyone else hears of it.

``journal/000000.jsonl``, ``000001.jsonl``, … are segments, one for each process that wrote. A line
is one record, a JSON object; whole lines only are read, so a torn tail does no harm. Append and
nothing else: it works on a network drive. Numbers that are not finite are written as null.

Records have ``kind`` and ``time`` (milliseconds since 1970, what every tracker is told) and:

* ``begin``;
* ``evaluation``: ``step``, ``agents`` (indices), ``metrics`` (names to one value an agent);
* ``final``: the same, after the last step;
* ``rung``: ``step`` and the ``agents`` that stop there;
* ``copies``: ``step``, the ``agents`` that go on as copies, their ``sources`` and ``configurations``;
* ``generation``: its number and stage, and of its agents configurations, seeds and the first number;
* ``finalists``, ``importances``: what is known at the end;
* ``end``: ``status``, ``finished``, ``killed`` (by the user) or ``failed``.
"""

import contextlib
import json
import math
import os
import pathlib
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from jaxrl.rundir import write_whole

Record = dict[str, Any]
KINDS = (
    *("begin", "evaluation", "final", "rung", "copies", "generation"),
    *("finalists", "importances", "end"),
)
DAMAGED = (LookupError, TypeError, ValueError, AttributeError)
"""What it raises to follow a record that is not what it should be."""


class Position(NamedTuple):
    """A place in a journal: a segment and a byte offset in it."""

    segment: int = 0
    offset: int = 0


class Journal:
    """Appends records to a new segment of ``directory``, a folder that is made where there is none.

    Args:
        after: time of the last record so far; none is given an earlier one, whatever the clock says.
    """

    def __init__(self, directory: pathlib.Path, after: int = 0) -> None:
        directory.mkdir(exist_ok=True)  # but not the run directory, were it gone
        self._file = _segment(directory, len(_segments(directory))).open("xb")
        self._time = after

    def append(self, kind: str, **fields: Any) -> None:
        """Writes one record and flushes it; ``numpy`` arrays become lists."""
        self._time = max(self._time, time.time_ns() // 1_000_000)
        record = {"kind": kind, "time": self._time, **fields}
        line = json.dumps(_plain(record), allow_nan=False, separators=(",", ":"))
        self._file.write(line.encode() + b"\n")
        self._file.flush()

    def sync(self) -> None:
        """Returns when what was appended is on the disk, not only on its way."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        with contextlib.suppress(OSError):  # a full disk: the error was raised before
            self._file.close()


def read(
    directory: pathlib.Path, start: Position = Position()
) -> Iterator[tuple[Record, Position]]:
    """The records of a journal from ``start`` on, each with the position after it.

    Ends at the last whole record; called again with the last position, it goes on from there.
    """
    for record, position in read_lines(directory, start):
        if record is not None:
            yield record, position


def read_lines(
    directory: pathlib.Path, start: Position = Position()
) -> Iterator[tuple[Record | None, Position]]:
    """The same, and None for a whole line that is no record: it is damaged."""
    for number in range(start.segment, len(_segments(directory))):
        offset = start.offset if number == start.segment else 0
        with open(_segment(directory, number), "rb") as file:
            file.seek(offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                offset += len(line)
                try:
                    record = json.loads(line)
                    is_whole = isinstance(record["kind"], str) and isinstance(record["time"], int)
                except (ValueError, TypeError, KeyError):
                    is_whole = False
                yield record if is_whole else None, Position(number, offset)


def cut(directory: pathlib.Path, end: Position) -> None:
    """Ends a journal at a position. The segments that had more are kept beside it, as ``*.damaged``."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    first, *later = _segments(directory)[end.segment :]
    for path in reversed(later):
        path.rename(path.with_name(f"{path.name}-{stamp}.damaged"))
    content = first.read_bytes()
    write_whole(first.with_name(f"{first.name}-{stamp}.damaged"), content)
    write_whole(first, content[: end.offset])


def has_ended(directory: pathlib.Path) -> bool:
    """Whether a journal's last record is an ``end``."""
    kind = None
    for record, _ in read(directory):
        kind = record["kind"]
    return kind == "end"


def _segments(directory: pathlib.Path) -> list[pathlib.Path]:
    return sorted(directory.glob("*.jsonl"))


def _segment(directory: pathlib.Path, number: int) -> pathlib.Path:
    return directory / f"{number:06d}.jsonl"


def _plain(value: Any) -> Any:
    """``value`` in JSON's types, with null for what is not finite."""
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain(value.tolist())
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
