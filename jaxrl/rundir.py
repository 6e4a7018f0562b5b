"""The run directory: ``sweep.json``, ``journal/``, ``results.csv``, ``best/``.

It is the whole truth of a sweep. Files that change are written beside their name and renamed.
"""

import json
import os
import pathlib
from typing import Any

from jaxrl.errors import InputError


def refuse_existing(path: pathlib.Path) -> None:
    """Raises ``InputError`` where something is at ``path`` already."""
    if path.exists() or path.is_symlink():
        raise InputError(
            f"the run directory {path} exists; nothing in it was changed. Give another --run-dir."
        )


class RunDirectory:
    """A new run directory at ``path``.

    Raises:
        InputError: something is there already, or it cannot be made.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        refuse_existing(path)
        try:
            path.mkdir(parents=True)
        except OSError as error:
            raise InputError(f"cannot make the run directory {path}: {error}.") from None

    @property
    def journal(self) -> pathlib.Path:
        return self.path / "journal"

    @property
    def results(self) -> pathlib.Path:
        return self.path / "results.csv"

    def write_json(self, name: str, content: Any) -> None:
        """Writes ``content`` to ``name`` as indented JSON."""
        self.write(name, (json.dumps(content, indent=2) + "\n").encode())

    def write(self, name: str, content: bytes) -> None:
        """Writes ``name`` whole or not at all."""
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(target.name + ".part")
        part.write_bytes(content)
        os.replace(part, target)
