"""From a sweep's specification to what is trained: configurations, generations and their plans."""

import dataclasses
import math
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxrl.dqn import environment
from jaxrl.dqn.hyperparameters import Configuration
from jaxrl.errors import InputError
from jaxrl.population.cost import seconds
from jaxrl.population.devices import Hardware, configure
from jaxrl.population.plan import USABLE, Agent, Plan, make_plan
from jaxrl.search.allowance import Spent, choose
from jaxrl.search.generation import FINALISTS, SEARCH, Generation
from jaxrl.search.models import Told
from jaxrl.search.parameters import check_parameter, check_seed
from jaxrl.search.pbt import Evolution
from jaxrl.search.pruners import PRUNERS, Pruner
from jaxrl.search.schedule import to_agent, to_values
from jaxrl.search.space import Space, load_space
from jaxrl.search.study import Proposer
from jaxrl.search.table import read_table
from jaxrl.specification import FINALIST_EPISODES, SweepSpec
from jaxrl.tracking.projection import Description


@dataclasses.dataclass(frozen=True)
class PreparedSweep:
    """A checked sweep, ready to be trained; nothing has been compiled or written."""

    spec: SweepSpec
    plan: Plan
    """Of the first generation."""
    generation: Generation
    """The first."""
    space: Space | None
    """From which configurations are drawn; None where a table lists them."""
    warnings: tuple[str, ...]

    @property
    def configurations(self) -> tuple[Configuration, ...]:
        """Of the first generation."""
        return tuple(self.generation.configurations.values())

    @property
    def configs(self) -> tuple[int, ...]:
        """The configuration number of each agent of the first generation."""
        return self.generation.configs

    def draw(
        self, number: int, first: int, part: int, told: Sequence[Told], spent: Spent
    ) -> Generation | None:
        """The generation with this number, whose first agent is the ``first``-th of all and which is
        the ``part``-th (from 0) that has new configurations, after what was ``told`` of those before
        and they have taken; None after the last."""
        if self.space is None:
            return None
        env, hardware = self.plan.env, self.plan.hardware
        rows = _drawn(self.spec, self.space, env, hardware, part, told, spent)
        return _generation(self.spec, number, first, rows, len(told)) if rows else None

    def predicted_seconds(self, configuration: Configuration) -> float:
        """Of an agent on one of the workers, without compilation."""
        return seconds(configuration, self.plan.env, self.spec.steps, self.plan.hardware)

    def judge(self, generation: Generation) -> Pruner | Evolution | None:
        """Who decides at the rungs of a generation."""
        spec, eval_steps = self.spec, self.spec.budget.eval_steps
        if generation.stage != SEARCH:
            return None
        if spec.pbt:
            assert self.space is not None
            rungs = [step for step in eval_steps[:-1] if step % spec.exploit_every == 0]
            return Evolution(self.space, rungs, (spec.seed, generation.number))
        chosen = generation.configurations
        starts = (c.learning_starts for c in chosen.values())
        warm_up = max((s for s in starts if s < spec.steps), default=0)
        return PRUNERS[spec.pruner or "none"](eval_steps, list(chosen), warm_up)

    def plan_of(self, generation: Generation) -> Plan:
        """How a generation is trained, on the devices of the first."""
        first = self.plan
        return _plan(self.spec, generation, first.env, first.hardware, first.capacity)


def prepare(spec: SweepSpec, space: Space | None = None) -> PreparedSweep:
    """Draws or reads the configurations, checks everything, and plans.

    Args:
        space: instead of the one that the specification names.

    Raises:
        InputError: anything in the specification cannot be used.
    """
    if spec.config_table is not None:
        return prepared(spec, None, _generation(spec, 0, 0, _listed(spec, spec.config_table)))
    space = (space or load_space(spec.space)).fix(spec.fixed)
    hardware, env = _surroundings(spec)
    rows = _drawn(spec, space, env, hardware, 0, (), Spent())
    sweep = _prepared(spec, space, _generation(spec, 0, 0, rows), env, hardware)
    sweep.judge(sweep.generation)  # refuses a space that it cannot use
    return sweep


def _generation(
    spec: SweepSpec,
    number: int,
    first: int,
    rows: Sequence[Mapping[str, Any]],
    first_config: int = 0,
) -> Generation:
    configs, agents = [], []
    for config, row in enumerate(rows, first_config):
        base = row.get("seed", spec.seed)
        agent = to_agent(row, base, spec.steps)
        for k in range(spec.seeds):
            configs.append(config)
            agents.append(dataclasses.replace(agent, seed=check_seed(base + k)))
    return Generation(number, SEARCH, first, tuple(agents), tuple(configs))


def prepared(spec: SweepSpec, space: Space | None, generation: Generation) -> PreparedSweep:
    """A sweep whose first ``generation`` is known; raises as :func:`prepare`."""
    hardware, env = _surroundings(spec)
    return _prepared(spec, space, generation, env, hardware)


def _surroundings(spec: SweepSpec) -> tuple[Hardware, environment.Environment]:
    """The devices first: an environment's import starts JAX's backends."""
    return configure(spec.device), environment.make(spec.env, spec.network)


def _prepared(
    spec: SweepSpec,
    space: Space | None,
    generation: Generation,
    env: environment.Environment,
    hardware: Hardware,
) -> PreparedSweep:
    capacity = space.largest("buffer_size") if space and (spec.pbt or spec.parts > 1) else 1
    plan = _plan(spec, generation, env, hardware, capacity)
    configurations = generation.configurations.values()
    idle = sum(c.learning_starts >= spec.steps for c in configurations)
    warnings: tuple[str, ...] = ()
    if idle:
        warnings = (
            f"{idle} of {len(configurations)} configurations never train: their learning_starts is "
            f"not below the {spec.steps} steps.",
        )
    return PreparedSweep(spec, plan, generation, space, warnings)


def _plan(
    spec: SweepSpec,
    generation: Generation,
    env: environment.Environment,
    hardware: Hardware,
    least_capacity: int = 1,
) -> Plan:
    budget, is_final = spec.budget, generation.stage == FINALISTS
    if is_final:
        budget = dataclasses.replace(budget, final_episodes=FINALIST_EPISODES)
    plan = make_plan(generation.agents, budget, env, hardware, least_capacity)
    _check_schedules(spec, generation)
    _check_whole(spec, generation, plan)
    return plan


def _check_whole(spec: SweepSpec, generation: Generation, plan: Plan) -> None:
    """Where agents wait for each other at rungs, all of them have to be in memory."""
    needed = plan.memory_bytes
    if spec.pbt or generation.scheduled:
        what = "--pbt" if spec.pbt else "a schedule"
        count = max(len(plan.agents), spec.finalists * spec.final_seeds)
        needed = plan.most_bytes(2 * count)  # at a rung the old tiles are there beside the new ones
    elif spec.pruner != "none" and generation.stage == SEARCH:
        what = f"--pruner {spec.pruner}"
    else:
        return
    if (room := USABLE * plan.hardware.memory_bytes) < needed:
        raise InputError(
            f"{what} needs a generation as a whole, and {len(plan.agents)} agents may take "
            f"{needed / 2**30:.1f} GiB, of which {room / 2**30:.1f} GiB are free: use --generations "
            f"{math.ceil(needed / room) * spec.parts}, or fewer --configs."
        )


def _check_schedules(spec: SweepSpec, generation: Generation) -> None:
    """Refuses schedules that cannot be followed."""
    for step in generation.scheduled:
        if step not in spec.budget.eval_steps[:-1]:
            raise InputError(
                f"a schedule changes hyperparameters at step {step}, which is no evaluation step "
                f"before the last: they come every {spec.budget.eval_every} steps up to {spec.steps}."
            )
    if generation.scheduled and generation.stage == SEARCH and spec.pruner != "none":
        raise InputError(
            f"--pruner {spec.pruner} cannot judge configurations with a schedule: leave it out."
        )


def _listed(spec: SweepSpec, table: str) -> list[dict[str, Any]]:
    """The values of each configuration by name, ``seed`` among them where it is given."""
    rows = read_table(table)
    if spec.seeds > 1 and any("seed" in row for row in rows):
        raise InputError(
            f"the table {table} has a seed column, which names the one seed of each "
            f"configuration; --seeds {spec.seeds} contradicts it. Drop one of the two."
        )
    fixed = {name: check_parameter(name, value) for name, value in spec.fixed.items()}
    for _, changes in (change for row in rows for change in row.get("schedule", [])):
        if both := set(changes) & fixed.keys():
            raise InputError(
                f"--set fixes {', '.join(sorted(both))}, which a schedule in the table {table} "
                "changes: drop one of the two."
            )
    return [{**row, **fixed} for row in rows]


def _drawn(
    spec: SweepSpec,
    space: Space,
    env: environment.Environment,
    hardware: Hardware,
    generation: int,
    told: Sequence[Told],
    spent: Spent,
) -> list[dict[str, Any]]:
    """The same of what a sampler proposes; nothing after the last generation."""
    proposer = Proposer(space, spec.sampler, spec.seed, spec.configs)
    allowance = spec.allowance
    if allowance is None:
        left = spec.sizes[generation:]
        return proposer.ask(generation, left[0], told) if left else []
    room = allowance.room(generation, spent)
    if not room:
        return []
    candidates = proposer.candidates(generation, told)
    configurations = [to_agent(row, 0, spec.steps).configuration for row in candidates]
    pace = spec.seeds * spent.pace
    costs = [pace * seconds(c, env, spec.steps, hardware) for c in configurations]
    shapes = [configuration.shape for configuration in configurations]
    known = {to_agent(trial.values, 0, spec.steps).configuration.shape for trial in told}
    rng, workers = np.random.default_rng([spec.seed, generation, 1]), len(hardware.devices)
    most = _most(spec, configurations, env, hardware)
    chosen = choose(costs, shapes, known, room, workers, rng, most)
    return [candidates[i] for i in chosen]


def _most(
    spec: SweepSpec,
    configurations: Sequence[Configuration],
    env: environment.Environment,
    hardware: Hardware,
) -> int:
    """About how many of these fit in memory at once, whichever they are."""
    count, copies = len(configurations), 2 if spec.pbt else 1
    agents = [Agent(configuration, 0) for configuration in configurations]
    plan = make_plan(agents, spec.budget, env, hardware)
    while (
        count > 1 and plan.most_bytes(count * spec.seeds * copies) > USABLE * hardware.memory_bytes
    ):
        count = count * 9 // 10
    return count


def describe(sweep: PreparedSweep, name: str, experiment: str) -> Description:
    """What trackers are told of a new sweep."""
    spec = dataclasses.asdict(sweep.spec)
    fixed = spec.pop("fixed")
    params = {n: v for n, v in spec.items() if v is not None}
    if sweep.spec.budget_seconds is not None:
        params.pop("configs")
    params |= {f"set.{name}": value for name, value in fixed.items()}
    params |= {"eval_every": sweep.spec.budget.eval_every, "agents": len(sweep.configs)}
    named = zip(sweep.configs, sweep.generation.agents, strict=True)
    return Description(
        name=name,
        sweep_id=uuid.uuid4().hex,
        experiment=experiment,
        params=params,
        configurations=[to_values(agent) for agent in dict(named).values()],
        configs=sweep.configs,
        seeds=[agent.seed for agent in sweep.plan.agents],
    )
