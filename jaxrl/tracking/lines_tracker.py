"""Trackers that write lines: JSON to a file, or short ones to the console."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from jaxrl.errors import InputError, brief
from jaxrl.loader import Policy
from jaxrl.tracking.projection import RunUpdate


class JsonLinesTracker:
    """Appends every update to ``path``, a JSON object a line.

    A line tells everything new of a run; one that was written twice says the same twice.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.uri = f"jsonl:{path}"
        self.requests = 0
        self.notes: Sequence[str] = ()
        self.state: dict[str, Any] = {}
        self._path = path

    def go_on(self, state: Mapping[str, Any]) -> None: ...

    def connect(self) -> Sequence[str]:
        try:
            with self._path.open("ab"):
                pass
        except OSError as error:
            raise InputError(f"{self._path} cannot be written to: {brief(error)}.") from None
        return ()

    def apply(self, update: RunUpdate) -> None:
        self._write(dataclasses.asdict(update))

    def attach(self, path: pathlib.Path) -> None:
        is_text = path.suffix in (".csv", ".json")
        text = {"text": path.read_text()} if is_text else {"path": str(path)}
        self._write({"config": None, "artifact": path.name, **text})

    def keep(self, policy: Policy, name: str | None) -> None: ...

    def _write(self, content: dict[str, Any]) -> None:
        line = json.dumps(content, allow_nan=False, separators=(",", ":")) + "\n"
        with self._path.open("ab") as file:
            if file.tell() and not self._ends_with_a_line():
                file.write(b"\n")
            file.write(line.encode())

    def _ends_with_a_line(self) -> bool:
        with self._path.open("rb") as file:
            file.seek(-1, 2)
            return file.read() == b"\n"


class ConsoleTracker:
    """Prints a line for every update of a run."""

    def __init__(self, console: Console) -> None:
        self.uri = "console:"
        self.requests = 0
        self.notes: Sequence[str] = ()
        self.state: dict[str, Any] = {}
        self._console = console

    def go_on(self, state: Mapping[str, Any]) -> None: ...

    def connect(self) -> Sequence[str]:
        return ()

    def apply(self, update: RunUpdate) -> None:
        name = "sweep" if update.config is None else f"config {update.config}"
        latest = {metric.key: metric for metric in update.metrics}
        values = [f"{m.key} {m.value:.4g} at {m.step:,}" for m in latest.values()]
        values += [f"{key} {value}" for key, value in update.tags.items()]
        values += [update.status.lower()] if update.status else []
        if values:
            self._print(f"{name}: {', '.join(values)}")

    def attach(self, path: pathlib.Path) -> None:
        self._print(f"sweep: {path}")

    def keep(self, policy: Policy, name: str | None) -> None: ...

    def _print(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True, markup=False)
