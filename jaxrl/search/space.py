"""Search spaces: which hyperparameters vary, and how.

A space file is YAML::

    description: what it is for
    parameters:
      learning_rate: {low: 1e-5, high: 1e-2, log: true}   # an interval; whole where the name is
      batch_size: {low: 32, high: 128, step: 32}          # multiples of step above low
      hidden_sizes: {choices: [[64, 64], [256, 256]]}     # one of a list
      gamma: 0.99                                         # a constant
      seed: {low: 0, high: 1073741823}                    # the base seed of a configuration

What a space does not name takes its default. A space maps points of the unit cube to
configurations, so that every sampler only has to place points.
"""

import dataclasses
import math
import pathlib
from collections.abc import Mapping
from importlib import resources
from typing import Any

import numpy as np
import yaml

from jaxrl.dqn.hyperparameters import NAMES, check_value, is_integer, is_numeric
from jaxrl.errors import InputError

_PACKAGED = resources.files("jaxrl.search") / "spaces"
MAX_SEED = 2**32 - 1


@dataclasses.dataclass(frozen=True)
class Choice:
    """One of ``values``, each as likely."""

    values: tuple[Any, ...]

    def at(self, u: float) -> Any:
        return self.values[min(int(u * len(self.values)), len(self.values) - 1)]


@dataclasses.dataclass(frozen=True)
class Interval:
    """A number from ``low`` to ``high``, both included where it is whole or has a step."""

    low: float
    high: float
    log: bool = False
    step: float | None = None
    integer: bool = False

    def at(self, u: float) -> Any:
        if self.step is not None:
            count = math.floor((self.high - self.low) / self.step + 1e-9) + 1
            value = self.low + self.step * min(int(u * count), count - 1)
            return round(value) if self.integer else min(float(f"{value:.12g}"), self.high)
        top = self.high + 1 if self.integer else self.high
        if self.log:
            value = math.exp(math.log(self.low) + u * (math.log(top) - math.log(self.low)))
        else:
            value = self.low + u * (top - self.low)
        value = min(max(value, self.low), self.high)
        return math.floor(value) if self.integer else value


@dataclasses.dataclass(frozen=True)
class Space:
    """Named hyperparameters, each an :class:`Interval`, a :class:`Choice` or a constant."""

    parameters: Mapping[str, Any]
    description: str = ""

    @property
    def varying(self) -> tuple[str, ...]:
        """The names that vary: the axes of the unit cube."""
        return tuple(n for n, p in self.parameters.items() if isinstance(p, (Interval, Choice)))

    def fix(self, values: Mapping[str, Any]) -> "Space":
        """The same space with ``values`` held constant."""
        checked = {name: check_parameter(name, value) for name, value in values.items()}
        return dataclasses.replace(self, parameters={**self.parameters, **checked})

    def at(self, point: np.ndarray) -> dict[str, Any]:
        """The hyperparameters at a point ``[len(varying)]`` of the unit cube."""
        coordinate = dict(zip(self.varying, map(float, point), strict=True))
        return {
            name: p.at(coordinate[name]) if name in coordinate else p
            for name, p in self.parameters.items()
        }


def check_parameter(name: str, value: Any) -> Any:
    """``value`` as hyperparameter ``name`` or as a seed; raises ``InputError``."""
    if name != "seed":
        if name not in NAMES:
            raise InputError.unknown("hyperparameter", name, (*NAMES, "seed"))
        return check_value(name, value)
    return check_seed(value)


def check_seed(value: Any) -> int:
    """``value`` as a seed; raises ``InputError``."""
    try:
        seed = float(value)
    except (TypeError, ValueError, OverflowError):
        seed = -1.0
    if isinstance(value, bool) or not (seed.is_integer() and 0 <= seed <= MAX_SEED):
        raise InputError(f"seed is {value!r}; it must be a whole number from 0 to {MAX_SEED}.")
    return int(value) if isinstance(value, int) else int(seed)


def packaged() -> tuple[str, ...]:
    """The names of the spaces that come with jaxrl."""
    names = (entry.name for entry in _PACKAGED.iterdir() if entry.name.endswith(".yaml"))
    return tuple(sorted(name.removesuffix(".yaml") for name in names))


def load_space(name: str) -> Space:
    """The packaged space ``name``, or the one in the YAML file of that name.

    Raises:
        InputError: no such space or file, or something in it cannot be used; the message says where.
    """
    path = pathlib.Path(name)
    if name in packaged():
        text, where = (_PACKAGED / f"{name}.yaml").read_text("utf-8"), f"space {name}"
    elif path.suffix in (".yaml", ".yml"):
        try:
            text, where = path.read_text("utf-8"), name
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot read the space file {name}: {error}.") from None
    else:
        known = (*packaged(), "FILE.yaml")
        raise InputError.unknown("space", name, known)
    try:
        return parse_space(yaml.safe_load(text))
    except InputError as error:
        raise InputError(f"in {where}: {error}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{where} is not valid YAML: {' '.join(str(error).split())}.") from None


def parse_space(content: Any) -> Space:
    """A space from what its YAML file holds; raises ``InputError``."""
    if not isinstance(content, dict) or not isinstance(content.get("parameters"), dict):
        raise InputError("a space needs a mapping 'parameters' from names to what they may be.")
    for key in content:
        if key not in ("description", "parameters"):
            raise InputError.unknown("key", str(key), ("description", "parameters"))
    parameters = {
        str(name): _parse_parameter(str(name), entry)
        for name, entry in content["parameters"].items()
    }
    return Space(parameters, str(content.get("description", "")).strip())


def _parse_parameter(name: str, entry: Any) -> Any:
    if not isinstance(entry, dict):
        return check_parameter(name, entry)
    for key in entry:
        if key not in ("low", "high", "log", "step", "choices"):
            raise InputError.unknown(
                f"key of {name}", str(key), ("low", "high", "log", "step", "choices")
            )
    if "choices" in entry:
        values = entry["choices"]
        if len(entry) > 1 or not isinstance(values, list) or not values:
            raise InputError(f"{name}: choices must be a list of one or more values, alone.")
        return Choice(tuple(check_parameter(name, value) for value in values))
    return _parse_interval(name, entry)


def _parse_interval(name: str, entry: Mapping[str, Any]) -> Interval:
    if "low" not in entry or "high" not in entry:
        raise InputError(f"{name} needs 'low' and 'high', or 'choices'; it has {dict(entry)}.")
    if name != "seed" and not is_numeric(name):
        raise InputError(f"{name} is not a number and cannot have an interval: give choices.")
    low, high = (check_parameter(name, entry[end]) for end in ("low", "high"))
    log, step = entry.get("log", False), entry.get("step")
    if not isinstance(log, bool):
        raise InputError(f"{name}: log is {log!r}; it must be true or false.")
    if not (low < high and math.isfinite(high)):
        raise InputError(f"{name}: low must be below high, and high finite; got {low} and {high}.")
    if log and low <= 0:
        raise InputError(f"{name}: a logarithmic interval needs low above 0; got {low}.")
    integer = name == "seed" or is_integer(name)
    if step is not None:
        try:
            step = math.nan if isinstance(step, bool) else float(step)
        except (TypeError, ValueError, OverflowError):
            step = math.nan
        if log or not 0 < step < math.inf or (integer and not step.is_integer()):
            raise InputError(
                f"{name}: step must be a {'whole ' if integer else ''}number above 0, without log; "
                f"got {entry['step']!r}."
            )
    return Interval(low, high, log, step, integer)
