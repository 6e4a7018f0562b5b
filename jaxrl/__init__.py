"""A hyperparameter search for deep Q-networks as one computation; see :func:`jaxrl.sweep`."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxrl.api import Sweep, sweep
    from jaxrl.errors import InputError, SweepError
    from jaxrl.loader import Policy
    from jaxrl.policy import load_policy
    from jaxrl.search.space import Space
    from jaxrl.specification import SweepSpec
    from jaxrl.tracking.session import Tracking

__all__ = [
    "InputError",
    "Policy",
    "Space",
    "Sweep",
    "SweepError",
    "SweepSpec",
    "Tracking",
    "load_policy",
    "sweep",
]

_HOMES = {
    **dict.fromkeys(("Sweep", "sweep"), "jaxrl.api"),
    **dict.fromkeys(("InputError", "SweepError"), "jaxrl.errors"),
    **{"Policy": "jaxrl.loader", "load_policy": "jaxrl.policy"},
    **{"Space": "jaxrl.search.space", "SweepSpec": "jaxrl.specification"},
    "Tracking": "jaxrl.tracking.session",
}


def __getattr__(name: str) -> Any:
    """What is for users, imported when it is asked for: a command needs little of it."""
    if name not in _HOMES:
        raise AttributeError(f"module 'jaxrl' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
