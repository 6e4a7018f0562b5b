"""What a sweep is told: everything that decides its numbers, checked."""

import dataclasses
import math
import shlex
from collections.abc import Mapping
from typing import Any

from jaxrl.errors import InputError
from jaxrl.population.plan import Budget
from jaxrl.search.allowance import OFFERING, Allowance
from jaxrl.search.models import MODELS
from jaxrl.search.parameters import check_parameter, check_seed
from jaxrl.search.pbt import FEWEST
from jaxrl.search.pruners import PRUNERS
from jaxrl.search.results import AVERAGES, SELECTIONS
from jaxrl.search.study import MOST_BY_GP, SAMPLER_NAMES
from jaxrl.search.table import format_cell

FINALIST_EPISODES = 1_000
"""Of the final evaluation of finalists, as the hands-on-rl course evaluates its best agent."""
MAX_AGENTS = 1_000_000
MAX_EPISODES = 1_000_000
_LEAST = {
    **dict.fromkeys(("configs", "seeds", "final_seeds"), 1),
    **dict.fromkeys(("steps", "eval_episodes", "final_episodes"), 1),
    **dict.fromkeys(("verify", "finalists"), 0),
}
_KINDS: dict[str, Any] = {
    **{str(kind): kind for kind in (int, str, bool)},
    **{str(int | None): int, str(str | None): str},
    **{str(float | None): (int, float)},
}
"""By a field's type what its value may be an instance of; a number is no truth value."""
_CHOICES = {
    **{"sampler": SAMPLER_NAMES, "pruner": tuple(PRUNERS), "select": tuple(SELECTIONS)},
    **{"rank_by": tuple(AVERAGES), "device": ("auto", "cpu", "gpu")},
}
_LEARNED_IN, _LARGEST_LEARNED = 8, 64
"""Generations, by default, of a sampler that learns, and the most configurations of one."""
_TIMED_IN = 8
"""Generations, about, by default, of a search that is given time."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepSpec:
    """Everything that decides a sweep's numbers.

    ``eval_every`` None is a twentieth of the steps; ``generations`` None is one, or what the sampler
    needs to learn from. ``budget_seconds`` of device time, where given, decide how many configurations
    there are, and not ``configs``; ``pruner`` None is then ``halving``, and else ``none``.
    """

    space: str = "cartpole"
    configs: int = 128
    budget_seconds: float | None = None
    config_table: str | None = None
    sampler: str = "random"
    generations: int | None = None
    pruner: str | None = None
    pbt: bool = False
    pbt_every: int | None = None
    stop_at: float | None = None
    verify: int = 0
    finalists: int = 0
    final_seeds: int = 20
    seeds: int = 1
    seed: int = 0
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    env: str = "CartPole-v1"
    network: str | None = None
    steps: int = 50_000
    eval_every: int | None = None
    eval_episodes: int = 10
    final_episodes: int = 100
    select: str = "last"
    rank_by: str = "mean"
    device: str = "auto"

    def __post_init__(self) -> None:
        self._check_kinds()
        fixed = {name: check_parameter(name, value) for name, value in self.fixed.items()}
        object.__setattr__(self, "fixed", fixed)
        for name, least in _LEAST.items():
            if getattr(self, name) < least:
                raise InputError(f"{name} is {getattr(self, name)}; it must be {least} or more.")
        if self.pruner is None:
            is_timed = self.budget_seconds is not None and not self.pbt
            object.__setattr__(self, "pruner", "halving" if is_timed else "none")
        self._check_budget()
        most = self.configs if self.budget_seconds is None else MAX_AGENTS
        if self.generations is not None and not 1 <= self.generations <= most:
            raise InputError(
                f"{most:,} configurations cannot be drawn in {self.generations} generations: "
                f"use --generations from 1 to {most}."
            )
        if self.config_table is not None and self.generations is not None:
            raise InputError(
                "--generations draws configurations and --config-table lists them: give one of the two."
            )
        self._check_pbt()
        self._check_gp()
        if self.configs * self.seeds > MAX_AGENTS:
            raise InputError(
                f"{self.configs} configurations of {self.seeds} seeds are more than {MAX_AGENTS:,} "
                "agents: use fewer --configs or --seeds."
            )
        for name in ("eval_episodes", "final_episodes"):
            if getattr(self, name) > MAX_EPISODES:
                raise InputError(f"{name} is {getattr(self, name)}; {MAX_EPISODES:,} is the most.")
        if self.steps >= 2**31:
            raise InputError(f"steps is {self.steps}; it must be below 2^31.")
        if self.eval_every is not None and self.eval_every < 1:
            raise InputError(f"eval_every is {self.eval_every}; it must be 1 or more.")
        check_seed(self.seed)

    def _check_gp(self) -> None:
        if self.sampler != "gp" or self.config_table is not None or self.budget_seconds is not None:
            return
        if (most := max(self.sizes)) > MOST_BY_GP:
            raise InputError(
                f"the sampler gp takes its time for each configuration, and {most} in a generation are "
                f"more than {MOST_BY_GP}: use more --generations, or --sampler tpe."
            )

    def _check_kinds(self) -> None:
        """Of what the command line's own types and choices would refuse."""
        for field in dataclasses.fields(self):
            value, kinds = getattr(self, field.name), _KINDS.get(str(field.type))
            if value is None and "None" in str(field.type):
                continue
            is_number = kinds is not bool
            if kinds and (not isinstance(value, kinds) or (is_number and isinstance(value, bool))):
                raise InputError(f"{field.name} is {value!r}; it must be of type {field.type}.")
        for name, known in _CHOICES.items():
            if getattr(self, name) not in (None, *known):
                raise InputError.unknown(name, str(getattr(self, name)), known)
        if self.stop_at is not None and not math.isfinite(self.stop_at):
            raise InputError(f"stop_at is {self.stop_at}; it must be a finite number.")

    def _check_budget(self) -> None:
        given = self.budget_seconds
        if given is None:
            return
        if not (math.isfinite(given) and given > 0):
            raise InputError(f"budget_seconds is {given}; it must be a number above 0.")
        if self.config_table is not None:
            raise InputError(
                "--budget-seconds draws configurations as long as there is time and --config-table "
                "lists them: give one of the two."
            )
        if self.sampler not in OFFERING:
            raise InputError(
                f"--budget-seconds chooses among more candidates than it trains, which the sampler "
                f"{self.sampler} cannot offer: use --sampler {', '.join(OFFERING)}."
            )

    def _check_pbt(self) -> None:
        if not self.pbt:
            if self.pbt_every is not None:
                raise InputError("--pbt-every is for --pbt: give both, or neither.")
            return
        others = {
            "config_table": (self.config_table is not None, "takes hyperparameters from a space"),
            "seeds": (self.seeds > 1, "gives every agent a schedule of its own"),
            "pruner": (self.pruner != "none", "has those who do badly go on as copies"),
            "sampler": (self.sampler in MODELS, "scores schedules, and this sampler learns from"),
        }
        for name, (is_given, why) in others.items():
            if is_given:
                option = f"--{name.replace('_', '-')} {getattr(self, name)}"
                raise InputError(f"--pbt {why}, which {option} contradicts: give one of the two.")
        if self.budget_seconds is None and (smallest := min(self.sizes)) < FEWEST:
            raise InputError(
                f"--pbt replaces one agent of {FEWEST}, and there would be {smallest} in a generation: "
                "use more --configs, or fewer --generations."
            )
        every, interval = self.exploit_every, self.budget.eval_every
        if every % interval or not interval <= every < self.steps:
            raise InputError(
                f"pbt_every is {every}; it must be a multiple of the {interval} steps between "
                f"evaluations, below the {self.steps} steps of an agent."
            )

    def command(self) -> str:
        """The command line that asks for this."""
        words = ["python", "-m", "jaxrl.sweep"]
        defaults = SweepSpec(budget_seconds=self.budget_seconds, pbt=self.pbt)
        for field in dataclasses.fields(self):
            name, value = field.name, getattr(self, field.name)
            option = f"--{name.replace('_', '-')}"
            if name == "fixed":
                pairs = (f"{fixed}={format_cell(v)}" for fixed, v in value.items())
                words += [word for pair in pairs for word in ("--set", pair)]
            elif value is None or value is False:
                pass  # the default of what may be so
            elif name in ("budget_seconds", "pbt") or value != getattr(defaults, name):
                words += [option] if value is True else [option, format_cell(value)]
        return shlex.join(words)

    @property
    def exploit_every(self) -> int:
        """Steps between the rungs of population based training: by default a tenth, in whole
        evaluations."""
        every = self.budget.eval_every
        return (
            self.pbt_every
            if self.pbt_every is not None
            else every * max(1, self.steps // every // 10)
        )

    @property
    def allowance(self) -> Allowance | None:
        """Of a search that is given time."""
        if self.budget_seconds is None:
            return None
        return Allowance(self.budget_seconds, self.generations or _TIMED_IN)

    @property
    def budget(self) -> Budget:
        every = self.eval_every or max(1, self.steps // 20)
        return Budget(self.steps, min(every, self.steps), self.eval_episodes, self.final_episodes)

    @property
    def parts(self) -> int:
        """How many generations there are, or about how many where time decides."""
        return self.allowance.generations if self.allowance else len(self.sizes)

    @property
    def sizes(self) -> list[int]:
        """Configurations of each generation, where not time decides: as even as they can be; of
        ``cmaes`` all the same but the last, which takes the rest."""
        count = self.generations
        if count is None:
            count = 1
            if self.sampler in MODELS and self.config_table is None:
                count = min(self.configs, _LEARNED_IN)
                while max(self._sizes(count)) > _LARGEST_LEARNED:
                    count += 1
        return self._sizes(count)

    def _sizes(self, count: int) -> list[int]:
        size, rest = divmod(self.configs, count)
        if self.sampler == "cmaes":  # whose population keeps its size
            return [size] * (count - 1) + [size + rest]
        return [size + 1] * rest + [size] * (count - rest)
