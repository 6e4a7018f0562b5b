"""The hyperparameters of a DQN agent: names, ranges, defaults, and how each one may vary.

Names and defaults are those of Stable-Baselines3's ``DQN`` where it has them. A value can vary in
one of three ways, and each way is a type of its own, so that a value on the wrong side is a type
error and not a silent recompilation:

* :class:`Shape` fixes array shapes: one compiled program for each distinct one;
* :class:`Cadence` is the rhythm of acting and training, which the agents of a cohort share on a CPU;
* :class:`Hyperparameters` are traced values, one for each agent.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from jaxrl.errors import InputError

_MAX_INT = 2**31 - 1
_MAX_FLOAT, _MIN_FLOAT = 3e38, 1e-37  # what float32 holds


@dataclasses.dataclass(frozen=True)
class Range:
    """The values a hyperparameter accepts.

    ``kind`` is ``float``, ``int``, ``bool`` or ``sizes`` (a list of layer widths). Bounds are
    inclusive unless ``open_low``.
    """

    kind: str
    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False

    def __str__(self) -> str:
        if self.kind == "bool":
            return "true or false"
        if self.kind == "sizes":
            return (
                "a list of layer widths of 1 or more, such as [64, 64], or [] for a linear network"
            )
        what = "a whole number" if self.kind == "int" else "a number"
        low = f"above {self.low:g}" if self.open_low else f"{self.low:g} or more"
        if self.high in (math.inf, _MAX_FLOAT):
            finite = " and finite" if self.high == _MAX_FLOAT else ""
            return f"{what}, {low}{finite}"
        return f"{what}, {low}, at most {self.high:.10g}"

    def parse(self, value: Any) -> Any:
        """Returns ``value`` as this kind; raises ``ValueError`` where it is not of it."""
        if self.kind == "bool":
            if isinstance(value, bool):
                return value
            raise ValueError
        if self.kind == "sizes":
            if isinstance(value, (list, tuple)):
                return tuple(Range("int", 1, _MAX_INT).parse(width) for width in value)
            raise ValueError
        if isinstance(value, (bool, list, tuple, dict)) or value is None:
            raise ValueError
        number = float(value)
        if abs(number) > _MAX_FLOAT and not math.isinf(number):
            raise ValueError
        if self.open_low and number - self.low < _MIN_FLOAT:
            raise ValueError
        if self.kind == "int":
            if not number.is_integer():
                raise ValueError
            number = int(number)
        in_range = self.low < number if self.open_low else self.low <= number
        if not (in_range and number <= self.high):
            raise ValueError
        return number


def _field(default: Any, accepts: Range) -> Any:
    return dataclasses.field(default=default, metadata={"range": accepts})


_POSITIVE = Range("float", 0, open_low=True)
_PROBABILITY = Range("float", 0, 1)
_COUNT = Range("int", 1, _MAX_INT)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Configuration:
    """One full assignment of hyperparameters: a *trial* in Optuna's terms, without its seed.

    Build one with :meth:`create`, which checks every value. Lengths are in environment steps of the
    agent, except ``gradient_steps``.
    """

    learning_rate: float = _field(1e-4, Range("float", 0, _MAX_FLOAT, open_low=True))
    """Adam's step size."""
    gamma: float = _field(0.99, _PROBABILITY)
    """Discount factor."""
    batch_size: int = _field(32, _COUNT)
    """Transitions in a minibatch."""
    buffer_size: int = _field(1_000_000, _COUNT)
    """How many of its latest transitions an agent replays."""
    train_freq: int = _field(4, _COUNT)
    """Environment steps between two rounds of training."""
    gradient_steps: int = _field(1, _COUNT)
    """Updates in a round of training."""
    target_update_interval: int = _field(10_000, _COUNT)
    """Environment steps between two updates of the target network."""
    tau: float = _field(1.0, Range("float", 0, 1, open_low=True))
    """How far a target update moves towards the online network; 1 copies it."""
    learning_starts: int = _field(100, Range("int", 0, _MAX_INT))
    """Environment steps of random actions before training starts."""
    epsilon_start: float = _field(1.0, _PROBABILITY)
    epsilon_end: float = _field(0.05, _PROBABILITY)
    epsilon_decay_steps: int = _field(-1, Range("int", 0, _MAX_INT))
    """Steps over which epsilon falls from start to end; a tenth of the steps where it is not given."""
    max_grad_norm: float = _field(10.0, _POSITIVE)
    """Global norm above which a gradient is scaled down; infinite for no clipping."""
    hidden_sizes: tuple[int, ...] = _field((64, 64), Range("sizes"))
    """Widths of the hidden layers; empty for a linear Q-function."""
    huber_delta: float = _field(1.0, _POSITIVE)
    """Where the Huber loss turns from a square to a line; infinite for the squared error."""
    n_step: int = _field(1, _COUNT)
    """Rewards summed before bootstrapping."""
    double_q: bool = _field(False, Range("bool"))
    """Choose the bootstrap action with the online network (double DQN)."""
    dueling: bool = _field(False, Range("bool"))
    """Split the network's head into value and advantages."""
    normalize_observations: bool = _field(False, Range("bool"))
    """Standardise observations with the mean and deviation of random play."""

    @classmethod
    def create(cls, values: Mapping[str, Any], total_steps: int) -> "Configuration":
        """A checked configuration of ``values``; what they do not name takes its default.

        Raises:
            InputError: an unknown name or a value out of range, with what is accepted.
        """
        checked = {name: check_value(name, value) for name, value in values.items()}
        checked.setdefault("epsilon_decay_steps", max(1, total_steps // 10))
        return cls(**checked)

    @property
    def shape(self) -> "Shape":
        rows = minibatch_rows(self.batch_size)
        return Shape(self.hidden_sizes, self.dueling, rows, self.n_step)

    @property
    def cadence(self) -> "Cadence":
        return Cadence(self.train_freq, self.gradient_steps)


NAMES: tuple[str, ...] = tuple(field.name for field in dataclasses.fields(Configuration))
"""Every hyperparameter but the seed, in the order in which results list them."""

_RANGES: dict[str, Range] = {
    field.name: field.metadata["range"] for field in dataclasses.fields(Configuration)
}


def check_name(name: str) -> None:
    """Raises ``InputError`` where ``name`` is no hyperparameter, with the nearest names."""
    if name not in _RANGES:
        raise InputError.unknown("hyperparameter", name, NAMES)


def check_value(name: str, value: Any) -> Any:
    """``value`` as hyperparameter ``name`` takes it (text such as "1e4" is read as a number).

    Raises:
        InputError: an unknown name or a value that it does not accept.
    """
    check_name(name)
    try:
        return _RANGES[name].parse(value)
    except (ValueError, TypeError, OverflowError):
        raise InputError(f"{name} is {value!r}; it must be {_RANGES[name]}.") from None


def is_numeric(name: str) -> bool:
    """Whether hyperparameter ``name`` is a number, so that it can be drawn from an interval."""
    return _RANGES[name].kind in ("float", "int")


def is_integer(name: str) -> bool:
    """Whether hyperparameter ``name`` is a whole number."""
    return _RANGES[name].kind == "int"


class Shape(NamedTuple):
    """What fixes the arrays of an agent's program: hashable, a compile-time constant."""

    hidden_sizes: tuple[int, ...]
    dueling: bool
    minibatch_rows: int
    """Transitions read for an update, of which an agent uses its first ``batch_size``."""
    n_step: int


def minibatch_rows(batch_size: int) -> int:
    """The rows of the program that trains with ``batch_size``: a power of two up to 16, then a
    multiple of 16, and above 128 of an eighth of the next power of two.

    So that an interval of batch sizes needs a few programs: 100 costs a fifteenth less than 112, and
    a program more than a second of compilation. A rule of the batch size alone, since an agent's bits
    would otherwise depend on who else is trained.
    """
    power = (batch_size - 1).bit_length()
    step = 2**power if power <= 4 else max(16, 2 ** (power - 3))
    return -(-batch_size // step) * step


class Cadence(NamedTuple):
    """The rhythm of acting and training, in environment steps and in updates."""

    train_freq: int
    gradient_steps: int


class Hyperparameters(NamedTuple):
    """The traced hyperparameters of one agent. Scalars, but for the two ``observation_`` fields."""

    learning_rate: jax.Array
    gamma: jax.Array
    batch_size: jax.Array
    """int32, at most the shape's ``minibatch_rows``."""
    buffer_size: jax.Array
    """Replay window in transitions, int32."""
    target_update_interval: jax.Array
    tau: jax.Array
    learning_starts: jax.Array
    epsilon_start: jax.Array
    epsilon_end: jax.Array
    epsilon_decay_steps: jax.Array
    max_grad_norm: jax.Array
    huber_delta: jax.Array
    double_q: jax.Array
    """bool."""
    observation_mean: jax.Array
    """[O]; zeros where observations are not normalised."""
    observation_std: jax.Array
    """[O]; ones where observations are not normalised."""
