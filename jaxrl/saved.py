"""A sweep's specification as ``sweep.json`` keeps it, and back."""

import dataclasses
import json
import pathlib
import platform
from collections.abc import Mapping
from typing import Any

from jaxrl.errors import InputError
from jaxrl.preparation import PreparedSweep, prepared
from jaxrl.rundir import SPECIFICATION
from jaxrl.search.generation import SEARCH, Generation
from jaxrl.search.schedule import to_agent
from jaxrl.search.space import Space, parse_space
from jaxrl.specification import SweepSpec
from jaxrl.tracking.projection import Description
from jaxrl.versions import STACK, version


def sweep_json(sweep: PreparedSweep, description: Description) -> dict[str, Any]:
    """The content of ``sweep.json``."""
    return {
        "spec": dataclasses.asdict(sweep.spec),
        "versions": _versions(),
        "platform": sweep.plan.hardware.platform,
        "device": sweep.plan.hardware.description,
        "parameters": None if sweep.space is None else sweep.space.content(),
        **dataclasses.asdict(description),
    }


@dataclasses.dataclass(frozen=True)
class SavedSweep:
    """What the ``sweep.json`` of a run directory says."""

    directory: pathlib.Path
    spec: SweepSpec
    platform: str
    device: str
    versions: Mapping[str, str | None]
    description: Description
    space: Space | None

    @classmethod
    def read(cls, directory: pathlib.Path) -> "SavedSweep":
        """Of the sweep in ``directory``.

        Raises:
            InputError: there is none, or it cannot be read.
        """
        path = directory / SPECIFICATION
        try:
            content = json.loads(path.read_text("utf-8"))
            fields = [field.name for field in dataclasses.fields(Description)]
            return cls(
                directory,
                SweepSpec(**content["spec"]),
                content["platform"],
                content["device"],
                content["versions"],
                Description(**{name: content[name] for name in fields}),
                parse_space(content["parameters"]) if content["parameters"] else None,
            )
        except (FileNotFoundError, NotADirectoryError):
            raise InputError(
                f"{directory} is no run directory: it has no {SPECIFICATION}. Give one that a sweep "
                "made."
            ) from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise InputError(f"{path} cannot be used ({reason}).") from None

    def refuse_other(self, given: Mapping[str, Any]) -> None:
        """Raises ``InputError`` where the fields ``given`` of a specification are not this one's."""
        stored = {**dataclasses.asdict(self.spec), "experiment": self.description.experiment}
        pairs = {name: (_text(stored[name]), _text(v)) for name, v in given.items()}
        others = [
            f"{n} is {there} there and {here} here"
            for n, (there, here) in pairs.items()
            if there != here
        ]
        if others:
            raise InputError(
                f"--resume {self.directory}: what was begun has another specification: "
                f"{'; '.join(others)}. Leave these options out, or begin a new sweep."
            )

    @property
    def generation(self) -> Generation:
        """The first."""
        said, steps = self.description, self.spec.steps
        named = [to_agent(values, 0, steps) for values in said.configurations]
        pairs = zip(said.configs, said.seeds, strict=True)
        agents = tuple(dataclasses.replace(named[config], seed=seed) for config, seed in pairs)
        return Generation(0, SEARCH, 0, agents, tuple(said.configs))

    def prepare(self) -> PreparedSweep:
        """The sweep as it was begun: the same configurations, whatever has become of its space.

        Raises:
            InputError: it cannot go on here.
        """
        sweep = prepared(self.spec, self.space, self.generation)
        here = sweep.plan.hardware.platform
        if here != self.platform:
            raise InputError(
                f"the sweep in {self.directory} was trained on a {self.platform}, where the same "
                f"numbers come out, and this is a {here}: go on with --resume where there is a "
                f"{self.platform}, or begin a new sweep."
            )
        changed = [
            f"{name} {self.versions[name]} has become {here}"
            for name, here in _versions().items()
            if self.versions.get(name) not in (None, here) and name not in ("mlflow", "python")
        ]
        if not changed:
            return sweep
        warning = f"{', '.join(changed)}: numbers from here on may differ in their last digits"
        return dataclasses.replace(sweep, warnings=(*sweep.warnings, warning))


def _text(value: Any) -> str:
    """The same for the same, 475 and 475.0 among them."""
    is_whole = isinstance(value, float) and value.is_integer()
    return json.dumps(int(value) if is_whole else value, sort_keys=True)


def _versions() -> dict[str, str | None]:
    return {"python": platform.python_version(), **{name: version(name) for name in STACK}}
