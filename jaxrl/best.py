"""The best few policies of a sweep: kept as they come, saved in their order at the end."""

import bisect
import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from jaxrl.errors import InputError
from jaxrl.loader import Policy
from jaxrl.policy import load_policy
from jaxrl.population.report import Report
from jaxrl.preparation import PreparedSweep
from jaxrl.rundir import RunDirectory
from jaxrl.search.results import Results
from jaxrl.search.schedule import to_values

KEPT = 5
_KEPT_OF_CONFIGURATIONS = 64
"""Where the order of configurations decides, which another seed may yet change."""


class BestPolicies:
    """Keeps the best policies among the agents that have finished.

    A policy is written to a folder of ``checkpoints`` before the journal says that its agent has
    finished, so that a sweep that is killed and resumed has it still.

    Args:
        sweep: which it is, for the policies' descriptions.
        results: of the agents.
        folder: in ``checkpoints``.
        one_each: whether a configuration has one policy at most, its best seed's.
    """

    def __init__(
        self,
        sweep: PreparedSweep,
        results: Results,
        directory: RunDirectory,
        folder: str = "policies",
        one_each: bool = False,
    ) -> None:
        self._sweep = sweep
        self._results = results
        self._directory = directory
        self._folder = directory.checkpoints / folder
        self._one_each = one_each
        self._most = _KEPT_OF_CONFIGURATIONS if one_each else KEPT
        self._kept: list[tuple[tuple[Any, ...], int, Policy]] = []

    def recall(self) -> None:
        """Takes over what an earlier process kept, of the agents that results say have finished."""
        spec, agents = self._sweep.spec, self._results.of_agent
        for path in self._folder.glob("*"):
            index = int(path.name) if path.name.isdigit() else len(agents)
            if index >= len(agents) or not agents[index].has_ended:
                self._directory.remove(path)
                continue
            with contextlib.suppress(InputError):  # it cannot be read, now at least
                policy = load_policy(path, spec.network, spec.env)
                self._insert(index, lambda policy=policy: policy)  # type: ignore[misc]

    def update(self, report: Report) -> None:
        """Hears of a report, after the results have."""
        if report.final is None or report.params is None:
            return
        params, normalisation = (
            report.params[self._sweep.spec.select],
            report.params["normalisation"],
        )
        for place, index in enumerate(report.agents):
            mine = jax.tree.map(lambda x, i=place: x[i], (params, normalisation))
            if policy := self._insert(int(index), lambda i=index, m=mine: self._policy(i, *m)):  # type: ignore[misc]
                for name, content in sorted(policy.files().items()):
                    self._directory.write(
                        f"checkpoints/{self._folder.name}/{index}/{name}", content
                    )

    def __len__(self) -> int:
        return len(self._kept)

    def save(self, ranking: Sequence[int] | None = None) -> None:
        """Writes them to ``best/1``, ``best/2``, …, the best first, or in the order of a ``ranking``
        of configurations."""
        kept = self._kept
        if ranking is not None:
            kept = sorted(kept, key=lambda entry: ranking.index(self._config(entry[1])))
        for rank, (_, _, policy) in enumerate(kept[:KEPT], start=1):
            for name, content in policy.files().items():
                self._directory.write(f"best/{rank}/{name}", content)
        for rank in range(min(len(kept), KEPT) + 1, KEPT + 1):  # of what was best before
            self._directory.remove(self._directory.best / str(rank))

    def _insert(self, index: int, policy: Callable[[], Policy]) -> Policy | None:
        """The agent's policy, if it is among the best."""
        order = self._results.agent_order(index)
        if any(entry[1] == index for entry in self._kept):
            return None  # an agent that had finished was trained again
        if self._one_each:
            config = self._config(index)
            rivals = [entry for entry in self._kept if self._config(entry[1]) == config]
            if any(entry[0] <= order for entry in rivals):
                return None
            self._drop(rivals)
        if len(self._kept) == self._most and order >= self._kept[-1][0]:
            return None
        entry = (order, index, policy())
        bisect.insort(self._kept, entry, key=lambda kept: kept[0])
        self._drop(self._kept[self._most :])
        return entry[2]

    def _drop(self, entries: Sequence[tuple[tuple[Any, ...], int, Policy]]) -> None:
        for entry in entries:
            self._kept.remove(entry)
            self._directory.remove(self._folder / str(entry[1]))

    def _config(self, index: int) -> int:
        return self._results.of_agent[index].config

    def _policy(self, index: int, params: Any, normalisation: tuple[np.ndarray, ...]) -> Policy:
        result = self._results.of_agent[index]
        agent = result.agent
        mean, std = normalisation
        return Policy(
            env_id=self._sweep.spec.env,
            network=self._sweep.spec.network,
            num_actions=self._sweep.plan.env.num_actions,
            configuration=to_values(agent),
            seed=agent.seed,
            observation_mean=mean,
            observation_std=std,
            params=flatten_dict(params["params"], sep="."),
            scores={
                "config": result.config,
                "eval_return_mean": result.eval_return_mean,
                "best_return_mean": result.best_return_mean,
            },
        )
