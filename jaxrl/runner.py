"""A sweep from its specification to its results: what ``python -m jaxrl.sweep`` composes."""

import bisect
import dataclasses
import importlib.metadata
import pathlib
import platform
import uuid
from collections.abc import Mapping
from typing import Any, Protocol

import jax
import numpy as np

from jaxrl.dqn import environment
from jaxrl.dqn.hyperparameters import Configuration
from jaxrl.errors import InputError
from jaxrl.policy import Policy
from jaxrl.population.devices import configure
from jaxrl.population.plan import Agent, Budget, Plan, make_plan
from jaxrl.population.train import Report, train
from jaxrl.rundir import RunDirectory, refuse_existing
from jaxrl.search.results import Results
from jaxrl.search.samplers import SAMPLERS
from jaxrl.search.space import check_parameter, check_seed, load_space
from jaxrl.search.table import read_table
from jaxrl.tracking.follower import Follower
from jaxrl.tracking.journal import Journal
from jaxrl.tracking.mlflow_tracker import MlflowTracker
from jaxrl.tracking.projection import Description, Projection

MAX_AGENTS = 1_000_000
MAX_EPISODES = 1_000_000
BEST_KEPT = 5
"""Policies saved in ``best/``."""
DRAIN_SECONDS = 60.0
"""How long the end of a sweep waits for its tracker."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepSpec:
    """Everything that decides a sweep's numbers. ``eval_every`` None is a twentieth of the steps."""

    space: str = "cartpole"
    configs: int = 128
    config_table: str | None = None
    sampler: str = "random"
    seeds: int = 1
    seed: int = 0
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    env: str = "CartPole-v1"
    steps: int = 50_000
    eval_every: int | None = None
    eval_episodes: int = 10
    final_episodes: int = 100
    select: str = "last"
    device: str = "auto"

    def __post_init__(self) -> None:
        for name in ("configs", "seeds", "steps", "eval_episodes", "final_episodes"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be 1 or more.")
        if self.configs * self.seeds > MAX_AGENTS:
            raise InputError(
                f"{self.configs} configurations of {self.seeds} seeds are more than {MAX_AGENTS:,} "
                "agents: use fewer --configs or --seeds."
            )
        for name in ("eval_episodes", "final_episodes"):
            if getattr(self, name) > MAX_EPISODES:
                raise InputError(f"{name} is {getattr(self, name)}; {MAX_EPISODES:,} is the most.")
        if self.steps >= 2**31:
            raise InputError(f"steps is {self.steps}; it must be below 2^31.")
        if self.eval_every is not None and self.eval_every < 1:
            raise InputError(f"eval_every is {self.eval_every}; it must be 1 or more.")
        check_seed(self.seed)

    @property
    def budget(self) -> Budget:
        every = self.eval_every or max(1, self.steps // 20)
        return Budget(self.steps, min(every, self.steps), self.eval_episodes, self.final_episodes)


@dataclasses.dataclass(frozen=True)
class PreparedSweep:
    """A checked sweep, ready to be trained; nothing has been compiled or written."""

    spec: SweepSpec
    plan: Plan
    configurations: tuple[Configuration, ...]
    configs: tuple[int, ...]
    """The configuration number of each agent of the plan."""
    warnings: tuple[str, ...]


class Display(Protocol):
    """What shows a sweep while it runs."""

    def start(self, plan: Plan, results: Results, follower: Follower | None) -> None: ...
    def update(self, report: Report) -> None: ...
    def stop(self) -> None: ...


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a sweep ended."""

    results: Results
    directory: RunDirectory
    finished: bool
    """False where it was interrupted."""
    tracked: bool | None
    """Whether the tracker has everything; None without one."""
    trouble: str | None
    """What kept the tracker from it."""
    tracking_uri: str | None


def prepare(spec: SweepSpec) -> PreparedSweep:
    """Draws or reads the configurations, checks everything, and plans.

    Raises:
        InputError: anything in the specification cannot be used.
    """
    values = _values(spec)
    configurations = tuple(
        Configuration.create({n: v for n, v in row.items() if n != "seed"}, spec.steps)
        for row in values
    )
    agents, configs = [], []
    for number, (row, configuration) in enumerate(zip(values, configurations, strict=True)):
        for k in range(spec.seeds):
            agents.append(Agent(configuration, check_seed(row.get("seed", spec.seed) + k)))
            configs.append(number)
    hardware = configure(spec.device)  # first: an environment's import starts JAX's backends
    plan = make_plan(agents, spec.budget, environment.make(spec.env), hardware)
    idle = sum(c.learning_starts >= spec.steps for c in configurations)
    warnings: tuple[str, ...] = ()
    if idle:
        warnings = (
            f"{idle} of {len(configurations)} configurations never train: their learning_starts is "
            f"not below the {spec.steps} steps.",
        )
    return PreparedSweep(spec, plan, configurations, tuple(configs), warnings)


def _values(spec: SweepSpec) -> list[dict[str, Any]]:
    """The values of each configuration by name, ``seed`` among them where it is given."""
    if spec.config_table is not None:
        rows = read_table(spec.config_table)
        if spec.seeds > 1 and any("seed" in row for row in rows):
            raise InputError(
                f"the table {spec.config_table} has a seed column, which names the one seed of each "
                f"configuration; --seeds {spec.seeds} contradicts it. Drop one of the two."
            )
        fixed = {name: check_parameter(name, value) for name, value in spec.fixed.items()}
        return [{**row, **fixed} for row in rows]
    space = load_space(spec.space).fix(spec.fixed)
    points = SAMPLERS[spec.sampler](spec.seed, spec.configs, len(space.varying))
    return [space.at(point) for point in points]


def run(
    sweep: PreparedSweep,
    run_dir: pathlib.Path,
    *,
    track: bool,
    tracking_uri: str | None,
    experiment: str,
    display: Display,
) -> Outcome:
    """Trains a prepared sweep into ``run_dir``; an interrupt ends it cleanly.

    Raises:
        InputError: the run directory exists or the tracker cannot be used; nothing was trained.
    """
    description = _describe(sweep, run_dir.name, experiment)
    refuse_existing(run_dir)
    tracker = MlflowTracker(tracking_uri, description) if track else None
    directory = RunDirectory(run_dir)
    directory.write_json("sweep.json", _sweep_json(sweep, description))
    journal = Journal(directory.journal)
    journal.append("begin")
    follower = Follower(directory.journal, Projection(description), tracker) if tracker else None
    results = Results(
        sweep.plan.agents, sweep.configs, sweep.spec.final_episodes, sweep.spec.select
    )
    if follower:
        follower.start()
    display.start(sweep.plan, results, follower)
    best = _Best(sweep, results)
    status, tracked = "failed", None
    try:
        for report in train(sweep.plan):
            _record(journal, report)
            results.update(report)
            best.update(report)
            display.update(report)
        status = "finished"
    except KeyboardInterrupt:
        status = "killed"
    finally:
        journal.append("end", status=status)
        journal.close()
        directory.write("results.csv", results.to_csv().encode())
        best.save(directory)
        display.stop()
        if follower and tracker:
            tracked = _close_tracker(follower, tracker, directory)
    return Outcome(
        results=results,
        directory=directory,
        finished=status == "finished",
        tracked=tracked,
        trouble=follower.trouble if follower else None,
        tracking_uri=tracker.uri if tracker else None,
    )


def _close_tracker(follower: Follower, tracker: MlflowTracker, directory: RunDirectory) -> bool:
    """Drains the follower and attaches the results; whether everything has arrived."""
    if not follower.finish(DRAIN_SECONDS):
        return False
    try:
        for name in ("results.csv", "sweep.json"):
            tracker.log_artifact(directory.path / name)
    except Exception:  # whatever the client raises: the files are in the run directory
        return False
    return True


def _record(journal: Journal, report: Report) -> None:
    """Writes what a report says to the journal."""
    for kind, metrics in (("evaluation", report.evaluation), ("final", report.final)):
        if metrics is not None:
            journal.append(kind, step=report.step, agents=report.agents, metrics=metrics)


class _Best:
    """Keeps the parameters of the best few agents as they finish."""

    def __init__(self, sweep: PreparedSweep, results: Results) -> None:
        self._sweep = sweep
        self._results = results
        self._kept: list[tuple[tuple[Any, ...], Policy]] = []

    def update(self, report: Report) -> None:
        if report.final is None or report.params is None:
            return
        select = self._sweep.spec.select
        for place, index in enumerate(report.agents):
            order = self._results.agent_order(index)
            if len(self._kept) < BEST_KEPT or order < self._kept[-1][0]:
                params = jax.tree.map(lambda x, i=place: x[i], report.params[select])
                mean, std = (x[place] for x in report.params["normalisation"])
                entry = (order, self._policy(index, params, mean, std))
                bisect.insort(self._kept, entry, key=lambda kept: kept[0])
                del self._kept[BEST_KEPT:]

    def _policy(self, index: int, params: Any, mean: np.ndarray, std: np.ndarray) -> Policy:
        agent, result = self._sweep.plan.agents[index], self._results.of_agent[index]
        return Policy(
            env_id=self._sweep.spec.env,
            num_actions=self._sweep.plan.env.num_actions,
            configuration=dataclasses.asdict(agent.configuration),
            seed=agent.seed,
            observation_mean=mean,
            observation_std=std,
            params=params,
            scores={
                "config": result.config,
                "eval_return_mean": result.eval_return_mean,
                "best_return_mean": result.best_return_mean,
            },
        )

    def save(self, directory: RunDirectory) -> None:
        """Writes them to ``best/1``, ``best/2``, …, the best first."""
        for rank, (_, policy) in enumerate(self._kept, start=1):
            for name, content in policy.files().items():
                directory.write(f"best/{rank}/{name}", content)


def _describe(sweep: PreparedSweep, name: str, experiment: str) -> Description:
    spec = dataclasses.asdict(sweep.spec)
    fixed = spec.pop("fixed")
    params = {n: v for n, v in spec.items() if v is not None}
    params |= {f"set.{name}": value for name, value in fixed.items()}
    params |= {"eval_every": sweep.spec.budget.eval_every, "agents": len(sweep.configs)}
    return Description(
        name=name,
        sweep_id=uuid.uuid4().hex,
        experiment=experiment,
        params=params,
        configurations=[dataclasses.asdict(c) for c in sweep.configurations],
        configs=sweep.configs,
        seeds=[agent.seed for agent in sweep.plan.agents],
    )


def _sweep_json(sweep: PreparedSweep, description: Description) -> dict[str, Any]:
    packages = ("jaxrl", "jax", "jaxlib", "flax", "optax", "gymnax", "numpy", "mlflow")
    versions = {name: _version(name) for name in packages}
    return {
        "spec": dataclasses.asdict(sweep.spec),
        "versions": {"python": platform.python_version(), **versions},
        "device": sweep.plan.hardware.description,
        **dataclasses.asdict(description),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
