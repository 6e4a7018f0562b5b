"""Compiled programs of a shape on a device, and which of them take a tile where.

On a CPU the cadence is a runtime value: one program trains every cadence of a shape. A GPU asks the
host in every turn of a loop whose length was not known when it was compiled, so there the numbers of
turns are constants, and a tile gets anywhere by calls of programs of many steps and of one.
"""

import abc
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jaxrl.dqn.hyperparameters import Cadence, Hyperparameters
from jaxrl.population.tile import Tile, TileFunctions


class Programs(abc.ABC):
    """Training and its helpers, compiled once each, ahead of their first use.

    ``start`` and :meth:`advance` need :meth:`compile_training` first, ``evaluate``
    :meth:`compile_evaluation`, ``finish`` :meth:`compile_finish`.
    """

    def __init__(
        self, functions: TileFunctions, device: jax.Device, cadences: Sequence[Cadence]
    ) -> None:
        self.functions = functions
        self.device = device
        self.cadences = tuple(cadences)

    def compile_training(self) -> None:
        """Compiles what starts a tile and takes it through its steps."""
        seeds, _, _ = self.functions.inputs()
        self.start = self._compile(self.functions.start, seeds, donate=False)
        self._compile_steps()

    def compile_evaluation(self) -> None:
        """Compiles the evaluation of a tile along the way."""
        self.evaluate = self._compile(self.functions.evaluate, *self._tile_inputs())

    def compile_finish(self) -> None:
        """Compiles the final evaluation of a tile."""
        tile, *inputs = self._tile_inputs()
        params = tile.best_params
        self.finish = self._compile(self.functions.finish, params, params, *inputs, donate=False)

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
        first_start = int(np.min(hyper.learning_starts)) // cadence.train_freq * cadence.train_freq
        t = min(max(start, first_start), stop)
        last_end = max(t, stop // cadence.train_freq * cadence.train_freq)
        tile = self._act(tile, seeds, hyper, start, t)
        tile = self._train(tile, seeds, hyper, cadence, t, last_end)
        return self._act(tile, seeds, hyper, last_end, stop)

    @abc.abstractmethod
    def _compile_steps(self) -> None:
        """Compiles what :meth:`_act` and :meth:`_train` need."""

    @abc.abstractmethod
    def _act(
        self, tile: Tile, seeds: np.ndarray, hyper: Hyperparameters, start: int, stop: int
    ) -> Tile:
        """Takes the steps from ``start`` to ``stop`` without training."""

    @abc.abstractmethod
    def _train(
        self,
        tile: Tile,
        seeds: np.ndarray,
        hyper: Hyperparameters,
        cadence: Cadence,
        start: int,
        stop: int,
    ) -> Tile:
        """Takes the steps from ``start`` to ``stop``, a multiple of ``train_freq`` or ``start``,
        with the training that is due at each multiple."""

    def _tile_inputs(self) -> tuple[Any, ...]:
        """Types of a tile, seeds, hyperparameters and a time."""
        seeds, hyper, t = self.functions.inputs()
        return jax.eval_shape(self.functions.start, seeds), seeds, hyper, t

    def _compile(self, function: Callable[..., Any], *inputs: Any, donate: bool = True) -> Any:
        """``function`` for the device, giving up its first argument if ``donate``."""
        sharding = jax.sharding.SingleDeviceSharding(self.device)
        placed = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), inputs
        )
        return jax.jit(function, donate_argnums=(0,) if donate else ()).lower(*placed).compile()


class RuntimePrograms(Programs):
    """For a CPU: cadence and numbers of turns are arguments."""

    def _compile_steps(self) -> None:
        tile, seeds, hyper, t = self._tile_inputs()
        self.act = self._compile(self.functions.act, tile, seeds, hyper, t, t)
        self.train = self._compile(self.functions.train, tile, seeds, hyper, Cadence(t, t), t, t)

    def _act(
        self, tile: Tile, seeds: np.ndarray, hyper: Hyperparameters, start: int, stop: int
    ) -> Tile:
        if start == stop:
            return tile
        return self.act(tile, seeds, hyper, np.int32(start), np.int32(stop - start))

    def _train(
        self,
        tile: Tile,
        seeds: np.ndarray,
        hyper: Hyperparameters,
        cadence: Cadence,
        start: int,
        stop: int,
    ) -> Tile:
        rounds = stop // cadence.train_freq - start // cadence.train_freq
        if rounds == 0:
            return tile
        traced = jax.tree.map(np.int32, cadence)
        return self.train(tile, seeds, hyper, traced, np.int32(start), np.int32(rounds))


class FixedPrograms(Programs):
    """For a GPU: cadence and numbers of turns are constants."""

    STEPS = 256
    """Environment steps, about, of the longest program."""

    def _compile_steps(self) -> None:
        inputs = self._tile_inputs()
        self.acts = {
            steps: self._compile(functools.partial(self._fixed_act, steps), *inputs)
            for steps in (self.STEPS, 1)
        }
        self.learns, self.trains = {}, {}
        for cadence in self.cadences:
            learn = functools.partial(self._fixed_learn, cadence)
            train = functools.partial(self._fixed_train, cadence)
            self.learns[cadence] = self._compile(learn, *inputs)
            self.trains[cadence] = self._compile(train, *inputs)

    def _fixed_act(self, steps: int, tile: Tile, seeds: Any, hyper: Any, t: Any) -> Tile:
        return self.functions.act(tile, seeds, hyper, t, steps)

    def _fixed_learn(self, cadence: Cadence, tile: Tile, seeds: Any, hyper: Any, t: Any) -> Tile:
        return self.functions.learn(tile, seeds, hyper, cadence, t)

    def _fixed_train(self, cadence: Cadence, tile: Tile, seeds: Any, hyper: Any, t: Any) -> Tile:
        return self.functions.train(tile, seeds, hyper, cadence, t, self.rounds(cadence))

    def rounds(self, cadence: Cadence) -> int:
        """Rounds of one call of a cadence's training program."""
        return max(1, self.STEPS // cadence.train_freq)

    def _act(
        self, tile: Tile, seeds: np.ndarray, hyper: Hyperparameters, start: int, stop: int
    ) -> Tile:
        while start < stop:
            steps = self.STEPS if stop - start >= self.STEPS else 1
            tile = self.acts[steps](tile, seeds, hyper, np.int32(start))
            start += steps
        return tile

    def _train(
        self,
        tile: Tile,
        seeds: np.ndarray,
        hyper: Hyperparameters,
        cadence: Cadence,
        start: int,
        stop: int,
    ) -> Tile:
        train_freq = cadence.train_freq
        span = self.rounds(cadence) * train_freq
        while start < stop:
            if start % train_freq == 0 and start + span <= stop:
                tile = self.trains[cadence](tile, seeds, hyper, np.int32(start))
                start += span
            else:
                end = (start // train_freq + 1) * train_freq
                tile = self._act(tile, seeds, hyper, start, end)
                tile = self.learns[cadence](tile, seeds, hyper, np.int32(end))
                start = end
        return tile


def programs(functions: TileFunctions, device: jax.Device, cadences: Sequence[Cadence]) -> Programs:
    """The programs that suit ``device``."""
    kind: type[Programs] = RuntimePrograms if device.platform == "cpu" else FixedPrograms
    return kind(functions, device, cadences)
