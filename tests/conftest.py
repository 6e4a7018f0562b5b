"""What the tests share: the CPU, hypothesis without surprises, and an agent's hyperparameters."""

import dataclasses
import os
import shutil
import tempfile

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.dqn.hyperparameters import Configuration, Hyperparameters
from jaxrl.population.devices import configure
from jaxrl.population.program import ProgramStore
from jaxrl.population.tile import HYPERPARAMETER_DTYPES

# Processes that tests start share a compilation cache, and it is not the user's; here is none.
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="jaxrl-tests-")
configure("cpu")  # in time: JAX starts its backends at their first use
jax.config.update("jax_enable_compilation_cache", False)
os.environ["JAX_PLATFORMS"] = "cpu"  # for the processes that tests start

# Compilation takes longer than any deadline; a fixed order of examples keeps failures reproducible.
hypothesis.settings.register_profile("jaxrl", deadline=None, derandomize=True)
hypothesis.settings.load_profile("jaxrl")


pytest.register_assert_rewrite("mlflow_behind_tunnel")


def pytest_unconfigure():
    shutil.rmtree(os.environ["XDG_CACHE_HOME"], ignore_errors=True)


@pytest.fixture(scope="session")
def make_hyper():
    """Makes traced hyperparameters of one agent: the defaults, but for what is named."""

    def make(**changes):
        defaults = dataclasses.asdict(Configuration(epsilon_decay_steps=1000))
        values = {**defaults, "observation_mean": 0.0, "observation_std": 1.0, **changes}
        names = Hyperparameters._fields
        dtypes = {name: HYPERPARAMETER_DTYPES.get(name, np.float32) for name in names}
        return Hyperparameters(**{name: jnp.asarray(values[name], dtypes[name]) for name in names})

    return make


class SharedPrograms(ProgramStore):
    """One store for every training of this process, each of which makes its environment anew."""

    _programs: dict = {}  # noqa: RUF012
    _environments: dict = {}  # noqa: RUF012

    def __init__(self): ...

    def get(self, functions, device):
        env = functions.env
        if ":" not in env.env_id and env.network is None:
            functions = dataclasses.replace(
                functions, env=self._environments.setdefault(env.env_id, env)
            )
        return super().get(functions, device)


@pytest.fixture(scope="module")
def compilation_cache():
    """For tests that trace and compile the same programs again and again: once is enough."""
    jax.config.update("jax_enable_compilation_cache", True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jaxrl.generations.ProgramStore", SharedPrograms)
        patch.setattr("jaxrl.population.train.ProgramStore", SharedPrograms)
        yield
    jax.config.update("jax_enable_compilation_cache", False)


LONG = (
    *(
        "test_resume.py",
        "test_search.py",
        "test_population.py",
        "test_tunnel.py",
        "test_serve.py",
        "test_programs.py",
    ),
    *("test_notebook.py", "test_dashboard.py", "test_sync.py", "test_snapshot.py", "test_bench.py"),
)
"""Files that take longest: begun first, so that the two processes end together."""


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


def pytest_addoption(parser):
    parser.addoption("--screenshots", help="a folder for what the browser saw")
