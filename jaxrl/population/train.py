"""Trains a planned population: a generator that yields one report a chunk.

Worker threads, one for each core or GPU, take the tiles chunk by chunk, always the one with most
left to do, so that an uneven number of tiles still keeps every core busy. Nobody passes an
evaluation step before every tile of its wave has reached it; a wave is what fits in memory. Reports
are read by whoever iterates, on another thread than those that feed the devices: a device waits for
neither reading nor writing. Only at a *rung* it waits: until the host has said which agents stop.
"""

import collections
import concurrent.futures
import functools
import queue
import threading
import time
import types
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxrl.dqn.hyperparameters import Cadence, Hyperparameters, Shape
from jaxrl.population.compiling import Compiler
from jaxrl.population.inputs import normalisation, tile_inputs
from jaxrl.population.layout import Layout, TilePlace, gather
from jaxrl.population.plan import Plan
from jaxrl.population.program import Programs, ProgramStore
from jaxrl.population.report import Report, Rung, evaluation_values
from jaxrl.population.snapshot import Control, SavedTile
from jaxrl.population.tile import TileFunctions
from jaxrl.population.tile_run import TileRun

CHUNK_SECONDS = 0.5
"""About how long a chunk occupies its device: short enough to stop soon and to share cores evenly,
long enough that its dispatch costs nothing."""
SHORTEST_CHUNK_SECONDS = 0.003
"""Of chunks cut short so that cores reach an evaluation step together."""


_TRAINING, _EVALUATION, _FINISHING = Programs.STAGES


def train(
    plan: Plan,
    control: Control | None = None,
    saved: Mapping[int, SavedTile] = types.MappingProxyType({}),
    finished: Collection[int] = (),
    rungs: Collection[int] = (),
    layout: Layout | None = None,
    store: ProgramStore | None = None,
) -> Generator[Report, None, None]:
    """Trains every agent of ``plan``, from the first step to the final evaluation.

    Closing the generator, or :meth:`Control.stop`, stops the devices after the chunks under way. An
    error in a worker is raised here.

    Args:
        control: what else the host asks for, while it goes on.
        saved: tiles that do not begin anew, by number.
        finished: numbers of tiles that have nothing left to do.
        rungs: evaluation steps at which everybody waits for :meth:`Control.decide`; the plan then
            has one wave.
        layout: of the tiles, where they have passed some rungs already; those that are left are in
            ``rungs``.
        store: of programs, for who trains more than one plan.
    """
    control, layout = control or Control(), layout or Layout.of(plan)
    run = _Run(plan, control, layout, saved, finished, rungs, store or ProgramStore())
    run.start()
    try:
        yield from run.reports()
    finally:
        run.stop()


class _Run:
    """The state that the worker threads of one training share, under one lock."""

    def __init__(
        self,
        plan: Plan,
        control: Control,
        layout: Layout,
        saved: Mapping[int, SavedTile],
        finished: Collection[int],
        rungs: Collection[int],
        store: ProgramStore,
    ) -> None:
        self._plan = plan
        self._control = control
        self._changed = control.changed
        self._eval_steps = plan.budget.eval_steps
        self._rungs = sorted(rungs)
        assert not self._rungs or len(plan.waves) == 1
        self._programs = {
            (shape, device): store.get(self._functions(shape), device)
            for device in dict.fromkeys(plan.hardware.devices)
            for shape in plan.shapes
        }
        with_others = concurrent.futures.ThreadPoolExecutor(1)  # it has to be compiled as well
        self._statistics = with_others.submit(normalisation, plan)
        with_others.shutdown(wait=False)
        self._layout = layout
        self._tiles = self._make_tiles(saved, finished)
        self._compiler = Compiler(self._order_of_need(), control)
        self._queue: queue.Queue[Report | BaseException | None] = queue.Queue()
        self._threads = [
            threading.Thread(target=self._guard, args=(self._work, device), name=f"jaxrl-{i}")
            for i, device in enumerate(plan.hardware.devices)
        ]
        self._threads.append(threading.Thread(target=self._guard, args=(self._compiler.run,)))

    def start(self) -> None:
        for thread in self._threads:
            thread.daemon = True
            thread.start()

    def stop(self) -> None:
        self._control.stop()
        for thread in self._threads:
            thread.join()

    def reports(self) -> Iterator[Report]:
        """Until every thread has ended; then the snapshots that are still to be taken."""
        ended = 0
        while ended < len(self._threads):
            item = self._queue.get()
            if isinstance(item, BaseException):
                raise item
            if item is None:
                ended += 1
            else:
                yield item
        if self._control.keep_rest:
            for tile in self._tiles:
                if tile.state is not None and tile.snapshots < self._control.wanted:
                    self._control.wait_for_room()
                    snapshot = tile.take_snapshot(self._control)
                    yield self._report(tile, 0, 0.0, snapshot=snapshot)

    def _make_tiles(
        self, saved: Mapping[int, SavedTile], finished: Collection[int]
    ) -> list[TileRun]:
        """The layout's tiles, each on the device that has the least to do so far."""
        load = dict.fromkeys(self._plan.hardware.devices, 0.0)
        tiles = []
        for place in self._layout.tiles:
            device = min(load, key=load.__getitem__)
            tile = self._make_tile(place, device)
            load[device] += tile.seconds_per_step
            if place.number in saved:
                tile.saved, tile.step = saved[place.number], saved[place.number].step
                tile.saved_step = tile.step
            tile.finished = place.number in finished
            tiles.append(tile)
        return tiles

    def _make_tile(self, place: TilePlace, device: jax.Device) -> TileRun:
        plan, cohort = self._plan, place.cohort
        seconds = plan.tile_seconds(cohort.shape, place.agents)
        layout, programs = self._layout, self._programs[cohort.shape, device]

        @functools.cache
        def inputs() -> tuple[np.ndarray, Hyperparameters, Cadence]:
            return tile_inputs(layout, place.agents, self._statistics.result())

        return TileRun(place, programs, inputs, seconds)

    def _order_of_need(self) -> list[Programs]:
        """The programs that have something to do, the dearest shapes first."""
        cost: dict[Shape, float] = dict.fromkeys(self._plan.shapes, 0.0)
        for tile in self._tiles:
            cost[tile.place.cohort.shape] += (not tile.finished) * tile.seconds_per_step
        needed = [of for of in self._programs if cost[of[0]]]
        return [self._programs[of] for of in sorted(needed, key=lambda of: -cost[of[0]])]

    def _functions(self, shape: Shape) -> TileFunctions:
        plan = self._plan
        return TileFunctions(
            shape,
            plan.env,
            width=plan.widths[shape],
            capacity=plan.capacity,
            eval_episodes=plan.budget.eval_episodes,
            final_episodes=plan.budget.final_episodes,
            mixed=plan.hardware.mixes_cadences,
        )

    def _guard(self, target: Any, *args: Any) -> None:
        """Runs a thread's work; what it raises reaches the one who iterates."""
        try:
            target(*args)
            self._queue.put(None)
        except BaseException as error:
            self._queue.put(error)

    def _work(self, device: jax.Device) -> None:
        while (taken := self._take(device)) is not None:
            tile, seconds = taken
            is_trained = tile.step == self._plan.budget.steps
            report = self._finish(tile) if is_trained else self._chunk(tile, seconds)
            self._queue.put(
                report
            )  # before another worker can take the tile, or one of the next wave
            with self._changed:
                tile.busy, tile.finished = False, is_trained
                self._changed.notify_all()

    def _take(self, device: jax.Device) -> tuple[TileRun, float] | None:
        """Waits for the tile of the device with the most left to do before it may go no further;
        the tile, and for about how many seconds it should be trained now."""
        with self._changed:
            while not self._control.stopping:
                self._pass_rung()
                left = [tile for tile in self._tiles if not tile.finished]
                if not left:
                    return None
                wave = [tile for tile in left if tile.place.wave == left[0].place.wave]
                barrier = self._barrier(wave)
                ready = [tile for tile in wave if self._is_ready(tile, device, barrier)]
                if ready:
                    tile = max(
                        ready, key=lambda tile: (barrier - tile.step) * tile.seconds_per_step
                    )
                    tile.busy = True
                    return tile, self._chunk_seconds(wave, device, barrier)
                self._changed.wait()
        return None

    def _barrier(self, wave: Sequence[TileRun]) -> int:
        """The evaluation step that no tile of the wave may pass yet."""
        slowest = min(tile.step for tile in wave)
        barrier = next((step for step in self._eval_steps if step > slowest), self._eval_steps[-1])
        return min(barrier, *self._rungs[:1], self._eval_steps[-1])

    def _pass_rung(self) -> None:
        """Lets those who stop go, once the host has said who, and puts the others together anew."""
        rung = next(iter(self._rungs), None)
        decided = self._control.decided
        left = [tile for tile in self._tiles if not tile.finished]
        if rung not in decided or any(tile.busy or tile.step < rung for tile in left):
            return
        del self._rungs[0]
        tiles = {tile.place.number: tile for tile in self._tiles}
        for tile in self._tiles:
            tile.saved_step = 0  # a checkpoint under way ends here, and what it had is lost
        self._layout = self._layout.after(decided[rung])
        self._tiles = list(self._put_all_together(tiles))
        passed = Rung(decided[rung], self._layout)
        nobody, ready = np.array([], int), self._compiler.shapes_ready()
        self._queue.put(Report(-1, nobody, rung, 0, 0.0, ready, rung=passed))
        self._changed.notify_all()

    def _put_all_together(self, tiles: Mapping[int, TileRun]) -> Iterator[TileRun]:
        """The layout's tiles, of those before it, whose memory is given back as soon as it can be."""
        waiting = collections.Counter(
            number
            for place in self._layout.tiles
            for number in {tile for tile, _ in place.sources} or {place.number}
        )
        for number in tiles.keys() - waiting.keys():
            tiles[number].state = None
        for place in self._layout.tiles:
            if not place.sources:
                yield tiles[place.number]  # it stays as it is
                continue
            yield self._put_together(place, tiles)
            for number in {tile for tile, _ in place.sources}:
                waiting[number] -= 1
                if not waiting[number]:
                    tiles[number].state = None

    def _put_together(self, place: TilePlace, tiles: Mapping[int, TileRun]) -> TileRun:
        sources = {number: tiles[number] for number, _ in place.sources}
        first = tiles[place.sources[0].tile]
        new = self._make_tile(place, first.programs.device)
        states = {
            number: jax.device_put(tile.current(), new.programs.device)
            for number, tile in sources.items()
        }
        width = self._plan.widths[place.cohort.shape]
        new.state = gather(states, place.sources, width)
        new.step, new.seconds_per_step = first.step, first.seconds_per_step
        return new

    def _chunk_seconds(self, wave: Sequence[TileRun], device: jax.Device, barrier: int) -> float:
        """How long the next chunk lasts: shorter the less is left before the barrier, so that the
        workers of a device get there together (guided self-scheduling, Polychronopoulos and Kuck
        1987, doi 10.1109/TC.1987.5009495)."""
        workers = self._plan.hardware.devices.count(device)
        if workers == 1:
            return CHUNK_SECONDS
        mine = (tile for tile in wave if tile.programs.device == device)
        left = sum((barrier - tile.step) * tile.seconds_per_step for tile in mine)
        return min(CHUNK_SECONDS, max(SHORTEST_CHUNK_SECONDS, left / (2 * workers)))

    def _is_ready(self, tile: TileRun, device: jax.Device, barrier: int) -> bool:
        if tile.busy or tile.programs.device != device:
            return False
        is_trained = tile.step == self._plan.budget.steps
        stage = _FINISHING if is_trained else _TRAINING
        return (is_trained or tile.step < barrier) and stage in tile.programs.ready

    def _chunk(self, tile: TileRun, chunk_seconds: float) -> Report:
        """Trains a tile up to the next evaluation step, or for about ``chunk_seconds``."""
        programs, (seeds, hyper, cadence) = tile.programs, tile.inputs()
        began = time.perf_counter()
        state = tile.current()
        next_evaluation = next(step for step in self._eval_steps if step > tile.step)
        length = max(1, int(chunk_seconds / tile.seconds_per_step))
        stop = min(next_evaluation, tile.step + length)
        state = programs.advance(state, seeds, hyper, cadence, tile.step, stop)
        jax.block_until_ready(state.sums)
        trained = time.perf_counter() - began
        evaluation = None
        if stop == next_evaluation:
            waiting = time.perf_counter()
            if not self._compiler.wait(_EVALUATION, programs):
                tile.state = None  # stopped: as if this chunk had not been
                return self._report(tile, 0, trained)
            began += time.perf_counter() - waiting  # compiling is no time of the device
            state, values = programs.evaluate(state, seeds, hyper, np.int32(stop))
            evaluation = evaluation_values(tile.rows(values))
        new_steps = stop - tile.step
        tile.seconds_per_step = trained / new_steps
        tile.state, tile.step = state, stop
        is_wanted = tile.snapshots < self._control.wanted and self._control.has_room
        snapshot = tile.take_snapshot(self._control) if is_wanted else None
        seconds = time.perf_counter() - began
        return self._report(tile, new_steps, seconds, evaluation=evaluation, snapshot=snapshot)

    def _report(self, tile: TileRun, new_steps: int, seconds: float, **fields: Any) -> Report:
        ready = self._compiler.shapes_ready()
        return Report(
            tile.place.number, tile.agents, tile.step, new_steps, seconds, ready, **fields
        )

    def _finish(self, tile: TileRun) -> Report:
        """Evaluates a trained tile's policies on fresh episodes and gives its memory back."""
        began = time.perf_counter()
        scores, params = tile.finish()
        seconds = time.perf_counter() - began
        return self._report(tile, 0, seconds, final=scores, params=params)
