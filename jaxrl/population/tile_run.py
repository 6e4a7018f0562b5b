"""A tile on its way through training: where it is, and what only it is asked for."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxrl.dqn.hyperparameters import Cadence, Hyperparameters
from jaxrl.population.layout import TilePlace
from jaxrl.population.program import Programs
from jaxrl.population.report import moments
from jaxrl.population.snapshot import Control, SavedTile, Snapshot, restore, take_snapshot
from jaxrl.population.tile import Tile


@dataclasses.dataclass
class TileRun:
    """A tile on its way through training; one thread at a time works on it."""

    place: TilePlace
    programs: Programs
    """On the device that the tile lives on."""
    inputs: Callable[[], tuple[np.ndarray, Hyperparameters, Cadence]]
    """Gives its seeds, hyperparameters and cadence, once the statistics are there."""
    seconds_per_step: float
    """Predicted, then measured."""
    state: Tile | None = None
    saved: SavedTile | None = None
    """What it goes on from, until it does."""
    step: int = 0
    snapshots: int = 0
    """Which request was last answered."""
    saved_step: int = 0
    """The step of the last snapshot."""
    busy: bool = False
    finished: bool = False

    @property
    def agents(self) -> np.ndarray:
        return np.array(self.place.agents)

    def current(self) -> Tile:
        """Its state after its last chunk, or as it was saved, or at its beginning. It is kept, since
        another tile may need it too."""
        if self.state is None:
            programs, (seeds, *_) = self.programs, self.inputs()
            if self.saved is None:
                self.state = programs.start(seeds)
            else:
                like = jax.eval_shape(programs.functions.start, seeds)
                self.state = restore(self.saved.load(), like, programs.device)
                self.saved = None
        return self.state

    def take_snapshot(self, control: Control) -> Snapshot:
        """A snapshot as ``control`` wants it: of what is new since the last, or whole."""
        assert self.state is not None
        wanted = control.wanted  # first: a later request has to be answered again
        since = 0 if self.snapshots < control.wanted_whole else self.saved_step
        snapshot = take_snapshot(self.place.number, self.state, self.step, since)
        self.snapshots, self.saved_step = wanted, self.step
        control.hold(snapshot.size)
        return snapshot

    def finish(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Evaluates its policies, once trained, on fresh episodes and gives their memory back;
        ``final`` and ``params`` of :class:`~jaxrl.population.report.Report`."""
        state, (seeds, hyper, _) = self.current(), self.inputs()
        params = {"last": state.learner.params, "best": state.best_params}
        step = np.int32(self.step)
        returns = {k: self.programs.finish(v, seeds, hyper, step) for k, v in params.items()}
        final = {"diverged": self.rows(state.learner.diverged)}
        for name, of_policy in returns.items():
            final |= moments(name, self.rows(of_policy))
        network = self.programs.functions.network
        params = {k: network.as_twin(self.rows(v)) for k, v in params.items()}
        params["normalisation"] = self.rows((hyper.observation_mean, hyper.observation_std))
        self.state = None
        return final, params

    def rows(self, tree: Any) -> Any:
        """``tree`` on the host, without the lanes that only fill the tile."""
        count = len(self.place.agents)
        return jax.tree.map(lambda x: np.array(x[:count]), jax.device_get(tree))
