"""Compiled programs of a shape on a device, and which of them take a tile where.

On a CPU the cadence is a runtime value: one program trains every cadence of a shape. A GPU asks the
host in every turn of a loop whose length was not known when it was compiled, so there the numbers of
turns are constants, and a tile gets anywhere by calls of programs of many steps and of one.
"""

import abc
import collections
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from jaxrl.dqn.hyperparameters import Cadence, Hyperparameters
from jaxrl.population.tile import Tile, TileFunctions

Traced = Callable[[], jax.stages.Lowered]
"""Traces a program, when it is called."""
_Call = tuple[Any, ...]
"""A compiled program of a tile, and its arguments after tile, seeds and hyperparameters."""


class Programs(abc.ABC):
    """Training and its helpers, compiled once each, ahead of their first use.

    There are three stages. The method that is called as one gives its programs, a tree by name, the
    dearest to compile first; traced, compiled and given to :meth:`use`, ``training`` brings ``start``
    and what :meth:`advance` needs, ``evaluation`` ``evaluate``, and ``finishing`` ``finish``.
    """

    STAGES = ("training", "evaluation", "finishing")
    """In the order in which they are needed."""

    start: jax.stages.Compiled
    evaluate: jax.stages.Compiled
    finish: jax.stages.Compiled

    def __init__(
        self, functions: TileFunctions, device: jax.Device, cadences: Sequence[Cadence]
    ) -> None:
        self.functions = functions
        self.device = device
        self.cadences = tuple(cadences)
        self.ready: set[str] = set()
        """Stages that have been compiled."""

    def training(self) -> dict[str, Any]:
        """What starts a tile and takes it through its steps."""
        seeds, _, _ = self.functions.inputs()
        start = self._program(self.functions.start, seeds, donate=False)
        return collections.OrderedDict(**self._steps(), start=start)  # a tree that keeps its order

    def evaluation(self) -> dict[str, Any]:
        """The evaluation of a tile along the way."""
        return {"evaluate": self._program(self.functions.evaluate, *self._tile_inputs())}

    def finishing(self) -> dict[str, Any]:
        """The final evaluation of a tile."""
        tile, *inputs = self._tile_inputs()
        finish = self._program(self.functions.finish, tile.best_params, *inputs, donate=False)
        return {"finish": finish}

    def use(self, stage: str, compiled: dict[str, Any]) -> None:
        """Takes over what a stage gave, compiled."""
        self.__dict__.update(compiled)
        self.ready.add(stage)

    def compile(self, stage: str) -> None:
        """Traces and compiles a stage, one program after another."""
        self.use(stage, jax.tree.map(lambda traced: traced().compile(), getattr(self, stage)()))

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
    def _steps(self) -> dict[str, Any]:
        """What acts and trains."""

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

    def _program(self, function: Callable[..., Any], *inputs: Any, donate: bool = True) -> Traced:
        """``function`` for the device, giving up its first argument if ``donate``."""
        sharding = jax.sharding.SingleDeviceSharding(self.device)
        placed = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), inputs
        )
        return lambda: jax.jit(function, donate_argnums=(0,) if donate else ()).lower(*placed)


class RuntimePrograms(Programs):
    """For a CPU: cadence and numbers of turns are arguments."""

    act: jax.stages.Compiled
    train: jax.stages.Compiled

    def _steps(self) -> dict[str, Any]:
        inputs = self._tile_inputs()
        t = inputs[-1]
        return {
            "train": self._program(self.functions.train, *inputs, Cadence(t, t), t),
            "act": self._program(self.functions.act, *inputs, t),
        }

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

    acts: dict[int, jax.stages.Compiled]
    learns: dict[Cadence, jax.stages.Compiled]
    trains: dict[Cadence, jax.stages.Compiled]

    def _steps(self) -> dict[str, Any]:
        inputs, functions = self._tile_inputs(), self.functions

        def learn(cadence: Cadence) -> Traced:
            return self._program(functools.partial(functions.learn, cadence=cadence), *inputs)

        def train(cadence: Cadence) -> Traced:
            rounds = self._rounds(cadence)
            fixed = functools.partial(functions.train, cadence=cadence, rounds=rounds)
            return self._program(fixed, *inputs)

        return {
            "trains": {cadence: train(cadence) for cadence in self.cadences},
            "learns": {cadence: learn(cadence) for cadence in self.cadences},
            "acts": {
                steps: self._program(functools.partial(functions.act, steps=steps), *inputs)
                for steps in (self.STEPS, 1)
            },
        }

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


class ProgramStore:
    """Programs by what they are for, so that one generation uses what another compiled."""

    def __init__(self) -> None:
        self._programs: dict[tuple[Any, ...], Programs] = {}

    def get(
        self, functions: TileFunctions, device: jax.Device, cadences: Sequence[Cadence]
    ) -> Programs:
        """The programs that suit ``device``, perhaps not yet compiled."""
        is_cpu = device.platform == "cpu"
        kind = RuntimePrograms if is_cpu else FixedPrograms
        key = functions, device, () if is_cpu else frozenset(cadences)
        return self._programs.setdefault(key, kind(functions, device, cadences))
