"""Compiled programs of a shape on a device, and which of them take a tile where.

Cadence and every number of turns are arguments: one program trains every cadence of a shape.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxrl.dqn.hyperparameters import Cadence, Hyperparameters
from jaxrl.population.tile import Tile, TileFunctions

Traced = Callable[[], jax.stages.Lowered]
"""Traces a program, when it is called."""


class Programs:
    """Training and its helpers, compiled once each, ahead of their first use.

    There are three stages. The method that is called as one gives its programs by name, the dearest
    to compile first; traced, compiled and given to :meth:`use`, ``training`` brings what
    :meth:`advance` needs, and ``start``, ``evaluation`` ``evaluate``, and ``finishing`` ``finish``.
    """

    STAGES = ("training", "evaluation", "finishing")
    """In the order in which they are needed."""

    train: jax.stages.Compiled
    act: jax.stages.Compiled
    start: jax.stages.Compiled
    evaluate: jax.stages.Compiled
    finish: jax.stages.Compiled

    def __init__(self, functions: TileFunctions, device: jax.Device) -> None:
        self.functions = functions
        self.device = device
        self.ready: set[str] = set()
        """Stages that have been compiled."""

    def training(self) -> dict[str, Traced]:
        """What starts a tile and takes it through its steps."""
        tile, seeds, hyper, cadence, t = self._inputs()
        inputs = tile, seeds, hyper, t
        return {
            "train": self._program(self.functions.train, *inputs, cadence, t, t),
            "act": self._program(self.functions.act, *inputs, t),
            "start": self._program(self.functions.start, seeds, donate=False),
        }

    def evaluation(self) -> dict[str, Traced]:
        """The evaluation of a tile along the way."""
        tile, seeds, hyper, _, t = self._inputs()
        return {"evaluate": self._program(self.functions.evaluate, tile, seeds, hyper, t)}

    def finishing(self) -> dict[str, Traced]:
        """The final evaluation of a tile."""
        tile, seeds, hyper, _, t = self._inputs()
        inputs = tile.best_params, seeds, hyper, t
        return {"finish": self._program(self.functions.finish, *inputs, donate=False)}

    def use(self, stage: str, compiled: dict[str, jax.stages.Compiled]) -> None:
        """Takes over what a stage gave, compiled."""
        self.__dict__.update(compiled)
        self.ready.add(stage)

    def compile(self, stage: str) -> None:
        """Traces and compiles a stage, one program after another."""
        traced = getattr(self, stage)()
        self.use(stage, {name: program().compile() for name, program in traced.items()})

    def advance(
        self,
        tile: Tile,
        seeds: np.ndarray,
        hyper: Hyperparameters,
        cadence: Cadence,
        start: int,
        stop: int,
    ) -> Tile:
        """Takes a tile from step ``start`` to ``stop``: acts through the warm-up, then trains in
        rounds, and acts through what is left after the last whole round."""
        every = int(np.gcd.reduce(np.ravel(cadence.train_freq)))
        first_start = int(np.min(hyper.learning_starts)) // every * every
        t = min(max(start, first_start), stop)
        last_end = max(t, stop // every * every)
        rounds = last_end // every - t // every
        cadence = jax.tree.map(np.int32, cadence)
        tile = self._act(tile, seeds, hyper, start, t)
        if rounds > 0:
            numbers = np.int32(t), cadence, np.int32(every), np.int32(rounds)
            tile = self.train(tile, seeds, hyper, *numbers)
        return self._act(tile, seeds, hyper, last_end, stop)

    def _act(
        self, tile: Tile, seeds: np.ndarray, hyper: Hyperparameters, start: int, stop: int
    ) -> Tile:
        """Takes the steps from ``start`` to ``stop`` without training."""
        if start == stop:
            return tile
        return self.act(tile, seeds, hyper, np.int32(start), np.int32(stop - start))

    def _inputs(self) -> tuple[Any, ...]:
        """Types of a tile, seeds, hyperparameters, cadence and a time."""
        seeds, *others = self.functions.inputs()
        return jax.eval_shape(self.functions.start, seeds), seeds, *others

    def _program(self, function: Callable[..., Any], *inputs: Any, donate: bool = True) -> Traced:
        """``function`` for the device, giving up its first argument if ``donate``."""
        sharding = jax.sharding.SingleDeviceSharding(self.device)
        placed = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), inputs
        )
        return lambda: jax.jit(function, donate_argnums=(0,) if donate else ()).lower(*placed)


class ProgramStore:
    """Programs by what they are for, so that one generation uses what another compiled."""

    def __init__(self) -> None:
        self._programs: dict[tuple[TileFunctions, jax.Device], Programs] = {}

    def get(self, functions: TileFunctions, device: jax.Device) -> Programs:
        """The programs that suit ``device``, perhaps not yet compiled."""
        return self._programs.setdefault((functions, device), Programs(functions, device))
