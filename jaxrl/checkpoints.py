"""Checkpoints of a population: snapshots of its tiles, written in the background.

Checkpoint 3 is two files: ``checkpoints/state-000003.npz``, tiles without their replay and a manifest,
and ``replay-000003.npz``, the blocks of replay that were written to since the checkpoint before. The
manifest says in which files every tile and every block is, so that a replay that only grows is
written once. The last two checkpoints are kept, with the files that they need. Files are written from
front to back beside their name and then renamed, the state last: a network drive needs no more.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import queue
import re
import threading
import time
import zipfile
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np

from jaxrl.errors import brief
from jaxrl.population.report import Report, Rung
from jaxrl.population.snapshot import Control, SavedTile, Snapshot

SHORTEST_INTERVAL = 120.0
"""Seconds between checkpoints by default, where they are quick to write."""
WRITES_PER_INTERVAL = 20.0
"""Where they are not: so many times what the last one took."""
_KEPT = 2
_MANIFEST = "manifest.json"
_BYTES_PER_SECOND = 100e6  # of a drive of which nothing is known yet

Place = tuple[int, int]
"""Where an array is: the checkpoint whose file has it, and the step of its snapshot."""


@dataclasses.dataclass
class _Entry:
    """What a manifest says of a tile."""

    agents: list[int]
    leaves: int
    state: Place
    blocks: dict[int, Place]
    """By the first position of each block in the ring."""

    @classmethod
    def of_json(cls, fields: dict[str, Any]) -> "_Entry":
        (number, step), blocks = fields["state"], fields["blocks"]
        places = {int(start): (holder, taken) for start, (holder, taken) in blocks.items()}
        return cls(fields["agents"], fields["leaves"], (number, step), places)

    def files(self) -> set[str]:
        numbers = {number for number, _ in self.blocks.values()}
        return {_name("state", self.state[0]), *(_name("replay", n) for n in numbers)}


@dataclasses.dataclass
class _Manifest:
    """What a checkpoint has."""

    generation: int
    rungs: int
    """How many its tiles have passed."""
    entries: dict[int, _Entry]
    """By tile."""


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
        self._entries: dict[int, _Entry] = {}
        self._agents: dict[int, list[int]] = {}
        self._begun: set[int] = set()
        self._queue: queue.Queue[Snapshot | Rung | int | None] = queue.Queue()
        self._thread = threading.Thread(target=self._run, name="jaxrl-checkpoints", daemon=True)
        self._discards = False
        self._write_seconds = 0.0
        self._bytes, self._bytes_per_second = expected_bytes, _BYTES_PER_SECOND
        self.trouble: str | None = None
        """Why the last checkpoint could not be written."""
        directory.mkdir(exist_ok=True)
        for part in directory.glob("*.part"):
            part.unlink()
        self._number = max(map(_number, directory.glob("*.npz")), default=0)

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
                manifest = _read_manifest(path)
                if manifest.generation != self._generation:
                    continue
                entries, tiles = manifest.entries, layouts[manifest.rungs]
                if any(entry.agents != list(tiles[i]) for i, entry in entries.items()):
                    continue  # of other tiles
                missing = [agents for i, agents in tiles.items() if i not in entries]
                if manifest.rungs > anew and not all(gone.issuperset(a) for a in missing):
                    continue  # those could not begin anew behind a rung
                for name in set().union(*(entry.files() for entry in entries.values())):
                    _check(self._directory / name)
            except (OSError, ValueError, KeyError, TypeError, IndexError, zipfile.BadZipFile):
                continue  # half of it is missing: the one before may be whole
            if manifest.rungs == len(layouts) - 1:
                entries = {i: e for i, e in entries.items() if not gone.issuperset(e.agents)}
            self._rungs, self._entries = manifest.rungs, entries
            saved = {i: SavedTile(e.state[1], self._loader(i, e)) for i, e in entries.items()}
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

    def _loader(self, index: int, entry: _Entry) -> Callable[[], Snapshot]:
        def load() -> Snapshot:
            number, step = entry.state
            with np.load(self._directory / _name("state", number)) as file:
                leaves = [file[f"{index}-{step}-{leaf}"] for leaf in range(entry.leaves)]
            blocks = {}
            for number in {number for number, _ in entry.blocks.values()}:
                with np.load(self._directory / _name("replay", number)) as file:
                    for start, (holder, taken) in entry.blocks.items():
                        if holder == number:
                            blocks[start] = file[f"{index}-{taken}-{start}"]
            return Snapshot(index, step, leaves, blocks)

        return load

    def _run(self) -> None:
        due = time.monotonic() + self._interval()
        writing: _Writing | None = None
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
            return self._queue.get(timeout=max(due - time.monotonic(), 0.0))
        except queue.Empty:
            return ()

    def _interval(self) -> float:
        if self._every is not None:
            return self._every
        return max(SHORTEST_INTERVAL, WRITES_PER_INTERVAL * self._write_seconds)

    def _write(self, writing: "_Writing | None", snapshot: Snapshot) -> "_Writing | None":
        """Adds a snapshot to the checkpoint that is being written, or to a new one."""
        try:
            if writing is None:
                self._number += 1
                writing = _Writing(self._directory, self._number)
            writing.add(snapshot)
            return writing
        except OSError as error:
            self._fail(writing, error)
            return None

    def _commit(self, writing: "_Writing") -> None:
        entries = dict(self._entries)
        for tile, (step, leaves) in writing.states.items():
            if tile not in self._begun:
                continue  # it has finished meanwhile
            blocks = dict(entries[tile].blocks) if tile in entries else {}
            blocks |= {
                start: (writing.number, taken) for start, taken in writing.blocks[tile].items()
            }
            entries[tile] = _Entry(self._agents[tile], leaves, (writing.number, step), blocks)
        manifest = _Manifest(self._generation, self._rungs, entries)
        try:
            writing.close(json.dumps(dataclasses.asdict(manifest)))
            self._before_commit()
            writing.rename()
        except OSError as error:
            self._fail(writing, error)
            return
        self._entries = entries
        self._write_seconds = writing.seconds
        self._bytes = writing.bytes
        self._bytes_per_second = writing.bytes / max(writing.seconds, 1e-3)
        self.trouble = None
        self._remove_old()

    def _fail(self, writing: "_Writing | None", error: OSError) -> None:
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
                for entry in _read_manifest(path).entries.values():
                    needed |= entry.files()
        for path in self._directory.glob("*.npz"):
            if path.name not in needed:
                path.unlink(missing_ok=True)


class _Writing:
    """The two files of a checkpoint under way."""

    def __init__(self, directory: pathlib.Path, number: int) -> None:
        self.number = number
        self.states: dict[int, tuple[int, int]] = {}
        """For each tile the step of its snapshot and the number of its leaves."""
        self.blocks: dict[int, dict[int, int]] = {}
        """For each tile and the start of each block the step of its snapshot."""
        self.seconds, self.bytes = 0.0, 0
        names = (_name("replay", number), _name("state", number))
        self._paths = [directory / name for name in names]
        self._parts = [path.with_name(path.name + ".part") for path in self._paths]
        self._files: list[BinaryIO] = []
        self._replay, self._state = (self._open(part) for part in self._parts)

    def _open(self, path: pathlib.Path) -> zipfile.ZipFile:
        file = path.open("wb")
        self._files.append(file)
        return zipfile.ZipFile(_Appended(file), "w")

    def add(self, snapshot: Snapshot) -> None:
        tile, step = snapshot.tile, snapshot.step
        if self.states.get(tile, (-1, 0))[0] == step:
            return  # nothing has changed since
        began = time.monotonic()
        for leaf, array in enumerate(snapshot.leaves):
            _write_array(self._state, f"{tile}-{step}-{leaf}", array)
        for start, array in snapshot.blocks.items():
            _write_array(self._replay, f"{tile}-{step}-{start}", array)
        self.states[tile] = (step, len(snapshot.leaves))
        self.blocks.setdefault(tile, {}).update(dict.fromkeys(snapshot.blocks, step))
        self.seconds += time.monotonic() - began
        self.bytes += snapshot.size

    def close(self, manifest: str) -> None:
        began = time.monotonic()
        self._state.writestr(_MANIFEST, manifest)
        for archive, file in zip((self._replay, self._state), self._files, strict=True):
            archive.close()
            file.flush()
            os.fsync(file.fileno())
            file.close()
        self.seconds += time.monotonic() - began

    def rename(self) -> None:
        for part, path in zip(self._parts, self._paths, strict=True):
            os.replace(part, path)

    def discard(self) -> None:
        for archive in (self._replay, self._state):
            with contextlib.suppress(OSError):
                archive.close()
        for file, part in zip(self._files, self._parts, strict=False):
            with contextlib.suppress(OSError):
                file.close()
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)


class _Appended:
    """A file that can only be appended to, so that an archive is written from front to back."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, data: bytes, /) -> int:
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def _write_array(archive: zipfile.ZipFile, name: str, array: np.ndarray) -> None:
    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
        np.lib.format.write_array(file, array, allow_pickle=False)


def _read_manifest(path: pathlib.Path) -> _Manifest:
    with zipfile.ZipFile(path) as archive:
        fields = json.loads(archive.read(_MANIFEST))
    entries = {int(tile): _Entry.of_json(entry) for tile, entry in fields["entries"].items()}
    return _Manifest(fields["generation"], fields["rungs"], entries)


def _check(path: pathlib.Path) -> None:
    """Raises ``BadZipFile`` where anything in an archive is damaged."""
    with zipfile.ZipFile(path) as archive:
        if (damaged := archive.testzip()) is not None:
            raise zipfile.BadZipFile(damaged)


def _name(kind: str, number: int) -> str:
    return f"{kind}-{number:06d}.npz"


def _number(path: pathlib.Path) -> int:
    digits = re.findall(r"\d+", path.name)
    return int(digits[0]) if digits else 0
