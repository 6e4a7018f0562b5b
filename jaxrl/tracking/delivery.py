"""What has been delivered to a tracker, kept in the run directory so that another process goes on.

``tracking/NAME.json``: where (``uri``, without a secret), which configurations (``track``), the
tracker's own ``state``, for each run how many of the updates that the journal gives have arrived, and
at some ``times`` (milliseconds since 1970) how many there were of all runs. Written now and then: what
arrived since is delivered again, which changes nothing.
"""

import collections
import contextlib
import hashlib
import json
import pathlib
import time
from typing import Any

from jaxrl.rundir import write_whole
from jaxrl.tracking.projection import RunUpdate

FOLDER = "tracking"
_WRITE_SECONDS = 5.0
_MOST_TIMES = 400


class Delivery:
    """The record of one tracker, at ``uri``, in a run directory."""

    def __init__(self, run_dir: pathlib.Path, uri: str) -> None:
        digest = hashlib.sha256(uri.encode()).hexdigest()[:12]
        self._path = run_dir / FOLDER / f"{digest}.json"
        self._uri = uri
        record = _read(self._path)
        self.state: dict[str, Any] = record.get("state", {})
        self.track: str | None = record.get("track")
        """Which configurations get a run there."""
        arrived = record.get("arrived", {})
        self._arrived = collections.Counter({key: int(n) for key, n in arrived.items()})
        self._before = self._arrived.copy()
        self._times: list[tuple[int, int]] = [(at, count) for at, count in record.get("times", [])]
        self._written = -_WRITE_SECONDS

    def is_new(self, update: RunUpdate) -> bool:
        """Whether an update had not arrived when this record was read; asked once for each, in the
        order of the journal."""
        key = _key(update)
        self._before[key] -= 1
        return self._before[key] < 0

    def arrived(self, update: RunUpdate, state: dict[str, Any]) -> None:
        """Notes that an update has arrived, after which the tracker's state is ``state``."""
        self._arrived[_key(update)] += update.count
        self.state = state
        if time.monotonic() - self._written > _WRITE_SECONDS:
            with contextlib.suppress(OSError):  # what is not noted is only said again
                self.write()

    def write(self) -> None:
        """Keeps the record."""
        self._times.append((time.time_ns() // 1_000_000, self._arrived.total()))
        if len(self._times) > _MOST_TIMES:
            self._times = self._times[::2]
        record: dict[str, Any] = {"uri": self._uri, "track": self.track, "state": self.state}
        record |= {"arrived": self._arrived, "times": self._times}
        self._path.parent.mkdir(exist_ok=True)
        write_whole(self._path, json.dumps(record).encode())
        self._written = time.monotonic()


def last_uri(run_dir: pathlib.Path) -> str | None:
    """Where a run directory was last delivered to."""
    return _last(run_dir, "uri")


def last_track(run_dir: pathlib.Path) -> str | None:
    """Which configurations got a run there."""
    return _last(run_dir, "track")


def deliveries(run_dir: pathlib.Path) -> list[tuple[int, int]]:
    """Times, in milliseconds since 1970, and how many updates had arrived by then where a run
    directory was last delivered to."""
    return [(at, count) for at, count in _last(run_dir, "times") or []]


def _last(run_dir: pathlib.Path, field: str) -> Any:
    paths = sorted((run_dir / FOLDER).glob("*.json"), key=lambda path: path.stat().st_mtime)
    return next((value for p in reversed(paths) if (value := _read(p).get(field))), None)


def _key(update: RunUpdate) -> str:
    return "parent" if update.config is None else str(update.config)


def _read(path: pathlib.Path) -> dict[str, Any]:
    """A record; an empty one where none can be read, so that everything is delivered again."""
    try:
        record = json.loads(path.read_text())
        return record if isinstance(record, dict) else {}
    except (OSError, ValueError):
        return {}
