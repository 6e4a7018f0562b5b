"""Checkpoints of a population: snapshots of its tiles, written in the background.

A replay that only grows is written once, since a checkpoint may point to blocks in the files of
earlier ones (:mod:`jaxrl.archives`). The last two checkpoints are kept, with the files that they need.
Files are written beside their name and then renamed, the state last: a network drive needs no more.
"""

import contextlib
import dataclasses
import functools
import json
import pathlib
import queue
import threading
import time
import zipfile
from collections.abc import Callable, Collection, Mapping, Sequence

from jaxrl.archives import (
    Entry,
    Manifest,
    Writing,
    check,
    number_of,
    read_manifest,
    read_tile,
)
from jaxrl.errors import brief
from jaxrl.population.report import Report, Rung
from jaxrl.population.snapshot import Control, SavedTile, Snapshot

_LEAST_INTERVAL, _LONGEST_WAIT = 0.1, 3600.0
SHORTEST_INTERVAL = 120.0
"""Seconds between checkpoints by default, where they are quick to write."""
WRITES_PER_INTERVAL = 20.0
"""Where they are not: so many times what the last one took."""
_KEPT = 2
_BYTES_PER_SECOND = 100e6  # of a drive of which nothing is known yet


class Checkpoints:
    """Writes checkpoints to ``directory`` on a thread of its own, from :meth:`start` to :meth:`close`.

    Args:
        control: of the training.
        every: seconds between checkpoints; None for the default, which the module's constants say.
        before_commit: called before a checkpoint takes its name, to see that what was reported
            before it is on disk.
        expected_bytes: of a first checkpoint, about.
        generation: whose tiles these are; checkpoints of another are passed over.
    """

    def __init__(
        self,
        directory: pathlib.Path,
        control: Control,
        every: float | None,
        before_commit: Callable[[], None],
        expected_bytes: int,
        generation: int = 0,
    ) -> None:
        self._directory = directory
        self._control = control
        self._every = every
        self._before_commit = before_commit
        self._generation = generation
        self._rungs = 0
        self._entries: dict[int, Entry] = {}
        self._agents: dict[int, list[int]] = {}
        self._begun: set[int] = set()
        self._queue: queue.Queue[Snapshot | Rung | int | None] = queue.Queue()
        self._thread = threading.Thread(target=self._run, name="jaxrl-checkpoints", daemon=True)
        self._discards = False
        self._write_seconds = 0.0
        self._bytes, self._bytes_per_second = expected_bytes, _BYTES_PER_SECOND
        self.trouble: str | None = None
        """Why the last checkpoint could not be written."""
        self.damaged: list[str] = []
        """Checkpoints that could not be read when it was loaded."""
        directory.mkdir(exist_ok=True)
        for part in directory.glob("*.part"):
            part.unlink()
        self._number = max(map(number_of, directory.glob("*.npz")), default=0)

    def load(
        self,
        layouts: Sequence[Mapping[int, Sequence[int]]],
        ended: Collection[int],
        anew: int,
    ) -> tuple[int, dict[int, SavedTile]]:
        """What the newest whole checkpoint has, and how many rungs it had passed; nothing and
        ``anew`` where there is none.

        Args:
            layouts: after each number of rungs the tiles, by number, with their agents.
            ended: agents; after the last rung, a tile of none but such is passed over.
        """
        gone = set(ended)
        for path in sorted(self._directory.glob("state-*.npz"), reverse=True):
            try:
                manifest = read_manifest(path)
                if manifest.generation != self._generation:
                    continue
                entries, tiles = manifest.entries, layouts[manifest.rungs]
                if any(entry.agents != list(tiles[i]) for i, entry in entries.items()):
                    continue  # of other tiles
                missing = [agents for i, agents in tiles.items() if i not in entries]
                if manifest.rungs > anew and not all(gone.issuperset(a) for a in missing):
                    continue  # those could not begin anew behind a rung
                for name in set().union(*(entry.files() for entry in entries.values())):
                    check(self._directory / name)
            except (OSError, ValueError, KeyError, TypeError, IndexError, zipfile.BadZipFile):
                self.damaged.append(path.name)
                with contextlib.suppress(OSError):
                    path.rename(path.with_suffix(".damaged"))  # it is told of once
                continue  # half of it is missing: the one before may be whole
            if manifest.rungs == len(layouts) - 1:
                entries = {i: e for i, e in entries.items() if not gone.issuperset(e.agents)}
            self._rungs, self._entries = manifest.rungs, entries
            saved = {
                i: SavedTile(e.state[1], functools.partial(read_tile, self._directory, i, e))
                for i, e in entries.items()
            }
            return manifest.rungs, saved
        self._rungs = anew
        return anew, {}

    def start(self) -> None:
        self._thread.start()

    def add(self, report: Report) -> None:
        """Hears of a report; what it says must have been written down before, all but a snapshot."""
        if report.rung is not None:
            self._agents |= {n: list(agents) for n, agents in report.rung.layout.agents.items()}
            self._queue.put(report.rung)
            return
        if report.final is not None:
            self._queue.put(report.tile)
            return
        self._agents[report.tile] = report.agents.tolist()
        self._begun.add(report.tile)
        if report.snapshot is not None:
            self._queue.put(report.snapshot)

    def seconds_to_write(self) -> float:
        """About how long the next checkpoint takes."""
        return self._bytes / self._bytes_per_second

    def close(self, discard: bool = False) -> None:
        """Writes a last checkpoint of the snapshots that were added since the one before, or not."""
        self._discards = discard
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        due = time.monotonic() + self._interval()
        writing: Writing | None = None
        while (item := self._receive(due)) is not None:
            if isinstance(item, int):  # a tile that has finished
                self._begun.discard(item)
                self._entries.pop(item, None)
            elif isinstance(item, Rung):
                if writing is not None:
                    writing.discard()  # of tiles of which some are no more
                writing = None
                self._pass(item)
            elif isinstance(item, Snapshot):
                writing = self._write(writing, item)
                self._control.release(item.size)
            if writing is not None and writing.states.keys() >= self._begun:
                self._commit(writing)
                writing, due = None, time.monotonic() + self._interval()
            elif time.monotonic() >= due:
                self._control.ask_for_snapshots()
                due = time.monotonic() + self._interval()
        if writing is not None and self._discards:
            writing.discard()
        elif writing is not None:
            self._commit(writing)

    def _pass(self, rung: Rung) -> None:
        """From now on there are the tiles after a rung."""
        self._rungs += 1
        self._begun = set(rung.layout.agents)
        self._entries = {n: e for n, e in self._entries.items() if n in self._begun}

    def _receive(self, due: float) -> Snapshot | Rung | int | tuple[()] | None:
        """The next that was added, or an empty tuple when a checkpoint is due."""
        try:
            return self._queue.get(timeout=min(max(due - time.monotonic(), 0.0), _LONGEST_WAIT))
        except queue.Empty:
            return ()

    def _interval(self) -> float:
        if self._every is not None:
            return max(self._every, _LEAST_INTERVAL)
        return max(SHORTEST_INTERVAL, WRITES_PER_INTERVAL * self._write_seconds)

    def _write(self, writing: Writing | None, snapshot: Snapshot) -> Writing | None:
        """Adds a snapshot to the checkpoint that is being written, or to a new one; passes over one
        that goes on from another that was lost."""
        if snapshot.since > self._step(writing, snapshot.tile):
            return writing
        try:
            if writing is None:
                self._number += 1
                writing = Writing(self._directory, self._number)
            writing.add(snapshot)
            return writing
        except Exception as error:
            self._fail(writing, error)
            return None

    def _step(self, writing: Writing | None, tile: int) -> int:
        """Up to which a tile's ring has been written to files."""
        if writing is not None and tile in writing.states:
            return writing.states[tile][0]
        return self._entries[tile].state[1] if tile in self._entries else 0

    def _commit(self, writing: Writing) -> None:
        entries = dict(self._entries)
        for tile, (step, leaves) in writing.states.items():
            if tile not in self._begun:
                continue  # it has finished meanwhile
            blocks = dict(entries[tile].blocks) if tile in entries else {}
            blocks |= {
                start: (writing.number, taken) for start, taken in writing.blocks[tile].items()
            }
            entries[tile] = Entry(self._agents[tile], leaves, (writing.number, step), blocks)
        manifest = Manifest(self._generation, self._rungs, entries)
        try:
            writing.close(json.dumps(dataclasses.asdict(manifest)))
            self._before_commit()
            writing.rename()
        except Exception as error:
            self._fail(writing, error)
            return
        self._entries = entries
        self._write_seconds = writing.seconds
        self._bytes = writing.bytes
        self._bytes_per_second = writing.bytes / max(writing.seconds, 1e-3)
        self.trouble = None
        self._remove_old()

    def _fail(self, writing: Writing | None, error: Exception) -> None:
        """Whatever it was: training goes on, and so does the next checkpoint."""
        self.trouble = f"no checkpoint: {brief(error)}"
        self._control.ask_whole()  # since blocks that were given are lost
        if writing is not None:
            writing.discard()

    def _remove_old(self) -> None:
        """All files but those that the last checkpoints need."""
        states = sorted(self._directory.glob("state-*.npz"))[-_KEPT:]
        needed = {path.name for path in states}
        for path in states:
            with contextlib.suppress(OSError, ValueError, KeyError, zipfile.BadZipFile):
                for entry in read_manifest(path).entries.values():
                    needed |= entry.files()
        for path in self._directory.glob("*.npz"):
            if path.name not in needed:
                with contextlib.suppress(OSError):
                    path.unlink()
