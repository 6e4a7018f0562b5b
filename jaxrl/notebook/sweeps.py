"""Sweeps started from a notebook, and watched while they run."""

import csv
import html
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
from IPython.display import HTML, DisplayHandle, display

from jaxrl import child
from jaxrl.errors import InputError
from jaxrl.loader import DESCRIPTION
from jaxrl.notebook.setup import environment, own_database
from jaxrl.notebook.show import CURVES, as_image, check_finished
from jaxrl.notebook.stop import stops
from jaxrl.report.data import SoFar
from jaxrl.report.pictures import draw_curves
from jaxrl.search.generation import FRESH_SEED
from jaxrl.search.results import SELECTIONS
from jaxrl.tracking.credentials import VARIABLE

_LOOK_SECONDS = 2.0
_PICTURE_SECONDS = 8.0
_LAST_LINES = 24


@stops
def sweep(run_dir: str | pathlib.Path, *options: str) -> None:
    """Runs ``python -m jaxrl.sweep`` into ``run_dir`` and shows how it gets on.

    Where ``run_dir`` holds this sweep already, it goes on with that, so a notebook that is run again
    after its runtime was lost continues; what a tracker has missed is sent. Interrupting the cell ends
    the sweep as Ctrl-C does; what was done is kept.

    Args:
        options: of the command, such as ``"--configs", "1000"``.

    Raises:
        StopNotebook: it ended with an error, which is said, or was interrupted; or there is another
            sweep.
    """
    _run(pathlib.Path(run_dir), *options)


@stops
def retrain(
    run_dir: str | pathlib.Path, to: str | pathlib.Path, seeds: int = 8, episodes: int = 1000
) -> None:
    """Trains the configuration of the best policy in ``run_dir`` again, alone, from fresh seeds, and
    evaluates each over ``episodes`` greedy episodes.

    The score of a search flatters its winner, which was the luckiest of many; this one does not.
    """
    source, target = pathlib.Path(run_dir), pathlib.Path(to)
    check_finished(source)
    configuration = _read(source / "best" / "1" / DESCRIPTION)["configuration"]
    spec = _read(source / "sweep.json")["spec"]
    if (target / "sweep.json").exists():
        there = _read(target / "sweep.json")["configurations"]
        if there != [configuration]:
            raise InputError(
                f"{target} holds another configuration, trained again: give another folder, or "
                "remove it."
            )
    named_by = spec["final_seeds"] if spec["finalists"] else 0  # those are fresh no more
    fresh = FRESH_SEED + named_by
    table = source / "best.json"
    table.write_text(json.dumps([configuration]))
    _run(
        target,
        *["--config-table", str(table), "--seeds", str(seeds), "--seed", str(fresh)],
        *["--steps", str(spec["steps"]), "--env", spec["env"]],
        *(["--network", spec["network"]] if spec["network"] else []),
        *(["--eval-every", str(spec["eval_every"])] if spec["eval_every"] else []),
        *["--eval-episodes", str(spec["eval_episodes"]), "--final-episodes", str(episodes)],
        *["--select", spec["select"], "--device", spec["device"]],
    )
    with (target / "results.csv").open(newline="") as file:
        scores = np.array([float(row[SELECTIONS[spec["select"]]]) for row in csv.DictReader(file)])
    each = ", ".join(f"{score:.1f}" for score in scores)
    if len(scores) > 1:
        spread = scores.std(ddof=1) / np.sqrt(len(scores))
        print(f"fresh seeds: mean {scores.mean():.1f} (standard error {spread:.1f}); each: {each}")
    else:
        print(f"one fresh seed: {each}")


@stops
def download(run_dir: str | pathlib.Path) -> None:
    """Packs the best policies and the results of ``run_dir``, and the notebook's own MLflow file if
    it is tracked there; in Colab the browser takes the archive."""
    path = pathlib.Path(run_dir)
    check_finished(path)
    folder = path / "download"
    shutil.copytree(path / "best", folder / "best", dirs_exist_ok=True)
    shutil.copy(path / "results.csv", folder)
    is_own = os.environ.get(VARIABLE) == f"sqlite:///{own_database()}"
    if is_own and pathlib.Path(own_database()).exists():
        shutil.copy(own_database(), folder)
    archive = shutil.make_archive(str(path / f"{path.name}-best"), "zip", folder)
    shutil.rmtree(folder)
    try:
        from google.colab import files

        files.download(archive)
    except ImportError:
        print(archive)


def _read(path: pathlib.Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({type(error).__name__}).") from None


def _run(path: pathlib.Path, *options: str) -> None:
    """See :func:`sweep`."""
    is_begun = (path / "sweep.json").exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    process = child.start(
        [
            *[sys.executable, "-m", "jaxrl.sweep"],
            *["--resume" if is_begun else "--run-dir", str(path), *options],
        ],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    lines: deque[str] = deque(maxlen=_LAST_LINES)
    reader = threading.Thread(target=_listen, args=(process, lines), daemon=True)
    reader.start()
    view, is_interrupted = _View(path, lines), False
    while True:
        try:
            view.show(is_over=process.poll() is not None)
            if process.poll() is not None:
                break
            process.wait(_LOOK_SECONDS)
        except subprocess.TimeoutExpired:
            continue
        except KeyboardInterrupt:
            is_interrupted = True
            process.send_signal(signal.SIGINT)
    reader.join()
    view.show(is_over=True)
    if process.returncode == 0:
        if any(line.startswith("the journal has it all") for line in lines):
            print("run this cell again to send MLflow the rest")
    elif is_interrupted:
        raise InputError("interrupted; run this cell again to go on.")
    else:
        said = [line for line in lines if line.startswith("error: ")] or list(lines)[-1:]
        reason = said[-1].removeprefix("error: ") if said else "the sweep ended at once."
        if "another specification" in reason:
            reason += " In this notebook: another search needs another NAME."
        raise InputError(reason)


def _listen(process: subprocess.Popen, lines: deque[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip():
            lines.append(line.rstrip())


class _View:
    """A bar, what the sweep says, and the population's curves, drawn over the last ones."""

    def __init__(self, run_dir: pathlib.Path, lines: Sequence[str]) -> None:
        self._run_dir = run_dir
        self._lines = lines
        self._sweep: SoFar | None = None
        self._text: DisplayHandle = display(HTML(""), display_id=True)
        self._picture: DisplayHandle = display(HTML(""), display_id=True)
        self._drawn = -_PICTURE_SECONDS

    def show(self, is_over: bool) -> None:
        if self._sweep is None and (self._run_dir / "sweep.json").exists():
            self._sweep = SoFar(self._run_dir)
        elif self._sweep is not None:
            self._sweep.update()
        fraction = self._sweep.fraction if self._sweep else 0.0
        shown = list(self._lines) if is_over else list(self._lines)[-1:]
        said = html.escape("\n".join(shown) or "starting")
        self._text.update(HTML(_BAR.format(percent=f"{100 * fraction:.0f}", said=said)))
        is_due = time.monotonic() - self._drawn >= _PICTURE_SECONDS
        if self._sweep is not None and self._sweep.work and (is_due or is_over):
            self._picture.update(as_image(draw_curves(self._sweep), CURVES))
            self._drawn = time.monotonic()


_BAR = """<div style="max-width: 60em; font-family: sans-serif">
<div style="background: #cbd5e1; border-radius: 4px; height: 10px">
<div style="background: #1d4ed8; border-radius: 4px; height: 10px; width: {percent}%"></div></div>
<pre style="white-space: pre; overflow-x: auto; margin: 6px 0; font: 12px/1.4 monospace">{percent} %
{said}</pre></div>"""
