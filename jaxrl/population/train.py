"""Trains a planned population: a generator that yields one report a chunk.

Worker threads, one for each core or GPU, take the tiles chunk by chunk, always the one with most
left to do, so that an uneven number of tiles still keeps every core busy. Nobody passes an
evaluation step before every tile of its wave has reached it; a wave is what fits in memory. Reports
are read by whoever iterates, on another thread than those that feed the devices: a device waits for
neither reading nor writing.
"""

import concurrent.futures
import dataclasses
import itertools
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from jaxrl.dqn.environment import observation_statistics
from jaxrl.dqn.hyperparameters import Hyperparameters, Shape
from jaxrl.population.plan import Cohort, Plan, tile_seconds
from jaxrl.population.program import Programs, programs
from jaxrl.population.tile import HYPERPARAMETER_DTYPES, Evaluation, Tile, TileFunctions

CHUNK_SECONDS = 0.5
"""About how long a chunk occupies its device: short enough to stop soon and to share cores evenly,
long enough that its dispatch costs nothing."""
SHORTEST_CHUNK_SECONDS = 0.003
"""Of chunks cut short so that cores reach an evaluation step together."""


@dataclasses.dataclass(frozen=True)
class Report:
    """What the host learns from one chunk of one tile of n agents."""

    agents: np.ndarray
    """[n], indices into the plan's agents."""
    step: int
    """Environment steps that each of them has taken."""
    new_steps: int
    """How many of those in this chunk."""
    seconds: float
    """Time on the device."""
    shapes_ready: int
    """Of the plan's shapes, how many have been compiled for training."""
    evaluation: dict[str, np.ndarray] | None = None
    """At an evaluation step, arrays ``[n]``: ``eval_return_mean``, ``eval_return_std``,
    ``train_return_mean``, ``loss``, ``q_mean``, ``grad_norm``, ``epsilon``, ``updates``,
    ``diverged``. NaN is what is not known yet."""
    final: dict[str, np.ndarray] | None = None
    """After the last step, arrays ``[n]``: ``last_mean``, ``last_std``, ``best_mean``, ``best_std``
    of fresh episodes, ``diverged``."""
    params: dict[str, Any] | None = None
    """With ``final``, on the host: parameter trees ``last`` and ``best``, each leaf ``[n, …]``, and
    ``normalisation``, mean and standard deviation ``[n, O]`` of observations."""


_TRAINING, _EVALUATION, _FINISHING = Programs.STAGES


def train(plan: Plan) -> Iterator[Report]:
    """Trains every agent of ``plan``, from the first step to the final evaluation.

    Closing the generator stops the devices after the chunks under way. An error in a worker is
    raised here.
    """
    run = _Run(plan)
    run.start()
    try:
        yield from run.reports()
    finally:
        run.stop()


@dataclasses.dataclass
class _TileRun:
    """A tile on its way through training."""

    cohort: Cohort
    agents: np.ndarray
    wave: int
    """Tiles of a later wave wait until those of earlier ones have given their memory back."""
    programs: Programs
    """On the device that the tile lives on."""
    seeds: np.ndarray
    hyper: Hyperparameters
    seconds_per_step: float
    """Predicted, then measured."""
    state: Tile | None = None
    step: int = 0
    busy: bool = False
    finished: bool = False


class _Run:
    """The state that the worker threads of one training share, under one lock."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._eval_steps = plan.budget.eval_steps
        self._programs = {
            (shape, device): programs(self._functions(shape), device, plan.cadences(shape))
            for device in dict.fromkeys(plan.hardware.devices)
            for shape in plan.shapes
        }
        self._tiles = self._make_tiles()
        self._compiled: set[tuple[str, Programs]] = set()
        self._changed = threading.Condition()
        self._stopping = False
        self._queue: queue.Queue[Report | BaseException] = queue.Queue()
        self._threads = [
            threading.Thread(target=self._guard, args=(self._work, device), name=f"jaxrl-{i}")
            for i, device in enumerate(plan.hardware.devices)
        ]
        self._threads.append(threading.Thread(target=self._guard, args=(self._compile,)))

    def start(self) -> None:
        for thread in self._threads:
            thread.daemon = True
            thread.start()

    def stop(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def reports(self) -> Iterator[Report]:
        finished = 0
        while finished < len(self._tiles):
            item = self._queue.get()
            if isinstance(item, BaseException):
                raise item
            finished += item.final is not None
            yield item

    def _make_tiles(self) -> list[_TileRun]:
        """The plan's tiles, each on the device that has the least to do so far."""
        plan, statistics = self._plan, _statistics(self._plan)
        load = dict.fromkeys(plan.hardware.devices, 0.0)
        tiles = []
        for wave, members in enumerate(plan.waves):
            for cohort, tile in members:
                seconds = tile_seconds(cohort, plan.env, 1, plan.tile_width(cohort.shape))
                device = min(load, key=load.__getitem__)
                load[device] += seconds
                programs = self._programs[cohort.shape, device]
                inputs = tile_inputs(plan, tile, statistics)
                tiles.append(_TileRun(cohort, np.array(tile), wave, programs, *inputs, seconds))
        return tiles

    def _functions(self, shape: Shape) -> TileFunctions:
        plan = self._plan
        return TileFunctions(
            shape,
            plan.env,
            width=plan.tile_width(shape),
            capacity=plan.capacity,
            eval_episodes=plan.budget.eval_episodes,
            final_episodes=plan.budget.final_episodes,
        )

    def _guard(self, target: Any, *args: Any) -> None:
        """Runs a thread's work; what it raises reaches the one who iterates."""
        try:
            target(*args)
        except BaseException as error:
            self._queue.put(error)

    def _compile(self) -> None:
        """Compiles the dearest shapes first; tiles of a shape start as soon as it is ready.

        Traces on this thread, in the order of need, since Python traces one program at a time
        anyhow, and compiles on two others.
        """
        cost: dict[Shape, float] = dict.fromkeys(self._plan.shapes, 0.0)
        for tile in self._tiles:
            cost[tile.cohort.shape] += tile.seconds_per_step
        order = sorted(self._programs, key=lambda of: cost[of[0]], reverse=True)
        with concurrent.futures.ThreadPoolExecutor(max_workers=2) as pool:
            ready = []
            for stage, of in itertools.product(Programs.STAGES, order):
                programs = self._programs[of]
                traced, tree = jax.tree.flatten(getattr(programs, stage)())
                compiling = [pool.submit(self._compile_one, program) for program in traced]
                ready.append(pool.submit(self._use, stage, programs, tree, compiling))
                if self._stopping:
                    break
            for stage_ready in ready:
                stage_ready.result()

    def _compile_one(self, traced: jax.stages.Lowered) -> jax.stages.Compiled | None:
        return None if self._stopping else traced.compile()

    def _use(
        self,
        stage: str,
        programs: Programs,
        tree: Any,
        compiling: Sequence[concurrent.futures.Future[Any]],
    ) -> None:
        """Waits for a stage's programs, which the pool has begun before this."""
        compiled = [one.result() for one in compiling]
        if self._stopping:
            return  # some may not have been compiled
        programs.use(tree.unflatten(compiled))
        with self._changed:
            self._compiled.add((stage, programs))
            self._changed.notify_all()

    def _work(self, device: jax.Device) -> None:
        while (taken := self._take(device)) is not None:
            tile, seconds = taken
            is_trained = tile.step == self._plan.budget.steps
            report = self._finish(tile) if is_trained else self._chunk(tile, seconds)
            self._queue.put(report)  # before another worker can take the tile and report of it
            with self._changed:
                tile.busy = False
                self._changed.notify_all()

    def _take(self, device: jax.Device) -> tuple[_TileRun, float] | None:
        """Waits for the tile of the device with the most left to do before it may go no further;
        the tile, and for about how many seconds it should be trained now."""
        with self._changed:
            while not self._stopping:
                left = [tile for tile in self._tiles if not tile.finished]
                if not left:
                    return None
                wave = [tile for tile in left if tile.wave == left[0].wave]
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

    def _barrier(self, wave: Sequence[_TileRun]) -> int:
        """The evaluation step that no tile of the wave may pass yet."""
        slowest = min(tile.step for tile in wave)
        return next((step for step in self._eval_steps if step > slowest), self._eval_steps[-1])

    def _chunk_seconds(self, wave: Sequence[_TileRun], device: jax.Device, barrier: int) -> float:
        """How long the next chunk lasts: shorter the less is left before the barrier, so that the
        workers of a device get there together (guided self-scheduling, Polychronopoulos and Kuck
        1987, doi 10.1109/TC.1987.5009495)."""
        workers = self._plan.hardware.devices.count(device)
        if workers == 1:
            return CHUNK_SECONDS
        mine = (tile for tile in wave if tile.programs.device == device)
        left = sum((barrier - tile.step) * tile.seconds_per_step for tile in mine)
        return min(CHUNK_SECONDS, max(SHORTEST_CHUNK_SECONDS, left / (2 * workers)))

    def _is_ready(self, tile: _TileRun, device: jax.Device, barrier: int) -> bool:
        if tile.busy or tile.programs.device != device:
            return False
        is_trained = tile.step == self._plan.budget.steps
        stage = _FINISHING if is_trained else _TRAINING
        return (is_trained or tile.step < barrier) and (stage, tile.programs) in self._compiled

    def _chunk(self, tile: _TileRun, chunk_seconds: float) -> Report:
        """Trains a tile up to the next evaluation step, or for about ``chunk_seconds``."""
        programs, seeds, hyper = tile.programs, tile.seeds, tile.hyper
        began = time.perf_counter()
        state = programs.start(seeds) if tile.state is None else tile.state
        next_evaluation = next(step for step in self._eval_steps if step > tile.step)
        length = max(1, int(chunk_seconds / tile.seconds_per_step))
        stop = min(next_evaluation, tile.step + length)
        state = programs.advance(state, seeds, hyper, tile.cohort.cadence, tile.step, stop)
        jax.block_until_ready(state.sums)
        trained = time.perf_counter() - began
        evaluation = None
        if stop == next_evaluation and self._can_evaluate(programs):
            state, values = programs.evaluate(state, seeds, hyper, np.int32(stop))
            evaluation = _evaluation(self._rows(tile, values))
        new_steps = stop - tile.step
        tile.seconds_per_step = trained / new_steps
        tile.state, tile.step = state, stop
        seconds = time.perf_counter() - began
        ready = self._shapes_ready()
        return Report(tile.agents, stop, new_steps, seconds, ready, evaluation)

    def _can_evaluate(self, programs: Programs) -> bool:
        """Waits until evaluation is compiled; false where the run is stopped before."""
        compiled = (_EVALUATION, programs)
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or compiled in self._compiled)
            return compiled in self._compiled

    def _shapes_ready(self) -> int:
        with self._changed:
            return len({p.functions.shape for stage, p in self._compiled if stage == _TRAINING})

    def _finish(self, tile: _TileRun) -> Report:
        """Evaluates a trained tile's policies on fresh episodes and gives its memory back."""
        assert tile.state is not None
        began = time.perf_counter()
        params = {"last": tile.state.learner.params, "best": tile.state.best_params}
        step = np.int32(tile.step)
        final = tile.programs.finish(params["last"], params["best"], tile.seeds, tile.hyper, step)
        normalisation = (tile.hyper.observation_mean, tile.hyper.observation_std)
        last, best = self._rows(tile, final)
        diverged = self._rows(tile, tile.state.learner.diverged)
        scores = {**_moments("last", last), **_moments("best", best), "diverged": diverged}
        network = tile.programs.functions.network
        params = {k: network.as_twin(self._rows(tile, v)) for k, v in params.items()}
        params["normalisation"] = self._rows(tile, normalisation)
        tile.state, tile.finished = None, True
        seconds = time.perf_counter() - began
        ready = self._shapes_ready()
        return Report(tile.agents, tile.step, 0, seconds, ready, final=scores, params=params)

    @staticmethod
    def _rows(tile: _TileRun, tree: Any) -> Any:
        """``tree`` on the host, without the lanes that only fill the tile."""
        return jax.tree.map(lambda x: np.array(x[: len(tile.agents)]), jax.device_get(tree))


def _evaluation(values: Evaluation) -> dict[str, np.ndarray]:
    """The fields of ``Report.evaluation``; means in double precision, so that they read well."""
    fields = values._asdict()
    returns = fields.pop("eval_returns")
    total, episodes = fields.pop("train_return_sum"), fields.pop("train_episodes")
    train_mean = np.where(episodes > 0, total.astype(float) / np.maximum(episodes, 1), np.nan)
    return {**_moments("eval_return", returns), "train_return_mean": train_mean, **fields}


def _moments(name: str, returns: np.ndarray) -> dict[str, np.ndarray]:
    """Mean and standard deviation of returns ``[n, E]`` over episodes."""
    returns = returns.astype(float)
    return {f"{name}_mean": returns.mean(axis=1), f"{name}_std": returns.std(axis=1)}


def tile_inputs(
    plan: Plan, tile: Sequence[int], statistics: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, Hyperparameters]:
    """Seeds and traced hyperparameters of a tile, ``[P, …]``, filled up with its first agent.

    Args:
        statistics: mean and standard deviation ``[O]`` of observations, for those who normalise.
    """
    width = plan.tile_width(plan.agents[tile[0]].configuration.shape)
    filled = [*tile, *[tile[0]] * (width - len(tile))]
    configurations = [plan.agents[index].configuration for index in filled]

    def column(name: str) -> np.ndarray:
        dtype = HYPERPARAMETER_DTYPES.get(name, np.float32)
        return np.array([getattr(c, name) for c in configurations], dtype)

    normalised = np.array([c.normalize_observations for c in configurations])[:, None]
    mean, std = statistics
    traced = [name for name in Hyperparameters._fields if not name.startswith("observation_")]
    hyper = Hyperparameters(
        **{name: column(name) for name in traced},  # type: ignore[arg-type]
        observation_mean=np.where(normalised, mean, 0).astype(np.float32),  # type: ignore[arg-type]
        observation_std=np.where(normalised, std, 1).astype(np.float32),  # type: ignore[arg-type]
    )
    return np.array([plan.agents[index].seed for index in filled], np.uint32), hyper


def _statistics(plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    """Observation statistics, computed only where an agent normalises."""
    size = plan.env.observation_size
    if not any(agent.configuration.normalize_observations for agent in plan.agents):
        return np.zeros(size), np.ones(size)
    mean, std = jax.jit(lambda: observation_statistics(plan.env))()
    return np.asarray(mean), np.asarray(std)
