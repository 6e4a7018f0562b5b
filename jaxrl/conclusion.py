"""What a sweep comes to: finalists compared, costs, importances, and the files that say so."""

import dataclasses
import functools

from jaxrl.dqn.environment import Environment
from jaxrl.population.cost import operations
from jaxrl.rundir import RunDirectory
from jaxrl.search.cost import Cost, costs, to_csv
from jaxrl.search.finalists import Finalist, compare, reward_threshold, to_json
from jaxrl.search.importance import of_results
from jaxrl.search.results import Results
from jaxrl.specification import SweepSpec
from jaxrl.tracking.journal import Journal


@dataclasses.dataclass(frozen=True)
class Conclusion:
    """Of a sweep that has ended."""

    spec: SweepSpec
    env: Environment
    results: Results
    fresh: Results
    """Of the finalists on fresh seeds."""
    is_finished: bool
    known_importances: dict[str, dict[str, float]] | None = None
    """Of an earlier conclusion: to compute them takes its time."""

    @functools.cached_property
    def finalists(self) -> list[Finalist]:
        """The best configurations on fresh seeds, where all of these were trained, the winner
        first."""
        if not self.is_finished or not self.fresh.of_agent:
            return []
        return compare(self.results, self.fresh, self._threshold)

    @functools.cached_property
    def costs(self) -> list[Cost]:
        """Of every configuration."""
        chosen = {r.config: r.agent.configuration for r in self.results.of_agent}
        each = {c: operations(v, self.env, self.spec.steps) for c, v in chosen.items()}
        return costs(self.results, each)

    @functools.cached_property
    def importances(self) -> dict[str, dict[str, float]]:
        """For score and steps to solve the shares of the hyperparameters, where that can be said."""
        if not self.is_finished:
            return {}
        if self.known_importances is not None:
            return self.known_importances
        return of_results(self.results, self.spec.budget.eval_steps, self._threshold)

    @property
    def _threshold(self) -> float | None:
        return reward_threshold(self.spec.env)

    def write(self, directory: RunDirectory) -> None:
        """Writes it all to the run directory."""
        directory.write(directory.results.name, self.results.to_csv().encode())
        directory.write("costs.csv", to_csv(self.costs).encode())
        if self.fresh.of_agent:
            directory.write(directory.finalists.name, self.fresh.to_csv().encode())
        if self.importances:
            directory.write_json("importances.json", self.importances)
        if self.finalists:
            directory.write_json("finalists.json", to_json(self.finalists))

    def note(self, journal: Journal) -> None:
        """Writes to the journal what a tracker is to hear of it."""
        if self.importances:
            journal.append("importances", shares=self.importances)
        if self.finalists:
            journal.append("finalists", rows=to_json(self.finalists))
