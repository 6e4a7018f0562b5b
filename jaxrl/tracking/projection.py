"""From the journal, which speaks of agents, to a tracker's runs, which stand for configurations.

A sweep is a parent run with one nested run for each configuration, whose metrics are means over its
seeds. A seed that diverged counts in no mean; nothing that is not finite is ever passed on.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxrl.search.generation import FINALISTS, SEARCH, VERIFICATION
from jaxrl.search.results import interquartile_mean
from jaxrl.search.schedule import CHANGEABLE
from jaxrl.search.table import format_cell
from jaxrl.tracking.journal import Record

METRICS = {
    "train_return_mean": "train/episode_return",
    "loss": "train/loss",
    "epsilon": "train/epsilon",
    "q_mean": "train/q_mean",
    "grad_norm": "train/grad_norm",
    "eval_return_mean": "eval/return_mean",
    "eval_return_std": "eval/return_std",
    "device_seconds": "cost/device_seconds",
}
"""A tracker's names for what an evaluation record holds."""

FINAL_METRICS = {
    "last_mean": "mean_reward",
    "last_std": "std_reward",
    "best_mean": "best_mean_reward",
    "best_std": "best_std_reward",
}
"""The same for a final record: the names of the hands-on-rl course where it has them."""

NAMES = {
    (SEARCH, "evaluation"): METRICS,
    (SEARCH, "final"): FINAL_METRICS,
    (VERIFICATION, "evaluation"): {"eval_return_mean": "verified/return_mean"},
    (VERIFICATION, "final"): {
        "last_mean": "verified_mean_reward",
        "best_mean": "verified_best_mean_reward",
    },
    (FINALISTS, "evaluation"): {
        "eval_return_mean": "fresh/return_mean",
        "eval_return_std": "fresh/return_std",
    },
    (FINALISTS, "final"): {
        "last_mean": "fresh_mean_reward",
        "best_mean": "fresh_best_mean_reward",
    },
}
"""A tracker's names by stage and kind of record: of further seeds other than of those before."""

COMPARED = {
    "search_score": "search_score",
    "fresh_iqm": "fresh_iqm",
    "fresh_low": "fresh_iqm_low",
    "fresh_high": "fresh_iqm_high",
    "solved": "fresh_solved",
    "flattery": "flattery",
}
"""The same for how finalists compare."""

_SAID = {VERIFICATION: "verified", FINALISTS: "finalist"}
"""Tags of runs that take part in these stages."""


@dataclasses.dataclass(frozen=True)
class Description:
    """What a tracker is told of a sweep before it starts."""

    name: str
    sweep_id: str
    experiment: str
    params: Mapping[str, Any]
    """The specification, flat."""
    configurations: Sequence[Mapping[str, Any]]
    configs: Sequence[int]
    """The configuration number of each agent."""
    seeds: Sequence[int]
    """The seed of each agent."""


@dataclasses.dataclass(frozen=True, slots=True)
class Metric:
    """One point of a curve; ``time`` in milliseconds since 1970."""

    key: str
    value: float
    time: int
    step: int


@dataclasses.dataclass
class RunUpdate:
    """What is new of one run: of a configuration, or of the parent (``config`` None)."""

    config: int | None
    time: int
    metrics: list[Metric] = dataclasses.field(default_factory=list)
    params: dict[str, str] = dataclasses.field(default_factory=dict)
    tags: dict[str, str] = dataclasses.field(default_factory=dict)
    status: str | None = None
    """``FINISHED``, ``KILLED`` or ``FAILED`` where the run has ended, at ``time``, and ``RUNNING``
    where an ended one goes on."""
    count: int = 1
    """Of how many updates this one consists."""

    @property
    def began(self) -> int:
        """Time of the first thing that it says, in milliseconds since 1970."""
        return min((metric.time for metric in self.metrics), default=self.time)

    def merge(self, later: "RunUpdate") -> None:
        """Takes in what came after."""
        self.metrics += later.metrics
        self.params |= later.params
        self.tags |= later.tags
        self.count += later.count
        if later.status is not None:
            self.status, self.time = later.status, later.time


def merge(updates: Iterable[RunUpdate]) -> list[RunUpdate]:
    """One update for each run, in the order in which the runs first appear."""
    merged: dict[int | None, RunUpdate] = {}
    for update in updates:
        if update.config in merged:
            merged[update.config].merge(update)
        else:
            merged[update.config] = update
    return list(merged.values())


class Projection:
    """Turns records into run updates, as soon as all seeds of a configuration have reported."""

    def __init__(self, description: Description) -> None:
        self._description = description
        self._configurations = dict(enumerate(description.configurations))
        self._configs = list(description.configs)
        """Of every agent so far."""
        self._seeds: dict[int, list[int]] = defaultdict(list)
        for config, seed in zip(description.configs, description.seeds, strict=True):
            self._seeds[config].append(seed)
        self._generation, self._stage = 0, SEARCH
        """How many generations with new configurations there were before."""
        self._left = len(self._configs)
        """Agents of this generation that have not been stopped."""
        self._waiting: dict[tuple[str, int, int], list[dict[str, Any]]] = defaultdict(list)
        self._population: dict[int, list[float | None]] = defaultdict(list)
        self._announced: set[int] = set()
        self._diverged: set[int] = set()
        self._ended: set[int] = set()
        self._closed: list[int] = []
        self._is_over = False

    def feed(self, record: Record) -> Iterator[RunUpdate]:
        """The updates that a record brings."""
        kind = record["kind"]
        if kind == "begin":
            yield RunUpdate(None, record["time"], status="RUNNING" if self._is_over else None)
            for config in self._closed:
                yield RunUpdate(config, record["time"], status="RUNNING")
            self._closed, self._is_over = [], False
        elif kind == "end":
            yield from self._end(record)
        elif kind == "generation":
            yield from self._begin(record)
        elif kind == "rung":
            yield from self._stop(record)
        elif kind == "copies":
            yield from self._copy(record)
        elif kind == "importances":
            yield self._weigh(record)
        elif kind == "finalists":
            yield from self._compare(record)
        else:
            yield from self._report(record)

    def _begin(self, record: Record) -> Iterator[RunUpdate]:
        """A generation: new configurations, or known ones on other seeds."""
        self._stage = record["stage"]
        self._generation += self._stage == SEARCH
        self._configs += record["configs"]
        self._left = len(record["configs"])
        self._configurations |= {int(c): v for c, v in record["configurations"].items()}
        self._seeds.clear()
        for config, seed in zip(record["configs"], record["seeds"], strict=True):
            self._seeds[config].append(seed)
        for config in self._seeds if self._stage in _SAID else ():
            yield RunUpdate(config, record["time"], tags={_SAID[self._stage]: "true"})

    def _stop(self, record: Record) -> Iterator[RunUpdate]:
        """A rung: the configurations of these agents end."""
        self._left -= len(record["agents"])
        for config in dict.fromkeys(self._configs[agent] for agent in record["agents"]):
            self._ended.add(config)
            tags = {"pruned_at": str(record["step"])}
            yield RunUpdate(config, record["time"], tags=tags, status="FINISHED")

    def _copy(self, record: Record) -> Iterator[RunUpdate]:
        """Agents that go on as copies: of which configuration, and with which hyperparameters."""
        rows = zip(record["agents"], record["sources"], record["configurations"], strict=True)
        for agent, source, values in rows:
            numbers = {
                f"pbt/{n}": v for n, v in values.items() if n in CHANGEABLE and _is_number(v)
            }
            points = {"pbt/source": self._configs[source], **numbers}
            metrics = [
                Metric(key, float(value), record["time"], record["step"])
                for key, value in points.items()
            ]
            yield RunUpdate(self._configs[agent], record["time"], metrics)

    def _weigh(self, record: Record) -> RunUpdate:
        """Which hyperparameters mattered, for what: in words, since a metric would be a chart."""
        tags = {
            f"importance/{what}": ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
            for what, shares in record["shares"].items()
        }
        return RunUpdate(None, record["time"], tags=tags)

    def _compare(self, record: Record) -> Iterator[RunUpdate]:
        """The finalists' scores on fresh seeds; the winner's are the parent's too."""
        for rank, row in enumerate(record["rows"], start=1):
            values = {key: row[name] for name, key in COMPARED.items() if row[name] is not None}
            metrics = [Metric(key, float(v), record["time"], 0) for key, v in values.items()]
            yield RunUpdate(row["config"], record["time"], metrics, tags={"final_rank": str(rank)})
            if rank == 1:
                tags = {"winner": str(row["config"])}
                yield RunUpdate(None, record["time"], list(metrics), tags=tags)

    def _report(self, record: Record) -> Iterator[RunUpdate]:
        for place, agent in enumerate(record["agents"]):
            values = {name: column[place] for name, column in record["metrics"].items()}
            config = self._configs[agent]
            key = (record["kind"], config, record["step"])
            self._waiting[key].append(values)
            if len(self._waiting[key]) == len(self._seeds[config]):
                yield self._update(record, config, self._waiting.pop(key))
            if record["kind"] == "evaluation" and self._stage == SEARCH:
                yield from self._curves(record, values)

    def _update(self, record: Record, config: int, seeds: Sequence[Mapping[str, Any]]) -> RunUpdate:
        is_over = record["kind"] == "final"
        sound = [values for values in seeds if not values.get("diverged")]
        update = RunUpdate(config, record["time"])
        for name, key in NAMES[self._stage, record["kind"]].items():
            finite = [values[name] for values in sound if values.get(name) is not None]
            if finite:
                mean = float(np.mean(finite))
                update.metrics.append(Metric(key, mean, record["time"], record["step"]))
        if config not in self._announced:
            self._announced.add(config)
            values = {**self._configurations[config], "seeds": self._seeds[config]}
            update.params = {name: format_cell(value) for name, value in values.items()}
            if self._generation:
                update.tags["generation"] = str(self._generation)
        if len(sound) < len(seeds) and config not in self._diverged:
            self._diverged.add(config)
            update.tags["diverged"] = "true"
        if is_over:
            self._ended.add(config)
            update.status = "FINISHED"
        return update

    def _curves(self, record: Record, values: Mapping[str, Any]) -> Iterator[RunUpdate]:
        """The population's curves, once every agent of the generation that is left has reached a
        step; a later generation's go on where the one before ended."""
        step = record["step"]
        reached = self._population[step]
        reached.append(None if values["diverged"] else values["eval_return_mean"])
        if len(reached) < self._left:
            return
        returns = [value for value in self._population.pop(step) if value is not None]
        if returns:
            curves = {
                "population/eval_return_best": max(returns),
                "population/eval_return_median": float(np.median(returns)),
                "population/eval_return_iqm": interquartile_mean(returns),
            }
            at = self._generation * int(self._description.params.get("steps", 0)) + step
            points = [Metric(key, value, record["time"], at) for key, value in curves.items()]
            yield RunUpdate(None, record["time"], points)

    def _end(self, record: Record) -> Iterator[RunUpdate]:
        """Closes the parent, and the runs that were begun and not finished."""
        status = record["status"].upper()
        left = sorted(self._announced - self._ended)
        for config in left:
            yield RunUpdate(config, record["time"], status=status)
        yield RunUpdate(None, record["time"], status=status)
        self._closed, self._is_over = left, True


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float))  # and no word for infinity
