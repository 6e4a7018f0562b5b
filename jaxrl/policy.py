"""A trained policy on disk, see :mod:`jaxrl.loader`: made of what training gave, and read with care."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxrl.errors import InputError, named
from jaxrl.loader import Policy, load
from jaxrl.search.parameters import check_seed
from jaxrl.search.schedule import to_agent, to_values


def load_policy(
    directory: str | pathlib.Path, network: str | None = None, env: str | None = None
) -> Policy:
    """The policy that a sweep saved in ``directory`` (``RUN_DIR/best/1``, say).

    Args:
        network: ``MODULE:NAME`` of the flax module that it was trained with, where that is your own:
            its code is run, so the file alone does not decide it.
        env: with that, ``MODULE:NAME`` of the environment, where that is your own too.

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
        if network is None:
            return policy
        check_env(policy, env)
        try:
            return _OwnPolicy.of(policy)
        except Exception as error:  # its network is no more what it was
            raise InputError(
                f"the policy in {directory} cannot act with {network} here ({named(error)})."
            ) from None
    told = "none was named" if network is None else f"{network!r} was named"
    if policy.network is None:
        raise InputError(
            f"the policy in {directory} has jaxrl's network, and {told}: leave it out."
        )
    raise InputError(
        f"the network of the policy in {directory} is {policy.network!r}, and {told}: name it "
        "(--network), if you trust its code."
    )


def check_env(policy: Policy, env: str | None) -> None:
    """Raises ``InputError`` where the policy's environment is somebody's own, whose code would be run,
    and is not ``env``, which the user has named."""
    if ":" in policy.env_id and policy.env_id != env:
        raise InputError(
            f"the environment of the policy is {policy.env_id!r}: name it (--env), if you trust its "
            "code."
        )


class _OwnPolicy(Policy):
    """One whose network is the user's."""

    @classmethod
    def of(cls, policy: Policy) -> "_OwnPolicy":
        own = cls(**{f.name: getattr(policy, f.name) for f in dataclasses.fields(policy)})
        own.q_values(np.zeros_like(own.observation_mean))
        return own

    @functools.cached_property
    def _apply(self) -> Callable[[np.ndarray], Any]:
        import jax  # slow to import, as the next
        from flax.traverse_util import unflatten_dict

        from jaxrl.dqn.environment import make
        from jaxrl.dqn.networks import network_of

        configuration = to_agent(self.configuration, self.seed, 1).configuration
        network: Any = network_of(configuration.shape, make(self.env_id, self.network))
        params = {"params": unflatten_dict(self.params, sep=".")}
        return jax.jit(lambda rows: network.apply(params, rows))

    def q_values(self, observations: Any) -> np.ndarray:
        rows = self.normalise(observations).reshape(-1, len(self.observation_mean))
        return np.asarray(self._apply(rows)).reshape(*np.shape(observations)[:-1], -1)
