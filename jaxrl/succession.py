"""What a search trains next: a generation of new configurations, its verification, or finalists."""

from collections.abc import Iterator, Mapping

from jaxrl.history import History
from jaxrl.population.plan import Agent
from jaxrl.preparation import PreparedSweep
from jaxrl.search.allowance import Spent
from jaxrl.search.generation import (
    FINALISTS,
    FRESH_SEED,
    FURTHER_SEED,
    SEARCH,
    VERIFICATION,
    Generation,
)
from jaxrl.search.results import Result
from jaxrl.search.verification import LEAST, further_seeds


class Succession:
    """How a search goes on from its history."""

    def __init__(self, sweep: PreparedSweep, history: History) -> None:
        self._sweep = sweep
        self._history = history

    @property
    def searched(self) -> int:
        """How many generations had new configurations."""
        return sum(generation.stage == SEARCH for generation in self._history.generations)

    def following(self) -> Generation | None:
        """What comes after the last, which has been trained; None where all has."""
        last, spec, results = self._history.last, self._sweep.spec, self._history.results
        if last.stage == FINALISTS:
            return None
        number, first = last.number + 1, last.first + len(last.agents)
        if last.stage == SEARCH and (further := self._further()):
            return Generation.again(number, VERIFICATION, first, further)
        if not results.has_reached(spec.stop_at, LEAST if spec.verify else 1):
            told, spent = results.told(), self.spent()
            if drawn := self._sweep.draw(number, first, self.searched, told, spent):
                return drawn
        fresh = range(FRESH_SEED, FRESH_SEED + spec.final_seeds)
        chosen = {c: (results.seeds(c)[0].agent, fresh) for c in results.sound(spec.finalists)}
        return Generation.again(number, FINALISTS, first, chosen) if chosen else None

    def title(self) -> str:
        """What the last is, for people."""
        spec, which = self._sweep.spec, self.searched
        if self._history.last.stage == FINALISTS:
            return "finalists"
        if self._history.last.stage == VERIFICATION:
            return f"verifying generation {which}"
        if (budget := spec.budget_seconds) is not None:
            return f"generation {which}, {self.spent().total:,.0f} of {budget:,.0f} s spent"
        return f"generation {which} of {spec.parts}" if spec.parts > 1 else ""

    def spent(self) -> Spent:
        """By what is known so far, finalists not counted."""
        workers = len(self._sweep.plan.hardware.devices)
        new, further = (
            sum(result.device_seconds for result in self._of(stage))
            for stage in (SEARCH, VERIFICATION)
        )
        predicted = sum(map(self._predicted, self._of(SEARCH)))
        return Spent(new / workers, predicted / workers, further / workers)

    def _further(self) -> Mapping[int, tuple[Agent, range]]:
        """Agents with seeds that their configurations have not had, where verifying has not yet taken
        as much work as searching: by predictions, which are the same however fast it went."""
        steps = self._sweep.spec.steps
        searching, verifying = (
            sum(self._predicted(result) * result.env_steps / steps for result in self._of(stage))
            for stage in (SEARCH, VERIFICATION)
        )
        if verifying >= searching:
            return {}
        chosen, spec, results = {}, self._sweep.spec, self._history.results
        for config, count in further_seeds(results, spec.verify, spec.stop_at).items():
            seeds = results.seeds(config)
            start = FURTHER_SEED + len(seeds) - spec.seeds
            chosen[config] = (seeds[0].agent, range(start, start + count))
        return chosen

    def _of(self, stage: str) -> Iterator[Result]:
        """The results of a stage's agents."""
        for generation in self._history.generations:
            if generation.stage == stage:
                end = generation.first + len(generation.agents)
                yield from self._history.results.of_agent[generation.first : end]

    def _predicted(self, result: Result) -> float:
        return self._sweep.predicted_seconds(result.agent.configuration)
