"""Search spaces: which hyperparameters vary, and how.

A space file is YAML::

    description: what it is for
    parameters:
      learning_rate: {low: 1e-5, high: 1e-2, log: true}   # an interval; whole where the name is
      batch_size: {low: 32, high: 128, step: 32}          # multiples of step above low
      hidden_sizes: {choices: [[64, 64], [256, 256]]}     # one of a list
      gamma: 0.99                                         # a constant
      seed: {low: 0, high: 1073741823}                    # the base seed of a configuration
      dueling:                                            # varies only where a condition holds
        {choices: [true, false], when: {hidden_sizes: [[256, 256]]}, otherwise: false}

What a space does not name takes its default, and so does what varies elsewhere and has no
``otherwise``. A space maps points of the unit cube to configurations, so that every sampler only has
to place points.
"""

import dataclasses
import functools
import graphlib
import math
import pathlib
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any

import numpy as np
import yaml

from jaxrl.errors import InputError
from jaxrl.search.parameters import (
    Choice,
    Interval,
    Varying,
    check_parameter,
    default,
    parse_parameter,
    plain,
)

__all__ = [
    "Choice",
    "Interval",
    "Space",
    "load_space",
    "packaged",
    "parse_space",
]

_PACKAGED = resources.files("jaxrl.search") / "spaces"


@dataclasses.dataclass(frozen=True)
class Space:
    """Named hyperparameters, each an :class:`Interval`, a :class:`Choice` or a constant, or what a
    space file would say of it.

    Raises:
        InputError: something in it cannot be used.
    """

    parameters: Mapping[str, Any]
    description: str = ""

    def __post_init__(self) -> None:
        parsed = {str(name): parse_parameter(str(name), p) for name, p in self.parameters.items()}
        object.__setattr__(self, "parameters", parsed)
        object.__setattr__(self, "description", self.description.strip())
        for name in self.varying:
            self._check_condition(name)
        _ = self._order  # refuses conditions that go in a circle

    @property
    def varying(self) -> tuple[str, ...]:
        """The names that vary: the axes of the unit cube."""
        return tuple(n for n, p in self.parameters.items() if isinstance(p, Varying))

    @property
    def conditional(self) -> bool:
        """Whether something varies only where a condition holds."""
        return any(self.parameters[name].when for name in self.varying)

    def fix(self, values: Mapping[str, Any]) -> "Space":
        """The same space with ``values`` held constant, and what follows from them."""
        fixed = {name: check_parameter(name, value) for name, value in values.items()}
        parameters = {**self.parameters, **fixed}
        for name in self._order:
            parameter = parameters[name]
            if not isinstance(parameter, Varying):
                continue
            possible = {other: _possible(parameters, other) for other in parameter.when}
            when = {n: tuple(v for v in a if v in possible[n]) for n, a in parameter.when.items()}
            if all(when.values()):
                decides = {n: a for n, a in when.items() if any(v not in a for v in possible[n])}
                parameters[name] = dataclasses.replace(
                    parameter, when=decides, otherwise=parameter.otherwise if decides else None
                )
            elif parameter.otherwise is not None:
                parameters[name] = parameter.otherwise
            else:
                del parameters[name]
        return dataclasses.replace(self, parameters=parameters)

    def at(self, point: np.ndarray) -> dict[str, Any]:
        """The hyperparameters at a point ``[len(varying)]`` of the unit cube. The coordinate of what
        does not vary there is not used."""
        coordinate = dict(zip(self.varying, map(float, point), strict=True))
        return self.build(lambda name, parameter: parameter.at(coordinate[name]))

    def coordinates(self, values: Mapping[str, Any]) -> dict[str, float]:
        """Where the hyperparameters ``values`` lie on the axes of what varies there."""
        found: dict[str, float] = {}

        def draw(name: str, parameter: Varying) -> Any:
            value = check_parameter(name, values[name])
            found[name] = parameter.coordinate(value)
            return value

        self.build(draw)
        return found

    def build(self, draw: Callable[[str, Varying], Any]) -> dict[str, Any]:
        """The hyperparameters, where ``draw`` gives the value of each that varies there."""
        values: dict[str, Any] = {}
        for name in self._order:
            parameter = self.parameters[name]
            if not isinstance(parameter, Varying):
                values[name] = parameter
            elif all(values.get(n, default(n)) in a for n, a in parameter.when.items()):
                values[name] = draw(name, parameter)
            elif parameter.otherwise is not None:
                values[name] = parameter.otherwise
        return {name: values[name] for name in self.parameters if name in values}

    def largest(self, name: str) -> Any:
        """The largest value of a number that the space may give; 1 where it does not name it."""
        parameter = self.parameters.get(name, 1)
        if isinstance(parameter, Interval):
            return parameter.high
        if isinstance(parameter, Choice):
            return max((*parameter.values, parameter.otherwise or 1))
        return parameter

    def content(self) -> dict[str, Any]:
        """What its file holds; parsed again, it is the same space."""
        header = {"description": self.description} if self.description else {}
        return {**header, "parameters": {n: _entry(p) for n, p in self.parameters.items()}}

    def to_yaml(self) -> str:
        """The space as a file, a line a hyperparameter."""
        lines = [f"  {name}: {_flow(p)}\n" for name, p in self.parameters.items()]
        header = {"description": self.description} if self.description else {}
        text = yaml.safe_dump(header, allow_unicode=True, width=96) if header else ""
        return f"{text}parameters:\n{''.join(lines)}" if lines else f"{text}parameters: {{}}\n"

    @functools.cached_property
    def _order(self) -> tuple[str, ...]:
        """The names, each after those that its condition names."""
        before = {n: getattr(p, "when", {}) for n, p in self.parameters.items()}
        try:
            return tuple(graphlib.TopologicalSorter(before).static_order())
        except graphlib.CycleError as error:
            circle = " needs ".join(reversed(error.args[1]))
            raise InputError(f"conditions go in a circle: {circle}. Drop one 'when'.") from None

    def _check_condition(self, name: str) -> None:
        for other, allowed in self.parameters[name].when.items():
            if other not in self.parameters:
                raise InputError(
                    f"{name} varies with {other}, which the space does not name: give {other} choices."
                )
            if isinstance(self.parameters[other], Interval):
                raise InputError(
                    f"{name} varies with {other}, which is an interval: a condition needs choices."
                )
            possible = _possible(self.parameters, other)
            for value in allowed:
                if value not in possible:
                    raise InputError(
                        f"{name} varies where {other} is {_flow(value)}, which it never is here: it "
                        f"may be {', '.join(map(_flow, possible))}."
                    )


def _possible(parameters: Mapping[str, Any], name: str) -> tuple[Any, ...]:
    """The values that hyperparameter ``name``, no interval, can take."""
    parameter = parameters.get(name, default(name))
    if not isinstance(parameter, Choice):
        return (parameter,)
    if not parameter.when:
        return parameter.values
    elsewhere = default(name) if parameter.otherwise is None else parameter.otherwise
    return (*parameter.values, elsewhere)


def _entry(value: Any) -> Any:
    """What a space file says of a parameter."""
    return value.entry() if isinstance(value, Varying) else plain(value)


def _flow(value: Any) -> str:
    """A value or a parameter as YAML on one line."""
    text = yaml.safe_dump(_entry(value), default_flow_style=True, sort_keys=False, width=math.inf)
    return text.removesuffix("...\n").strip()


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
        return parse_space(yaml.load(text, _Strict))
    except InputError as error:
        raise InputError(f"in {where}: {error}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{where} is not valid YAML: {' '.join(str(error).split())}.") from None


class _Strict(yaml.SafeLoader):
    """Refuses a key that is there twice, of which YAML's readers take the last."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for place, key in enumerate(keys):
            if key in keys[:place]:
                raise InputError(f"{key} is there twice: drop one of the two.")
        return node


def parse_space(content: Any) -> Space:
    """A space from what its YAML file holds; raises ``InputError``."""
    if not isinstance(content, dict) or not isinstance(content.get("parameters"), dict):
        raise InputError("a space needs a mapping 'parameters' from names to what they may be.")
    for key in content:
        if key not in ("description", "parameters"):
            raise InputError.unknown("key", str(key), ("description", "parameters"))
    return Space(content["parameters"], str(content.get("description", "")))
