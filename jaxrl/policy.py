"""A trained policy on disk, see :mod:`jaxrl.loader`: made of what training gave, and read with care."""

import dataclasses
import pathlib

from jaxrl.errors import InputError
from jaxrl.loader import Policy, load
from jaxrl.search.parameters import check_seed
from jaxrl.search.schedule import to_agent, to_values


def load_policy(directory: str | pathlib.Path) -> Policy:
    """The policy that a sweep saved in ``directory`` (``RUN_DIR/best/1``, say).

    Raises:
        InputError: no policy is there, or its files are damaged.
    """
    try:
        policy = load(directory)
        agent = to_agent(policy.configuration, check_seed(policy.seed), 1)
        return dataclasses.replace(policy, configuration=to_values(agent), seed=agent.seed)
    except Exception as error:  # whatever there is to be read, whoever wrote it
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"no usable policy in {directory} ({reason}).") from None
