"""Compiled programs of a shape on a device, and which of them take a tile where.

On a CPU the cadence is a runtime value: one program trains every cadence of a shape. A GPU asks the
host in every turn of a loop whose length was not known when it was compiled, so there the numbers of
turns are constants, and a tile gets anywhere by calls of programs of many steps and of one.
"""

import abc
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from jaxrl.dqn.hyperparameters import Cadence, Hyperparameters
from jaxrl.population.tile import Tile, TileFunctions

_Call = tuple[Any, ...]
"""A compiled program of a tile, and its arguments after tile, seeds and hyperparameters."""


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
        calls = (
            *self._acting(start, t),
            *self._training(cadence, t, last_end),
            *self._acting(last_end, stop),
        )
        for program, *arguments in calls:
            tile = program(tile, seeds, hyper, *arguments)
        return tile

    @abc.abstractmethod
    def _compile_steps(self) -> None:
        """Compiles what acts and trains."""

    @abc.abstractmethod
    def _acting(self, start: int, stop: int) -> Iterator[_Call]:
        """The calls that take the steps from ``start`` to ``stop`` without training."""

    @abc.abstractmethod
    def _training(self, cadence: Cadence, start: int, stop: int) -> Iterator[_Call]:
        """The calls that take the steps from ``start`` to ``stop``, a multiple of ``train_freq`` or
        ``start``, with the training that is due at each multiple."""

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
        inputs = self._tile_inputs()
        t = inputs[-1]
        self.act = self._compile(self.functions.act, *inputs, t)
        self.train = self._compile(self.functions.train, *inputs, Cadence(t, t), t)

    def _acting(self, start: int, stop: int) -> Iterator[_Call]:
        if start < stop:
            yield self.act, np.int32(start), np.int32(stop - start)

    def _training(self, cadence: Cadence, start: int, stop: int) -> Iterator[_Call]:
        rounds = stop // cadence.train_freq - start // cadence.train_freq
        if rounds > 0:
            yield self.train, np.int32(start), jax.tree.map(np.int32, cadence), np.int32(rounds)


class FixedPrograms(Programs):
    """For a GPU: cadence and numbers of turns are constants."""

    STEPS = 256
    """Environment steps, about, of the longest program."""

    def _compile_steps(self) -> None:
        inputs, functions = self._tile_inputs(), self.functions
        self.acts = {
            steps: self._compile(functools.partial(functions.act, steps=steps), *inputs)
            for steps in (self.STEPS, 1)
        }
        self.learns, self.trains = {}, {}
        for cadence in self.cadences:
            learn = functools.partial(functions.learn, cadence=cadence)
            train = functools.partial(
                functions.train, cadence=cadence, rounds=self._rounds(cadence)
            )
            self.learns[cadence] = self._compile(learn, *inputs)
            self.trains[cadence] = self._compile(train, *inputs)

    def _rounds(self, cadence: Cadence) -> int:
        """Rounds of one call of a cadence's training program."""
        return max(1, self.STEPS // cadence.train_freq)

    def _acting(self, start: int, stop: int) -> Iterator[_Call]:
        while start < stop:
            steps = self.STEPS if stop - start >= self.STEPS else 1
            yield self.acts[steps], np.int32(start)
            start += steps

    def _training(self, cadence: Cadence, start: int, stop: int) -> Iterator[_Call]:
        span = self._rounds(cadence) * cadence.train_freq
        while start < stop:
            if start % cadence.train_freq == 0 and start + span <= stop:
                yield self.trains[cadence], np.int32(start)
                start += span
            else:
                end = (start // cadence.train_freq + 1) * cadence.train_freq
                yield from self._acting(start, end)
                yield self.learns[cadence], np.int32(end)
                start = end


def programs(functions: TileFunctions, device: jax.Device, cadences: Sequence[Cadence]) -> Programs:
    """The programs that suit ``device``."""
    kind: type[Programs] = RuntimePrograms if device.platform == "cpu" else FixedPrograms
    return kind(functions, device, cadences)
