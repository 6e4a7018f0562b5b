"""What has come of a search so far: its generations, their results, and what was decided at rungs."""

from jaxrl.errors import InputError, named
from jaxrl.population.layout import Verdict
from jaxrl.search.generation import FINALISTS, Generation, copies_of_record, report_of_record
from jaxrl.search.results import Results
from jaxrl.specification import FINALIST_EPISODES, SweepSpec
from jaxrl.tracking.journal import DAMAGED, KINDS, Record


class History:
    """Of a search that begins, or of one whose journal's records are :meth:`taken <take>` one by one.

    Attributes:
        results: of the search, verifications among them.
        finalists: results of the finalists.
        generations: so far, in their order.
        env_steps: of all their agents together.
        decided: at the rungs of the last generation, by step; agents numbered in it.
        recorded: by kind and step of a report, the agents that the journal has one of.
    """

    def __init__(self, spec: SweepSpec, first: Generation) -> None:
        self._steps = spec.steps
        self.results = Results([], [], spec.final_episodes, spec.select, spec.rank_by)
        self.finalists = Results([], [], FINALIST_EPISODES, spec.select, spec.rank_by)
        self.generations: list[Generation] = []
        self.env_steps = 0
        self.decided: dict[int, Verdict] = {}
        self.recorded: dict[tuple[str, int], set[int]] = {}
        self.begin(first)

    @property
    def last(self) -> Generation:
        return self.generations[-1]

    def begin(self, generation: Generation) -> None:
        self.generations.append(generation)
        self.place()[0].add(generation.agents, generation.configs)
        self.decided = {}

    def place(self) -> tuple[Results, int]:
        """Where the last generation's results are, and the number of the agent whose are the first."""
        is_final = self.last.stage == FINALISTS
        return (self.finalists, self.last.first) if is_final else (self.results, 0)

    def take(self, record: Record) -> None:
        """Takes over what a record says.

        Raises:
            InputError: it cannot be followed, so it is damaged, or one before it is lost.
        """
        try:
            self._take(record)
        except (InputError, *DAMAGED) as error:
            raise InputError(
                f"the journal is damaged: a record of kind {record['kind']} cannot be followed "
                f"({named(error)}). What there was before it can be gone on with: --resume."
            ) from None

    def _take(self, record: Record) -> None:
        kind, first, (results, base) = record["kind"], self.last.first, self.place()
        if kind not in KINDS:
            raise ValueError("there is no such kind")
        begun = range(base, base + len(results.of_agent))
        if any(agent not in begun for agent in record.get("agents", ())):
            raise LookupError("it is about agents that have not begun")
        if kind == "generation":
            self.begin(Generation.of_record(record, self._steps))
        elif kind == "rung":
            stopped = frozenset(agent - first for agent in record["agents"])
            self.decided[record["step"]] = Verdict(stopped)
            results.prune(agent - base for agent in record["agents"])
        elif kind == "copies":
            copies = copies_of_record(record, first, self._steps)
            self.decided[record["step"]] = Verdict(copies=copies)
            results.copy(record["step"], copies, first - base)
        elif kind in ("evaluation", "final"):
            mine = [results.of_agent[agent - base] for agent in record["agents"]]
            before = sum(result.env_steps for result in mine)
            results.update(report_of_record(record, base))
            self.env_steps += sum(result.env_steps for result in mine) - before
            seconds = record["metrics"]["device_seconds"]
            for result, each in zip(mine, seconds, strict=True):
                result.device_seconds = each
            self.recorded.setdefault((kind, record["step"]), set()).update(record["agents"])
