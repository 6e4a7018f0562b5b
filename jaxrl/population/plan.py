"""The planner: groups agents into cohorts and tiles, and says what a sweep will take."""

import dataclasses
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

from jaxrl.dqn import replay
from jaxrl.dqn.environment import Environment
from jaxrl.dqn.hyperparameters import Cadence, Configuration, Shape
from jaxrl.dqn.networks import parameter_count
from jaxrl.errors import InputError
from jaxrl.population.cost import compile_seconds, tile_seconds
from jaxrl.population.devices import Hardware


@dataclasses.dataclass(frozen=True)
class Agent:
    """A configuration and a seed: one network to train."""

    configuration: Configuration
    seed: int
    """0 to 2³² − 1."""
    schedule: tuple[tuple[int, Configuration], ...] = ()
    """What it goes on with from an environment step on, in the order of these."""

    @property
    def last(self) -> Configuration:
        """What it ends with."""
        return self.schedule[-1][1] if self.schedule else self.configuration


@dataclasses.dataclass(frozen=True)
class Budget:
    """How long agents train and how they are scored. Steps are an agent's own environment steps."""

    steps: int
    eval_every: int
    eval_episodes: int
    final_episodes: int

    @property
    def eval_steps(self) -> list[int]:
        """The steps after which every agent is evaluated; the last step is always one."""
        return [*range(self.eval_every, self.steps, self.eval_every), self.steps]


@dataclasses.dataclass(frozen=True)
class Cohort:
    """Agents that share array shapes and, but on hardware that mixes them, cadence."""

    shape: Shape
    cadences: tuple[Cadence, ...]
    """That agents have, those that train most first."""
    tiles: tuple[tuple[int, ...], ...]
    """For each tile the indices of its agents, at most the tile's width."""

    @property
    def agents(self) -> int:
        return sum(len(tile) for tile in self.tiles)


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything about a sweep that is known before it is compiled."""

    agents: tuple[Agent, ...]
    budget: Budget
    env: Environment
    hardware: Hardware
    cohorts: tuple[Cohort, ...]
    capacity: int
    """Rows of every agent's replay ring: the sweep's, not a shape."""
    widths: Mapping[Shape, int]
    """Agents in a tile of each shape."""

    @property
    def shapes(self) -> tuple[Shape, ...]:
        return tuple(dict.fromkeys(cohort.shape for cohort in self.cohorts))

    @property
    def memory_bytes(self) -> int:
        """Bytes of every agent's state, and of the tiles that are worked on at a time."""
        return self.state_bytes + self.work_bytes

    def most_bytes(self, count: int) -> int:
        """Bytes of ``count`` agents at most, if each had the largest state of those here, and each
        cohort a tile that is nearly empty."""
        cohorts = len(self.cohorts)
        return self.work_bytes + max(
            math.ceil((count + cohorts * (width - 1)) / width) * self.tile_bytes(shape)
            for shape, width in self.widths.items()
        )

    @property
    def state_bytes(self) -> int:
        """Bytes of every agent's state."""
        return sum(len(cohort.tiles) * self.tile_bytes(cohort.shape) for cohort in self.cohorts)

    @property
    def work_bytes(self) -> int:
        """Bytes, roughly, of what is worked on at a time, besides the states."""
        work = (n * _work_bytes(shape, self.env, self.budget) for shape, n in self.widths.items())
        return len(self.hardware.devices) * max(work)

    @property
    def tiles(self) -> list[tuple[Cohort, tuple[int, ...]]]:
        """Every tile with its cohort; a tile's index is its place here."""
        return [(cohort, tile) for cohort in self.cohorts for tile in cohort.tiles]

    @property
    def waves(self) -> list[list[tuple[Cohort, tuple[int, ...]]]]:
        """The tiles, in their order, in parts of about the same size that fit in memory one after
        another; one part where everything fits."""
        tiles = self.tiles
        room = USABLE * self.hardware.memory_bytes - self.work_bytes
        number = math.ceil(self.state_bytes / max(room, 1))
        while True:
            size = math.ceil(len(tiles) / number)
            parts = [tiles[i : i + size] for i in range(0, len(tiles), size)]
            largest = max(sum(self.tile_bytes(c.shape) for c, _ in part) for part in parts)
            if largest <= room or size == 1:
                return parts
            number += 1

    def tile_bytes(self, shape: Shape) -> int:
        """Bytes of a tile's state."""
        return self.widths[shape] * _state_bytes(shape, self.env, self.capacity)

    def tile_seconds(self, shape: Shape, agents: Sequence[int]) -> float:
        """The predicted device time of a step of a tile of these agents."""
        cadences = [self.agents[index].configuration.cadence for index in agents]
        return tile_seconds(self.hardware.platform, shape, self.env, self.widths[shape], cadences)

    def step_seconds(self) -> list[float]:
        """For each agent the predicted device time of one of its steps."""
        seconds = [0.0] * len(self.agents)
        for cohort, tile in self.tiles:
            share = self.tile_seconds(cohort.shape, tile) / len(tile)
            for index in tile:
                seconds[index] = share
        return seconds

    def predicted_seconds(self) -> float:
        """A rough time for the training, without compilation: see :func:`tile_seconds`."""
        total = sum(self.tile_seconds(cohort.shape, tile) for cohort, tile in self.tiles)
        return self.budget.steps * total / len(self.hardware.devices)

    def compile_seconds(self) -> float:
        """A rough time for compiling where nothing is cached; some of it passes beside the
        training."""
        return compile_seconds(self.hardware, len(self.shapes))


USABLE = 0.9
"""Of the free memory, what a plan may fill."""

_LARGE_NETWORK = 16_384
"""Parameters from which on an agent keeps a core busy by itself."""


def _work_bytes(shape: Shape, env: Environment, budget: Budget) -> int:
    """Bytes, roughly, of one agent's update or evaluation: minibatch and activations, each a few
    times over, or the episodes that run side by side."""
    widths = (env.observation_size, *shape.hidden_sizes, env.num_actions)
    row = replay.row_size(env.observation_size)
    update = shape.minibatch_rows * (shape.n_step * row + 6 * sum(widths))
    episodes = max(budget.eval_episodes, budget.final_episodes)
    return 4 * max(update, 2 * episodes * (row + sum(widths)))


def _state_bytes(shape: Shape, env: Environment, capacity: int) -> int:
    """Bytes of one agent's state: replay, and five times its parameters (online, target, two
    moments, the best along the way)."""
    ring = capacity * replay.row_size(env.observation_size)
    return 4 * (ring + 5 * parameter_count(shape, env))


def make_plan(
    agents: Sequence[Agent],
    budget: Budget,
    env: Environment,
    hardware: Hardware,
    least_capacity: int = 1,
) -> Plan:
    """Groups ``agents`` into cohorts of one shape and cadence, cut into tiles.

    Args:
        least_capacity: rows of replay at least, though these agents need fewer: programs that were
            compiled for others can be used again.

    Raises:
        InputError: not even a tile fits in memory, with what it needs and what is free.
    """
    largest = max(
        configuration.buffer_size
        for agent in agents
        for configuration in (agent.configuration, *(later for _, later in agent.schedule))
    )
    capacity = min(max(largest, least_capacity), budget.steps)
    groups: dict[tuple[Shape, Cadence | None], list[int]] = defaultdict(list)
    for index, agent in enumerate(agents):
        shape, cadence = agent.configuration.shape, agent.configuration.cadence
        groups[shape, None if hardware.mixes_cadences else cadence].append(index)
    cohorts, widths = [], {}
    for (shape, _), members in groups.items():
        members.sort(key=lambda index: _rhythm(agents[index].configuration))
        cadences = [agents[index].configuration.cadence for index in members]
        room = (
            USABLE
            * hardware.memory_bytes
            / len(hardware.devices)
            / (_state_bytes(shape, env, capacity) + _work_bytes(shape, env, budget))
        )
        width = widths[shape] = _tile_width(shape, env, hardware, cadences, room)
        tiles = tuple(tuple(members[i : i + width]) for i in range(0, len(members), width))
        cohorts.append(Cohort(shape, tuple(dict.fromkeys(cadences)), tiles))
    plan = Plan(tuple(agents), budget, env, hardware, tuple(cohorts), capacity, widths)
    _check_memory(plan)
    return plan


def _rhythm(configuration: Configuration) -> tuple[float, int, int]:
    """A key that puts those beside each other who train as often, and start to learn together: a
    tile trains from its first agent on, and whenever any of them does."""
    train_freq, gradient_steps = configuration.cadence
    return -gradient_steps / train_freq, train_freq, configuration.learning_starts


_LARGE_NETWORK = 16_384
"""Parameters from which on an agent keeps a core busy by itself."""
_WIDER = (1, 4, 16, 64)
"""A GPU's tiles hold as many times the agents of the smallest; wider ones gain little (measured)."""


def _tile_width(
    shape: Shape,
    env: Environment,
    hardware: Hardware,
    cadences: Sequence[Cadence],
    room: float,
) -> int:
    """Agents in a tile.

    On a CPU a constant of the shape and of nothing else, since another width gives an agent other
    bits: several small networks share what it costs to start their products; a large one gains
    nothing from company, and alone no tile of it is ever partly empty. On a GPU what is predicted to
    be fastest for agents of these cadences, of what there is ``room`` for.
    """
    smallest = hardware.tile_width
    if hardware.platform == "cpu":
        return 1 if parameter_count(shape, env) >= _LARGE_NETWORK else smallest

    def seconds(width: int) -> float:
        return sum(
            tile_seconds(hardware.platform, shape, env, width, cadences[i : i + width])
            for i in range(0, len(cadences), width)
        )

    return min((smallest * k for k in _WIDER if k == 1 or smallest * k <= room), key=seconds)


def _check_memory(plan: Plan) -> None:
    free = plan.hardware.memory_bytes
    largest = max(plan.shapes, key=plan.tile_bytes)
    needed = plan.tile_bytes(largest) + plan.work_bytes
    if needed > USABLE * free:
        raise InputError(
            f"a tile of {plan.widths[largest]} agents needs {_gib(needed)} of memory and "
            f"{_gib(free)} are free. Use a smaller buffer_size (replay holds {plan.capacity:,} steps "
            "an agent) or batch_size, or fewer --steps."
        )


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
