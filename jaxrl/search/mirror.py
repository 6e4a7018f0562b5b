"""A copy of a search in the user's own Optuna storage, where optuna-dashboard shows it."""

import concurrent.futures
import functools
import json
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jaxrl.errors import InputError, brief, without_secrets
from jaxrl.search.models import Told
from jaxrl.search.parameters import Choice, Varying, check_parameter
from jaxrl.search.space import Space

if TYPE_CHECKING:  # imported where it is used: it takes a while
    import optuna

_SWEEP, _CONFIG = "jaxrl.sweep", "config"


class StudyCopy:
    """Copies a search to an Optuna ``storage`` on a thread of its own, since a database takes its time.

    The study is called ``name``; see :func:`mirror` for the rest.

    Raises:
        InputError: the storage cannot be used, or the study holds something else.
    """

    def __init__(self, storage: str, name: str, sweep: str, space: Space) -> None:
        self._copy = functools.partial(mirror, storage, name, sweep, space)
        self._thread = concurrent.futures.ThreadPoolExecutor(max_workers=1)
        self._copies: list[concurrent.futures.Future[int]] = []
        self._copy([])

    def send(self, told: Sequence[Told]) -> None:
        """Copies what was told so far, some time soon."""
        self._copies.append(self._thread.submit(self._copy, told))

    def close(self) -> str | None:
        """Waits for it; what went wrong, if anything did."""
        self._thread.shutdown()
        errors = (copy.exception() for copy in self._copies)
        return next((str(error) for error in errors if error is not None), None)


def mirror(storage: str, study: str, sweep: str, space: Space, told: Sequence[Told]) -> int:
    """Writes what was ``told`` to the study named ``study`` in an Optuna ``storage``, such as
    ``sqlite:///study.db``: a trial a configuration, its number as user attribute ``config``. What the
    study has already is not written again, so call it with all that was told so far. With nothing
    told it makes the study only. Returns how many trials it has written.

    ``sweep`` identifies the search: a study holds one.

    Raises:
        InputError: the storage cannot be used, or the study holds something else.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        there = optuna.create_study(
            storage=storage, study_name=study, direction="maximize", load_if_exists=True
        )
        trials = there.get_trials(deepcopy=False)
        owner = there.user_attrs.get(_SWEEP)
        if owner is None and not trials:
            there.set_user_attr(_SWEEP, sweep)
        elif owner != sweep:
            raise InputError(
                f"the study {study} in {without_secrets(storage)} holds another search: give this "
                "one another name or storage."
            )
        written = {trial.user_attrs[_CONFIG] for trial in trials}
        new = [n for n in range(len(told)) if n not in written]
        there.add_trials(_trial(space, told[n], n) for n in new)
    except InputError:
        raise
    except Exception as error:  # whatever a database and its driver raise
        raise InputError(
            f"the Optuna storage {without_secrets(storage)} cannot be used ({brief(error)}): give an "
            "address such as sqlite:///study.db."
        ) from None
    return len(new)


def _trial(space: Space, told: Told, number: int) -> "optuna.trial.FrozenTrial":
    import optuna

    params: dict[str, Any] = {}
    attributes: dict[str, Any] = {_CONFIG: number}

    def draw(name: str, parameter: Varying) -> Any:
        value = check_parameter(name, told.values[name])
        (attributes if name == "seed" else params)[name] = _readable(value)  # a seed is no cause
        return value

    space.build(draw)
    return optuna.trial.create_trial(
        state=optuna.trial.TrialState[told.state],
        value=told.score if told.state == "COMPLETE" else None,
        params=params,
        distributions={name: _distribution(space.parameters[name]) for name in params},
        intermediate_values=told.curve,
        user_attrs=attributes,
    )


def _readable(value: Any) -> Any:
    """``value`` as Optuna can keep it: a list as JSON."""
    return json.dumps(value) if isinstance(value, tuple) else value


def _distribution(parameter: Any) -> "optuna.distributions.BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(parameter, Choice):
        return CategoricalDistribution(list(dict.fromkeys(map(_readable, parameter.values))))
    low, high = parameter.low, parameter.at(1.0)
    if parameter.integer:
        return IntDistribution(low, high, log=parameter.log, step=round(parameter.step or 1))
    return FloatDistribution(low, high, log=parameter.log)  # Optuna's steps end elsewhere
