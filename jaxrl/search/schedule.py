"""Hyperparameters that change while an agent trains: read from tables and journals, and written there.

A schedule is a list of changes, ``[[step, {name: value}], …]``: from each environment step on, which is
an evaluation step, these hyperparameters are others than before.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from jaxrl.dqn.hyperparameters import NAMES, Configuration, check_value
from jaxrl.errors import InputError
from jaxrl.population.plan import Agent

FIXED = (
    *("hidden_sizes", "dueling", "n_step", "batch_size", "train_freq", "gradient_steps"),
    *("normalize_observations", "learning_starts", "epsilon_start", "epsilon_decay_steps"),
)
"""What cannot change, or would have no meaning: shapes, cadence, and how a training begins."""
CHANGEABLE = tuple(name for name in NAMES if name not in FIXED)


def to_agent(values: Mapping[str, Any], seed: int, steps: int) -> Agent:
    """The agent of hyperparameters by name, ``schedule`` among them where it has one.

    Raises:
        InputError: something in them cannot be used.
    """
    plain = {n: v for n, v in values.items() if n not in ("seed", "schedule")}
    configuration = Configuration.create(plain, steps)
    schedule, now = [], configuration
    for step, changes in check_schedule(values.get("schedule", [])):
        now = dataclasses.replace(now, **changes)
        schedule.append((step, now))
    return Agent(configuration, seed, tuple(schedule))


def to_values(agent: Agent) -> dict[str, Any]:
    """The same back, without the seed."""
    values = dataclasses.asdict(agent.configuration)
    return {**values, "schedule": to_json(agent)} if agent.schedule else values


def to_json(agent: Agent) -> list[Any]:
    """An agent's schedule as a list of changes."""
    before, changes = agent.configuration, []
    for step, now in agent.schedule:
        different = {n: getattr(now, n) for n in NAMES if getattr(now, n) != getattr(before, n)}
        changes.append([step, as_json(different)])
        before = now
    return changes


def as_json(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no infinity; ``Configuration.create`` reads the word."""
    return {n: "inf" if value == math.inf else value for n, value in values.items()}


def check_schedule(value: Any) -> list[tuple[int, dict[str, Any]]]:
    """``value`` as a list of changes; raises ``InputError``."""
    form = 'a list such as [[10000, {"learning_rate": 0.0001}]], steps ascending'
    if not isinstance(value, (list, tuple)):
        raise InputError(f"schedule is {value!r}; it must be {form}.")
    found: list[tuple[int, dict[str, Any]]] = []
    for entry in value:
        is_pair = isinstance(entry, (list, tuple)) and len(entry) == 2
        if not is_pair or type(entry[0]) is not int or not isinstance(entry[1], dict):
            raise InputError(f"schedule has {entry!r}; it must be {form}.")
        step, changes = entry
        if step <= (found[-1][0] if found else 0):
            before = found[-1][0] if found else 0
            raise InputError(f"schedule has step {step}, which must be above {before}: {form}.")
        for name in changes:
            if name not in CHANGEABLE:
                raise InputError.unknown("hyperparameter of a schedule", str(name), CHANGEABLE)
        found.append((step, {name: check_value(name, v) for name, v in changes.items()}))
    return found
