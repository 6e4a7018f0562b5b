"""A trained policy on disk, see :mod:`jaxrl.loader`: made of what training gave, and read with care."""

import dataclasses
import pathlib
from typing import Any

import numpy as np

from jaxrl.errors import InputError, named
from jaxrl.loader import Policy, load
from jaxrl.search.parameters import check_seed
from jaxrl.search.schedule import to_agent, to_values


def load_policy(directory: str | pathlib.Path, network: str | None = None) -> Policy:
    """The policy that a sweep saved in ``directory`` (``RUN_DIR/best/1``, say).

    Args:
        network: ``MODULE:NAME`` of the flax module that it was trained with, where that is your own:
            its code is run, so the file alone does not decide it.

    Raises:
        InputError: no policy is there, or its files are damaged, or of another network.
    """
    try:
        policy = load(directory)
        agent = to_agent(policy.configuration, check_seed(policy.seed), 1)
        policy = dataclasses.replace(policy, configuration=to_values(agent), seed=agent.seed)
    except Exception as error:  # whatever there is to be read, whoever wrote it
        raise InputError(f"no usable policy in {directory} ({named(error)}).") from None
    if policy.network == network:
        return policy if network is None else _OwnPolicy.of(policy)
    told = "none was named" if network is None else f"{network!r} was named"
    if policy.network is None:
        raise InputError(
            f"the policy in {directory} has jaxrl's network, and {told}: leave it out."
        )
    raise InputError(
        f"the network of the policy in {directory} is {policy.network!r}, and {told}: name it "
        "(--network), if you trust its code."
    )


class _OwnPolicy(Policy):
    """One whose network is the user's."""

    @classmethod
    def of(cls, policy: Policy) -> "_OwnPolicy":
        own = cls(**{f.name: getattr(policy, f.name) for f in dataclasses.fields(policy)})
        own.q_values(np.zeros_like(own.observation_mean))
        return own

    def q_values(self, observations: Any) -> np.ndarray:
        from flax.traverse_util import unflatten_dict  # slow to import

        from jaxrl.dqn.environment import make
        from jaxrl.dqn.networks import network_of

        configuration = to_agent(self.configuration, self.seed, 1).configuration
        network: Any = network_of(configuration.shape, make(self.env_id, self.network))
        rows = self.normalise(observations).reshape(-1, len(self.observation_mean))
        q = network.apply({"params": unflatten_dict(self.params, sep=".")}, rows)
        return np.asarray(q).reshape(*np.shape(observations)[:-1], -1)
