"""A generation: agents that are trained together. A search has one or more, and perhaps finalists."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from jaxrl.dqn.hyperparameters import Configuration
from jaxrl.population.plan import Agent

SEARCH, FINALISTS = "search", "finalists"
FRESH_SEED = 2**30
"""From here on seeds are those of finalists, which no search has seen."""


@dataclasses.dataclass(frozen=True)
class Generation:
    """Agents of some configurations, numbered on from those of earlier generations."""

    number: int
    stage: str
    """``search`` or ``finalists``: the best configurations once more, on fresh seeds."""
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

    def to_record(self) -> dict[str, Any]:
        """As the journal has it."""
        named = {str(c): _as_json(values) for c, values in self.configurations.items()}
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
        named = {
            int(number): Configuration.create(values, steps)
            for number, values in record["configurations"].items()
        }
        pairs = zip(record["configs"], record["seeds"], strict=True)
        agents = tuple(Agent(named[config], seed) for config, seed in pairs)
        first, configs = record["first"], tuple(record["configs"])
        return cls(record["generation"], record["stage"], first, agents, configs)


def _as_json(configuration: Configuration) -> dict[str, Any]:
    """JSON has no infinity; ``Configuration.create`` reads the word."""
    values = dataclasses.asdict(configuration)
    return {n: "inf" if value == math.inf else value for n, value in values.items()}
