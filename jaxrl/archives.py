"""The two files of a checkpoint: how they are written from front to back, and read.

``state-000003.npz`` has tiles without their replay and a manifest, ``replay-000003.npz`` the blocks of
replay that were written to since the checkpoint before. The manifest says in which files every tile
and every block is.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import time
import zipfile
from typing import Any, BinaryIO

import numpy as np

from jaxrl.errors import SweepError, brief
from jaxrl.population.snapshot import Snapshot

_MANIFEST = "manifest.json"

Place = tuple[int, int]
"""Where an array is: the checkpoint whose file has it, and the step of its snapshot."""


@dataclasses.dataclass
class Entry:
    """What a manifest says of a tile."""

    agents: list[int]
    leaves: int
    state: Place
    blocks: dict[int, Place]
    """By the first position of each block in the ring."""

    @classmethod
    def of_json(cls, fields: dict[str, Any]) -> "Entry":
        (number, step), blocks = fields["state"], fields["blocks"]
        places = {int(start): (holder, taken) for start, (holder, taken) in blocks.items()}
        return cls(fields["agents"], fields["leaves"], (number, step), places)

    def files(self) -> set[str]:
        numbers = {number for number, _ in self.blocks.values()}
        return {name_of("state", self.state[0]), *(name_of("replay", n) for n in numbers)}


@dataclasses.dataclass
class Manifest:
    """What a checkpoint has."""

    generation: int
    rungs: int
    """How many its tiles have passed."""
    entries: dict[int, Entry]
    """By tile."""


class Writing:
    """The two files of a checkpoint under way."""

    def __init__(self, directory: pathlib.Path, number: int) -> None:
        self.number = number
        self.states: dict[int, tuple[int, int]] = {}
        """For each tile the step of its snapshot and the number of its leaves."""
        self.blocks: dict[int, dict[int, int]] = {}
        """For each tile and the start of each block the step of its snapshot."""
        self.seconds, self.bytes = 0.0, 0
        names = (name_of("replay", number), name_of("state", number))
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


def read_manifest(path: pathlib.Path) -> Manifest:
    with zipfile.ZipFile(path) as archive:
        fields = json.loads(archive.read(_MANIFEST))
    entries = {int(tile): Entry.of_json(entry) for tile, entry in fields["entries"].items()}
    return Manifest(fields["generation"], fields["rungs"], entries)


def read_tile(directory: pathlib.Path, tile: int, entry: Entry) -> Snapshot:
    """A tile as a checkpoint in ``directory`` has it.

    Raises:
        SweepError: its files cannot be read.
    """
    number, step = entry.state
    try:
        with np.load(directory / name_of("state", number)) as file:
            leaves = [file[f"{tile}-{step}-{leaf}"] for leaf in range(entry.leaves)]
        blocks = {}
        for number in {number for number, _ in entry.blocks.values()}:
            with np.load(directory / name_of("replay", number)) as file:
                for start, (holder, taken) in entry.blocks.items():
                    if holder == number:
                        blocks[start] = file[f"{tile}-{taken}-{start}"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise SweepError(
            f"the checkpoint in {directory} could be read a moment ago and now cannot: {brief(error)}. "
            f"Nothing is lost: once it can, go on with --resume {directory.parent}."
        ) from error
    return Snapshot(tile, step, leaves, blocks)


def check(path: pathlib.Path) -> None:
    """Raises ``BadZipFile`` where anything in an archive is damaged."""
    with zipfile.ZipFile(path) as archive:
        if (damaged := archive.testzip()) is not None:
            raise zipfile.BadZipFile(damaged)


def name_of(kind: str, number: int) -> str:
    return f"{kind}-{number:06d}.npz"


def number_of(path: pathlib.Path) -> int:
    digits = re.findall(r"\d+", path.name)
    return int(digits[0]) if digits else 0
