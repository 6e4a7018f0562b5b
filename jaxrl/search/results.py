"""What each agent has reached, and who is ahead."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxrl.dqn.hyperparameters import NAMES
from jaxrl.population.layout import Copy
from jaxrl.population.plan import Agent
from jaxrl.population.report import Report
from jaxrl.search.models import Told
from jaxrl.search.schedule import to_json
from jaxrl.search.table import RESULT_COLUMNS, write_table

SELECTIONS = {"last": "eval_return_mean", "best": "best_return_mean"}
"""Which policy stands for a configuration, and the result column that ranks it."""
_SO_FAR = {"last": "latest_return_mean", "best": "highest_return_mean"}
"""The same before there are final evaluations: of those during training."""


@dataclasses.dataclass
class Result:
    """The row of one agent in ``results.csv``. Means are NaN until they are known."""

    config: int
    agent: Agent
    train_return_mean: float = math.nan
    eval_return_mean: float = math.nan
    eval_return_std: float = math.nan
    eval_episodes: int = 0
    best_return_mean: float = math.nan
    env_steps: int = 0
    updates: int = 0
    diverged: bool = False
    status: str = "killed"
    """``killed`` until the agent is finished, was pruned or has diverged."""
    device_seconds: float = 0.0
    """Of training and evaluating, its share of each tile's; as the next not in ``results.csv``."""
    evaluations: dict[int, float] = dataclasses.field(default_factory=dict)
    """Mean returns of the evaluations during training, by step."""
    latest_return_mean: float = math.nan
    """The last of these, and the next the highest, which another thread may read meanwhile."""
    highest_return_mean: float = math.nan

    def evaluation_at(self, step: int) -> float:
        """The mean return of an evaluation; NaN where it had diverged."""
        return math.nan if self.diverged else self.evaluations[step]

    @property
    def has_ended(self) -> bool:
        """Whether its final evaluation is known."""
        return self.status != "killed"

    @property
    def row(self) -> dict[str, Any]:
        configuration = dataclasses.asdict(self.agent.configuration)
        return {
            "config": self.config,
            "seed": self.agent.seed,
            **{name: configuration[name] for name in NAMES},
            "schedule": to_json(self.agent),
            **{name: getattr(self, name) for name in RESULT_COLUMNS},
        }


class Results:
    """The results of a sweep, kept up to date report by report.

    Args:
        agents: of every configuration, all its seeds.
        configs: the configuration number of each agent.
        final_episodes: episodes of the final evaluation.
        select: ``last`` or ``best``, see :data:`SELECTIONS`.
        rank_by: how a configuration's seeds are averaged, see :data:`AVERAGES`.
    """

    def __init__(
        self,
        agents: Sequence[Agent],
        configs: Sequence[int],
        final_episodes: int,
        select: str,
        rank_by: str = "mean",
    ) -> None:
        self.of_agent: list[Result] = []
        self._final_episodes = final_episodes
        self.column = SELECTIONS[select]
        """Of the results, which ranks."""
        self.column_so_far = _SO_FAR[select]
        """Likewise while training goes on."""
        self._average = AVERAGES[rank_by]
        self._by_config: dict[int, list[Result]] = {}
        self.add(agents, configs)

    def add(self, agents: Sequence[Agent], configs: Sequence[int]) -> None:
        """More agents, numbered on."""
        new = [Result(c, agent) for c, agent in zip(configs, agents, strict=True)]
        self.of_agent += new
        for result in new:
            self._by_config.setdefault(result.config, []).append(result)

    def update(self, report: Report) -> None:
        """Takes over what a report says of its agents."""
        for place, index in enumerate(report.agents):
            result = self.of_agent[index]
            # Not new: an agent whose results were known goes the same way again.
            is_new = report.step >= result.env_steps
            result.env_steps = max(result.env_steps, report.step)
            result.device_seconds += report.seconds / len(report.agents)
            if report.evaluation is not None and is_new:
                values = {name: column[place] for name, column in report.evaluation.items()}
                mean = result.latest_return_mean = float(values["eval_return_mean"])
                result.highest_return_mean = float(np.fmax(mean, result.highest_return_mean))
                result.evaluations[report.step] = mean
                result.train_return_mean = float(values["train_return_mean"])
                result.updates = int(values["updates"])
                result.diverged = bool(values["diverged"])
            if report.final is not None:
                self._finish(result, {name: c[place] for name, c in report.final.items()})

    def copy(self, step: int, copies: Mapping[int, Copy], shift: int) -> None:
        """Says that agents, numbered from ``shift`` on, go on as copies from a step on: their
        hyperparameters were those of their sources until then."""
        origins = {agent: self.of_agent[shift + c.source].agent for agent, c in copies.items()}
        for agent, copy in copies.items():
            result, origin = self.of_agent[shift + agent], origins[agent]
            schedule = (*origin.schedule, (step, copy.configuration))
            result.agent = Agent(origin.configuration, result.agent.seed, schedule)

    def prune(self, agents: Iterable[int]) -> None:
        """Says that these agents were stopped before their end."""
        for index in agents:
            result = self.of_agent[index]
            result.status = "diverged" if result.diverged else "pruned"

    def _finish(self, result: Result, values: Mapping[str, Any]) -> None:
        """The last policy of an agent that diverged acts on numbers that are none: it has no score."""
        if not result.diverged:
            result.eval_return_mean = float(values["last_mean"])
            result.eval_return_std = float(values["last_std"])
        result.eval_episodes = self._final_episodes
        result.best_return_mean = float(values["best_mean"])
        result.status = "diverged" if result.diverged else "finished"

    def score(self, result: Result) -> float:
        """By which an agent is ranked: its final evaluation, or NaN."""
        return getattr(result, self.column)

    def agent_order(self, index: int) -> tuple[Any, ...]:
        """Sorts agents, the best first."""
        result = self.of_agent[index]
        return self._order([result], [self.score(result)], (result.config, result.agent.seed))

    def ranking(self) -> list[int]:
        """Configuration numbers, the best first: by the average over its seeds of the final
        evaluation, then of the training returns, then the lower number; those with a diverged seed
        last. Where some have more seeds than others, from each average is taken what it may be
        wrong by: a standard error, of the spread that the seeds of a configuration have."""
        spread = self._spread()

        def order(config: int) -> tuple[Any, ...]:
            seeds = self._by_config[config]
            return self._order(seeds, [self.score(r) for r in seeds], (config,), spread)

        return sorted(self._by_config, key=order)

    def sound(self, count: int | None = None) -> list[int]:
        """The first ``count`` of the ranking that have a score and no diverged seed, or all."""
        return [c for c in self.ranking() if not math.isnan(self.sound_average(c))][:count]

    def has_reached(self, target: float | None, least_seeds: int = 1) -> bool:
        """Whether a configuration has a score of ``target`` on each of its seeds, and enough seeds."""
        return target is not None and any(
            len(seeds) >= least_seeds
            and all(self.score(result) >= target and not result.diverged for result in seeds)
            for seeds in self._by_config.values()
        )

    def ranking_so_far(self) -> list[int]:
        """The same while training goes on: by the latest evaluations, or the highest."""

        def order(config: int) -> tuple[Any, ...]:
            seeds = self._by_config[config]
            return self._order(seeds, [getattr(r, self.column_so_far) for r in seeds], (config,))

        return sorted(self._by_config, key=order)

    def seeds(self, config: int) -> list[Result]:
        """The results of a configuration's seeds."""
        return self._by_config[config]

    def mean(self, config: int, name: str) -> float:
        """Mean of a numeric result over a configuration's seeds; NaN where one is missing."""
        return float(np.mean([getattr(result, name) for result in self._by_config[config]]))

    def score_at(self, config: int, step: int) -> float:
        """How good a configuration was by ``step``: the mean over its seeds of the best evaluation so
        far, which is what its last policy, up or down, may yet come back to; NaN where one diverged."""
        seeds = self._by_config[config]
        if any(result.diverged for result in seeds):
            return math.nan
        return float(
            np.mean([max(v for s, v in r.evaluations.items() if s <= step) for r in seeds])
        )

    def told(self) -> list[Told]:
        """What a sampler learns of every configuration, in their order."""
        return [self._told(seeds) for _, seeds in sorted(self._by_config.items())]

    def _told(self, seeds: Sequence[Result]) -> Told:
        first = seeds[0]
        steps = set[int].intersection(*(set(result.evaluations) for result in seeds))
        score = self.sound_average(first.config)
        return Told(
            values={**dataclasses.asdict(first.agent.configuration), "seed": first.agent.seed},
            score=None if math.isnan(score) else score,
            pruned_at=first.env_steps if first.status == "pruned" else None,
            intermediate={s: float(np.mean([r.evaluations[s] for r in seeds])) for s in steps},
        )

    def steps_to(self, target: float, config: int, eval_steps: Sequence[int]) -> float:
        """Environment steps until an evaluation of a configuration first reached ``target``, on
        average over its seeds; one evaluation more than all where that did not happen, or not before
        it was stopped."""
        never = 2 * eval_steps[-1] - [0, *eval_steps][-2]
        reached = [
            min((step for step, value in r.evaluations.items() if value >= target), default=never)
            for r in self._by_config[config]
        ]
        return float(np.mean(reached))

    def to_csv(self) -> str:
        """``results.csv``: a row an agent, sorted by ``config`` and ``seed``."""
        rows = sorted((r.row for r in self.of_agent), key=lambda row: (row["config"], row["seed"]))
        if not any(row["schedule"] for row in rows):
            for row in rows:
                del row["schedule"]
        return write_table(list(rows[0]), rows)

    def average(self, config: int) -> float:
        """The score of a configuration: the average over its seeds; NaN where one is missing."""
        return self._average([self.score(result) for result in self._by_config[config]])

    def sound_average(self, config: int) -> float:
        """The same; NaN too where a seed diverged."""
        is_sound = not any(result.diverged for result in self._by_config[config])
        return self.average(config) if is_sound else math.nan

    def _spread(self) -> float:
        """Standard deviation of the scores of one configuration's seeds, pooled over those that have
        several; 0 where all have the same number."""
        if len({len(seeds) for seeds in self._by_config.values()}) < 2:
            return 0.0
        scores = ([self.score(r) for r in seeds] for seeds in self._by_config.values())
        sound = [each for each in scores if len(each) > 1 and np.isfinite(each).all()]
        return math.sqrt(np.mean([np.var(each, ddof=1) for each in sound])) if sound else 0.0

    def _order(
        self,
        seeds: Sequence[Result],
        scores: Sequence[float],
        tie: tuple[int, ...],
        spread: float = 0.0,
    ) -> tuple[Any, ...]:
        train = [result.train_return_mean for result in seeds]
        error = spread / math.sqrt(len(seeds))
        falling = (self._falling(scores) + error, self._falling(train))
        return (any(r.diverged for r in seeds), *falling, *tie)

    def _falling(self, values: Sequence[float]) -> float:
        """Minus the average, so that sorting puts the highest first; a missing value comes last."""
        average = self._average(values)
        return math.inf if math.isnan(average) else -average


def varying(results: Iterable[Result]) -> list[str]:
    """The hyperparameters in which their configurations differ, at the beginning or at the end."""
    ends = {c for result in results for c in (result.agent.configuration, result.agent.last)}
    return [name for name in NAMES if len({getattr(c, name) for c in ends}) > 1]


def course(result: Result, name: str, show: Callable[[Any], str]) -> str:
    """A hyperparameter for people: at the beginning and, where it is another, at the end."""
    agent = result.agent
    ends = (show(getattr(c, name)) for c in (agent.configuration, agent.last))
    return " → ".join(dict.fromkeys(ends))


def interquartile_mean(values: Iterable[float]) -> float:
    """Mean of the middle half of ``values`` (Agarwal et al. 2021, https://arxiv.org/abs/2108.13264):
    a quarter of them, rounded down, is cut off at each end."""
    from scipy.stats import trim_mean  # takes half a second, which no start should wait for

    scores = np.asarray(list(values), float)
    return math.nan if np.isnan(scores).any() else float(trim_mean(scores, 0.25))


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


AVERAGES: dict[str, Callable[[Sequence[float]], float]] = {
    "mean": _mean,
    "iqm": interquartile_mean,
}
"""Of the scores of a configuration's seeds."""
