"""Writes ``report.html`` and the pictures of a run directory: at the end, and while a sweep runs."""

import io
import threading
import time

from jaxrl.conclusion import Conclusion
from jaxrl.dqn.environment import Environment
from jaxrl.episodes import Episodes, play
from jaxrl.errors import InputError, brief
from jaxrl.policy import load_policy
from jaxrl.report import pole
from jaxrl.report.data import SoFar
from jaxrl.report.page import build
from jaxrl.report.pictures import draw_curves, draw_importances
from jaxrl.rundir import RunDirectory

_EPISODES = 100
"""Of the winner, in Gymnasium."""
_PAUSE_SECONDS = 30.0
_REST = 30.0
"""Times what writing took, after which it is done again: it takes its time from the training."""


def write_report(sweep: SoFar, directory: RunDirectory, conclusion: Conclusion) -> None:
    """Writes what there is to say of a sweep that has ended, or is looked at in between."""
    episodes = _of_winner(sweep, directory)
    is_drawn = episodes is not None and sweep.saved.spec.env == pole.ENVIRONMENT
    page = build(
        sweep,
        conclusion,
        episodes.first if is_drawn and episodes else None,
        f"In Gymnasium's {sweep.saved.spec.env}: {episodes.describe()}" if episodes else None,
    )
    directory.write(directory.report.name, page.encode())


def write_pictures(sweep: SoFar, directory: RunDirectory, conclusion: Conclusion) -> None:
    """Writes those that there are, as PNG."""
    figures = [draw_curves(sweep), *map(draw_importances, [*conclusion.importances.values()][:1])]
    for path, figure in zip(directory.pictures, figures, strict=False):
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=150)
        directory.write(path.name, file.getvalue())


def _of_winner(sweep: SoFar, directory: RunDirectory) -> Episodes | None:
    """Of the best policy that has been saved, where Gymnasium has its environment."""
    spec = sweep.saved.spec
    try:
        return play(load_policy(directory.best / "1", spec.network, spec.env), _EPISODES)
    except InputError:
        return None


class LiveReport:
    """Keeps the report of a sweep that runs up to date, on a thread of its own."""

    def __init__(self, directory: RunDirectory, env: Environment) -> None:
        self.trouble: str | None = None
        """Why there is no report, or not the last."""
        self._directory = directory
        self._env = env
        self._sweep: SoFar | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="jaxrl-report", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def finish(self, conclusion: Conclusion | None) -> None:
        """Ends it, and writes the last one where there is a conclusion."""
        self._over.set()
        self._thread.join()
        if conclusion is not None:
            self._try(conclusion)

    def _run(self) -> None:
        pause = _PAUSE_SECONDS
        while not self._over.wait(pause):
            began = time.monotonic()
            self._try(None)
            pause = max(_PAUSE_SECONDS, _REST * (time.monotonic() - began))

    def _try(self, conclusion: Conclusion | None) -> None:
        """Whatever goes wrong with a report is no reason not to train."""
        directory = self._directory
        try:
            sweep = self._sweep = self._sweep or SoFar(directory.path)
            sweep.update()
            if conclusion is None:
                spec, history = sweep.saved.spec, sweep.history
                so_far = Conclusion(spec, self._env, history.results, history.finalists, False)
                directory.write(directory.report.name, build(sweep, so_far).encode())
            else:
                write_report(sweep, directory, conclusion)
                write_pictures(sweep, directory, conclusion)
            self.trouble = None
        except Exception as error:
            self.trouble = f"the report could not be written: {brief(error)}"
