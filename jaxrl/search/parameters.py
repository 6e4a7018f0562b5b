"""What a hyperparameter of a search space may be: an interval, a choice, or a constant."""

import abc
import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from jaxrl.dqn.hyperparameters import (
    NAMES,
    Configuration,
    check_name,
    check_value,
    is_integer,
    is_numeric,
)
from jaxrl.errors import InputError

MAX_SEED = 2**32 - 1
_INTERVAL_KEYS = ("low", "high", "log", "step")
_KEYS = (*_INTERVAL_KEYS, "choices", "when", "otherwise")
_DEFAULTS = {field.name: field.default for field in dataclasses.fields(Configuration)}
_BELOW_1 = math.nextafter(1, 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Varying(abc.ABC):
    """A hyperparameter that varies: everywhere, or only where every hyperparameter that ``when``
    names has one of the values listed there. Elsewhere it is ``otherwise``, or its default (None).
    """

    when: Mapping[str, tuple[Any, ...]] = dataclasses.field(default_factory=dict)
    otherwise: Any = None

    @property
    @abc.abstractmethod
    def levels(self) -> int | None:
        """How many values it has, if they are listed or stepped."""

    @abc.abstractmethod
    def at(self, u: float) -> Any:
        """The value at coordinate ``u`` in [0, 1) of its axis."""

    @abc.abstractmethod
    def coordinate(self, value: Any) -> float:
        """A coordinate with that value: the middle of all of them."""

    def entry(self) -> dict[str, Any]:
        """What a space file says of it."""
        entry: dict[str, Any] = {}
        if self.when:
            entry["when"] = {n: [plain(v) for v in values] for n, values in self.when.items()}
        if self.otherwise is not None:
            entry["otherwise"] = plain(self.otherwise)
        return entry


@dataclasses.dataclass(frozen=True)
class Choice(Varying):
    """One of ``values``, each as likely."""

    values: tuple[Any, ...]

    @property
    def levels(self) -> int:
        return len(self.values)

    def at(self, u: float) -> Any:
        return self.values[min(int(u * len(self.values)), len(self.values) - 1)]

    def coordinate(self, value: Any) -> float:
        return (self.values.index(value) + 0.5) / len(self.values)

    def entry(self) -> dict[str, Any]:
        return {"choices": [plain(value) for value in self.values], **super().entry()}


@dataclasses.dataclass(frozen=True)
class Interval(Varying):
    """A number from ``low`` to ``high``, both included where it is whole or has a step. Whether it
    is ``integer`` follows from its name: a :class:`~jaxrl.search.space.Space` sets it."""

    low: float
    high: float
    log: bool = False
    step: float | None = None
    integer: bool = False

    @property
    def levels(self) -> int | None:
        if self.step is None:
            return None
        return math.floor((self.high - self.low) / self.step + 1e-9) + 1

    def at(self, u: float) -> Any:
        if self.step is not None:
            count = self.levels or 1
            value = self.low + self.step * min(int(u * count), count - 1)
            return round(value) if self.integer else min(float(f"{value:.12g}"), self.high)
        top = self.high + 1 if self.integer else self.high
        if self.log:
            value = math.exp(math.log(self.low) + u * (math.log(top) - math.log(self.low)))
        else:
            value = self.low + u * (top - self.low)
        value = min(max(value, self.low), self.high)
        return math.floor(value) if self.integer else value

    def coordinate(self, value: Any) -> float:
        if self.step is not None:
            return (round((value - self.low) / self.step) + 0.5) / (self.levels or 1)
        top, middle = (self.high + 1, value + 0.5) if self.integer else (self.high, value)
        if self.log:
            u = math.log(middle / self.low) / math.log(top / self.low)
        else:
            u = (middle - self.low) / (top - self.low)
        return min(max(u, 0.0), _BELOW_1)

    def entry(self) -> dict[str, Any]:
        entry: dict[str, Any] = {"low": self.low, "high": self.high}
        if self.log:
            entry["log"] = True
        if self.step is not None:
            entry["step"] = round(self.step) if self.integer else self.step
        return {**entry, **super().entry()}


def default(name: str) -> Any:
    """The value of a hyperparameter that is not given, where that is one for every sweep."""
    return _DEFAULTS.get(name)


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


def parse_parameter(name: str, entry: Any) -> Any:
    """What a space file's ``entry`` makes of hyperparameter ``name``: a :class:`Varying` or a
    constant; raises ``InputError``. A :class:`Varying` that was made in Python is checked alike."""
    if isinstance(entry, Varying):
        entry = entry.entry()
    if not isinstance(entry, dict):
        return check_parameter(name, entry)
    for key in entry:
        if key not in _KEYS:
            raise InputError.unknown(f"key of {name}", str(key), _KEYS)
    when = _parse_when(name, entry["when"]) if "when" in entry else {}
    otherwise = check_parameter(name, entry["otherwise"]) if "otherwise" in entry else None
    if otherwise is not None and not when:
        raise InputError(f"{name}: 'otherwise' needs a 'when': without one it always varies.")
    if "choices" in entry:
        values = entry["choices"]
        alone = not any(key in entry for key in _INTERVAL_KEYS)
        if not alone or not isinstance(values, list) or not values:
            raise InputError(f"{name}: choices must be a list of one or more values, alone.")
        values = tuple(check_parameter(name, value) for value in values)
        return Choice(values, when=when, otherwise=otherwise)
    interval = _parse_interval(name, {k: v for k, v in entry.items() if k in _INTERVAL_KEYS})
    return dataclasses.replace(interval, when=when, otherwise=otherwise)


def _parse_when(name: str, when: Any) -> dict[str, tuple[Any, ...]]:
    if not isinstance(when, dict) or not when:
        raise InputError(
            f"{name}: when must map names to lists of values, such as {{double_q: [true]}}; "
            f"got {when!r}."
        )
    for other, values in when.items():
        if not isinstance(values, list) or not values:
            raise InputError(
                f"{name}: when {other} must be a list of one or more values; got {values!r}."
            )
    try:
        return {
            str(other): tuple(check_parameter(str(other), value) for value in values)
            for other, values in when.items()
        }
    except InputError as error:
        raise InputError(f"{name}: in when: {error}") from None


def _parse_interval(name: str, entry: Mapping[str, Any]) -> Interval:
    if "low" not in entry or "high" not in entry:
        raise InputError(f"{name} needs 'low' and 'high', or 'choices'; it has {dict(entry)}.")
    if name != "seed":
        check_name(name)
        if not is_numeric(name):
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


def plain(value: Any) -> Any:
    """``value`` as YAML has it: lists instead of tuples."""
    return list(value) if isinstance(value, tuple) else value
