"""A generation: agents that are trained together. A search has one or more, each perhaps followed by
a verification, and perhaps finalists."""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from jaxrl.dqn.hyperparameters import Configuration
from jaxrl.population.layout import Copy, Verdict
from jaxrl.population.plan import Agent
from jaxrl.population.report import Report
from jaxrl.search.schedule import as_json, to_agent, to_values

SEARCH, VERIFICATION, FINALISTS = "search", "verification", "finalists"
FRESH_SEED = 2**30
"""From here on seeds are those of finalists, which no search has seen."""
FURTHER_SEED = 3 * 2**29
"""From here on they are those that verifications add to a configuration's own."""


@dataclasses.dataclass(frozen=True)
class Generation:
    """Agents of some configurations, numbered on from those of earlier generations."""

    number: int
    stage: str
    """``search``; ``verification``: the most promising configurations on further seeds, which count
    in the search; or ``finalists``: the best once more on fresh seeds, which do not."""
    first: int
    """The number of its first agent in the whole search."""
    agents: tuple[Agent, ...]
    configs: tuple[int, ...]
    """The configuration number of each agent."""

    @property
    def configurations(self) -> dict[int, Configuration]:
        """By number."""
        pairs = zip(self.configs, self.agents, strict=True)
        return {config: agent.configuration for config, agent in pairs}

    @property
    def scheduled(self) -> dict[int, Verdict]:
        """By step, the agents whose hyperparameters change there."""
        changes: dict[int, dict[int, Copy]] = {}
        for index, agent in enumerate(self.agents):
            for step, configuration in agent.schedule:
                changes.setdefault(step, {})[index] = Copy(index, configuration)
        return {step: Verdict(copies=copies) for step, copies in sorted(changes.items())}

    @classmethod
    def again(
        cls,
        number: int,
        stage: str,
        first: int,
        chosen: Mapping[int, tuple[Agent, Iterable[int]]],
    ) -> "Generation":
        """Configurations that were trained before, each as an agent of it was and on these seeds."""
        pairs = [
            (c, dataclasses.replace(a, seed=s)) for c, (a, seeds) in chosen.items() for s in seeds
        ]
        agents, configs = tuple(agent for _, agent in pairs), tuple(config for config, _ in pairs)
        return cls(number, stage, first, agents, configs)

    def to_record(self) -> dict[str, Any]:
        """As the journal has it."""
        pairs = zip(self.configs, self.agents, strict=True)
        named = {str(config): as_json(to_values(agent)) for config, agent in pairs}
        return {
            "generation": self.number,
            "stage": self.stage,
            "first": self.first,
            "configs": list(self.configs),
            "seeds": [agent.seed for agent in self.agents],
            "configurations": named,
        }

    @classmethod
    def of_record(cls, record: Mapping[str, Any], steps: int) -> "Generation":
        """From the journal of a search of ``steps`` steps an agent."""
        named = record["configurations"]
        pairs = zip(record["configs"], record["seeds"], strict=True)
        made = {config: to_agent(values, 0, steps) for config, values in named.items()}
        agents = tuple(dataclasses.replace(made[str(c)], seed=seed) for c, seed in pairs)
        first, configs = record["first"], tuple(record["configs"])
        return cls(record["generation"], record["stage"], first, agents, configs)


def copies_record(rung: int, copies: Mapping[int, Copy], first: int) -> dict[str, Any]:
    """What the journal says of agents that go on as copies, where agents are numbered from ``first``
    on."""
    return {
        "step": rung,
        "agents": [first + agent for agent in copies],
        "sources": [first + copy.source for copy in copies.values()],
        "configurations": [
            as_json(dataclasses.asdict(copy.configuration)) for copy in copies.values()
        ],
    }


def copies_of_record(record: Mapping[str, Any], first: int, steps: int) -> dict[int, Copy]:
    """The copies of such a record."""
    rows = zip(record["agents"], record["sources"], record["configurations"], strict=True)
    return {
        agent - first: Copy(source - first, Configuration.create(values, steps))
        for agent, source, values in rows
    }


def report_of_record(record: Mapping[str, Any], base: int) -> Report:
    """What a record says, as it was reported; its agents numbered from ``base`` on."""
    metrics = {
        name: np.array([math.nan if value is None else value for value in column])
        for name, column in record["metrics"].items()
    }
    agents, fields = np.array(record["agents"]) - base, {record["kind"]: metrics}
    return Report(
        -1, agents, record["step"], 0, 0.0, 0, fields.get("evaluation"), fields.get("final")
    )
