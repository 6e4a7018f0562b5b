"""The run directory: ``sweep.json``, ``journal/``, ``checkpoints/``, ``results.csv``, ``best/``.

It is the whole truth of a sweep. Files that change are written beside their name and renamed.
"""

import contextlib
import json
import os
import pathlib
import shutil
from typing import Any

from jaxrl.errors import InputError

SPECIFICATION = "sweep.json"
SPACE = "space.yaml"


def refuse_existing(path: pathlib.Path) -> None:
    """Raises ``InputError`` where something is at ``path`` already."""
    try:
        is_there = path.exists() or path.is_symlink()
    except OSError as error:
        raise InputError(f"cannot look at the run directory {path}: {error.strerror}.") from None
    if is_there:
        raise InputError(
            f"the run directory {path} exists; nothing in it was changed. Give another --run-dir, or "
            "--resume to go on with the sweep in it."
        )


def write_whole(
    path: pathlib.Path, content: bytes, suffix: str = ".part", mode: int = 0o666
) -> None:
    """Writes a file whole or not at all: beside its name, with ``suffix``, and renamed.

    Args:
        mode: its permissions before the umask; 0o600 for a secret, from its first byte on.
    """
    part = path.with_name(path.name + suffix)
    part.unlink(missing_ok=True)  # what a process that was killed left has its own permissions
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
        os.replace(part, path)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink()
        raise


class RunDirectory:
    """The run directory at ``path``."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path

    @classmethod
    def make(cls, path: pathlib.Path) -> "RunDirectory":
        """A new one.

        Raises:
            InputError: something is there already, or it cannot be made.
        """
        refuse_existing(path)
        try:
            path.mkdir(parents=True)
        except OSError as error:
            raise InputError(f"cannot make the run directory {path}: {error}.") from None
        return cls(path)

    @property
    def journal(self) -> pathlib.Path:
        return self.path / "journal"

    @property
    def checkpoints(self) -> pathlib.Path:
        return self.path / "checkpoints"

    @property
    def results(self) -> pathlib.Path:
        return self.path / "results.csv"

    @property
    def finalists(self) -> pathlib.Path:
        return self.path / "finalists.csv"

    @property
    def report(self) -> pathlib.Path:
        return self.path / "report.html"

    @property
    def pictures(self) -> tuple[pathlib.Path, pathlib.Path]:
        """Of the learning curves, and of what mattered."""
        return self.path / "curves.png", self.path / "importances.png"

    @property
    def attachments(self) -> tuple[pathlib.Path, ...]:
        """What a tracker is given at the end, of what is there."""
        specification = self.path / SPECIFICATION
        files = (self.results, self.finalists, specification, self.report, *self.pictures)
        return tuple(path for path in files if path.exists())

    @property
    def best(self) -> pathlib.Path:
        return self.path / "best"

    def write_json(self, name: str, content: Any) -> None:
        """Writes ``content`` to ``name`` as indented JSON."""
        self.write(name, (json.dumps(content, indent=2) + "\n").encode())

    def write(self, name: str, content: bytes) -> None:
        """Writes ``name`` whole or not at all; a run directory that is gone is not made again."""
        for folder in [*pathlib.PurePath(name).parents][-2::-1]:
            (self.path / folder).mkdir(exist_ok=True)
        write_whole(self.path / name, content)

    def remove(self, path: pathlib.Path) -> None:
        """Removes a folder of the run directory, if it is there."""
        shutil.rmtree(path, ignore_errors=True)
