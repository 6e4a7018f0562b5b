"""The planner: groups agents into cohorts and tiles, and says what a sweep will take."""

import dataclasses
import math
from collections import defaultdict
from collections.abc import Sequence

from jaxrl.dqn import replay
from jaxrl.dqn.environment import Environment
from jaxrl.dqn.hyperparameters import Cadence, Configuration, Shape
from jaxrl.dqn.networks import parameter_count
from jaxrl.errors import InputError
from jaxrl.population.devices import Hardware


@dataclasses.dataclass(frozen=True)
class Agent:
    """A configuration and a seed: one network to train."""

    configuration: Configuration
    seed: int
    """0 to 2³² − 1."""
    schedule: tuple[tuple[int, Configuration], ...] = ()
    """What it goes on with from an environment step on, in the order of these."""


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
    """Agents that share array shapes and cadence."""

    shape: Shape
    cadence: Cadence
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

    @property
    def shapes(self) -> tuple[Shape, ...]:
        return tuple(dict.fromkeys(cohort.shape for cohort in self.cohorts))

    def cadences(self, shape: Shape) -> tuple[Cadence, ...]:
        """Of the cohorts of this shape."""
        return tuple(cohort.cadence for cohort in self.cohorts if cohort.shape == shape)

    @property
    def memory_bytes(self) -> int:
        """Bytes of every agent's state, and of the tiles that are worked on at a time."""
        return self.state_bytes + self.work_bytes

    def most_bytes(self, count: int) -> int:
        """Bytes of ``count`` agents at most, if each had the largest state of those here, and each
        cohort a tile that is nearly empty."""
        cohorts, sizes = len(self.cohorts), {s: self.tile_width(s) for s in self.shapes}
        return self.work_bytes + max(
            math.ceil((count + cohorts * (width - 1)) / width) * self.tile_bytes(shape)
            for shape, width in sizes.items()
        )

    @property
    def state_bytes(self) -> int:
        """Bytes of every agent's state."""
        return sum(len(cohort.tiles) * self.tile_bytes(cohort.shape) for cohort in self.cohorts)

    @property
    def work_bytes(self) -> int:
        """Bytes, roughly, of what is worked on at a time, besides the states."""
        return len(self.hardware.devices) * max(
            self.tile_width(shape) * self._agent_work_bytes(shape) for shape in self.shapes
        )

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

    def tile_width(self, shape: Shape) -> int:
        """Agents in a tile of this shape."""
        return tile_width(shape, self.env, self.hardware)

    def _agent_work_bytes(self, shape: Shape) -> int:
        """Bytes, roughly, of one agent's update or evaluation: minibatch and activations, each a few
        times over, or the episodes that run side by side."""
        widths = (self.env.observation_size, *shape.hidden_sizes, self.env.num_actions)
        row = replay.row_size(self.env.observation_size)
        update = shape.minibatch_rows * (shape.n_step * row + 6 * sum(widths))
        episodes = max(self.budget.eval_episodes, self.budget.final_episodes)
        return 4 * max(update, 2 * episodes * (row + sum(widths)))

    def tile_bytes(self, shape: Shape) -> int:
        """Bytes of a tile's state: for each agent replay, and five times its parameters (online,
        target, two moments, the best along the way)."""
        ring = self.capacity * replay.row_size(self.env.observation_size)
        return self.tile_width(shape) * 4 * (ring + 5 * parameter_count(shape, self.env))

    def step_seconds(self) -> list[float]:
        """For each agent the predicted device time of one of its steps."""
        seconds = [0.0] * len(self.agents)
        for cohort in self.cohorts:
            for tile in cohort.tiles:
                for index in tile:
                    seconds[index] = tile_seconds(cohort, self.env, 1, 1)
        return seconds

    def predicted_seconds(self) -> float:
        """A rough time for the training, without compilation: see :func:`tile_seconds`."""
        total = sum(
            len(cohort.tiles)
            * tile_seconds(cohort, self.env, self.budget.steps, self.tile_width(cohort.shape))
            for cohort in self.cohorts
        )
        return total / len(self.hardware.devices)

    def compile_seconds(self) -> float:
        """A rough time for compiling what a CPU needs where none of it is cached; some of it passes
        beside the training."""
        return COMPILE_SECONDS * len(self.shapes) / min(2, len(self.hardware.devices))


USABLE = 0.9
"""Of the free memory, what a plan may fill."""

_LARGE_NETWORK = 16_384
"""Parameters from which on an agent keeps a core busy by itself."""


def tile_width(shape: Shape, env: Environment, hardware: Hardware) -> int:
    """Agents in a tile: a constant of the shape and the kind of device, and of nothing else, since
    another width gives an agent other bits.

    Several small networks share what it costs to start their products; a large one gains nothing
    from company, and alone no tile of it is ever partly empty.
    """
    if hardware.platform == "cpu" and parameter_count(shape, env) >= _LARGE_NETWORK:
        return 1
    return hardware.tile_width


# Measured on the CPU that benchmarks/results names, both cores at work: an environment step's fixed
# part, how fast it reads the network's parameters, an update's fixed part, what it takes for each
# parameter (the optimiser, and packing for products), its floating-point operations, and the five
# programs of a shape.
_STEP_SECONDS = 0.4e-6
_BYTES_PER_SECOND = 80e9
_UPDATE_SECONDS = 6e-6
_PARAMETER_SECONDS = 1.8e-9
_FLOPS = 80e9
COMPILE_SECONDS = 4.0


def tile_seconds(cohort: Cohort, env: Environment, steps: int, width: int) -> float:
    """A rough time for one tile on one CPU core: environment steps, and updates of four passes
    (online, target, and a backward pass twice as dear)."""
    shape, cadence = cohort.shape, cohort.cadence
    updates = steps / cadence.train_freq * cadence.gradient_steps
    parameters = parameter_count(shape, env)
    step = _STEP_SECONDS + 4 * parameters / _BYTES_PER_SECOND
    products = 4 * shape.minibatch_rows * 2 * parameters
    update = _UPDATE_SECONDS + _PARAMETER_SECONDS * parameters + products / _FLOPS
    return width * (steps * step + updates * update)


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
    groups: dict[tuple[Shape, Cadence], list[int]] = defaultdict(list)
    for index, agent in enumerate(agents):
        groups[agent.configuration.shape, agent.configuration.cadence].append(index)
    cohorts = []
    for (shape, cadence), members in groups.items():
        width = tile_width(shape, env, hardware)
        # Agents that start to learn together share tiles: a tile trains from its first on.
        members.sort(key=lambda i: agents[i].configuration.learning_starts)
        tiles = tuple(tuple(members[i : i + width]) for i in range(0, len(members), width))
        cohorts.append(Cohort(shape, cadence, tiles))
    largest = max(
        configuration.buffer_size
        for agent in agents
        for configuration in (agent.configuration, *(later for _, later in agent.schedule))
    )
    plan = Plan(
        agents=tuple(agents),
        budget=budget,
        env=env,
        hardware=hardware,
        cohorts=tuple(cohorts),
        capacity=min(max(largest, least_capacity), budget.steps),
    )
    _check_memory(plan)
    return plan


def _check_memory(plan: Plan) -> None:
    free = plan.hardware.memory_bytes
    largest = max(plan.shapes, key=plan.tile_bytes)
    needed = plan.tile_bytes(largest) + plan.work_bytes
    if needed > USABLE * free:
        raise InputError(
            f"a tile of {plan.tile_width(largest)} agents needs {_gib(needed)} of memory and "
            f"{_gib(free)} are free. Use a smaller buffer_size (replay holds {plan.capacity:,} steps "
            "an agent) or batch_size, or fewer --steps."
        )


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
