"""What the commands do, from Python: the documented examples, and an environment of one's own."""

import doctest
import json
import math
import pathlib
import shlex
import subprocess
import sys

import numpy as np
import pytest

import jaxrl
import jaxrl.api
from jaxrl.api import Sweep, sweep
from jaxrl.errors import InputError
from jaxrl.policy import load_policy
from jaxrl.search.space import Space
from jaxrl.specification import SweepSpec
from jaxrl.sweep import main
from jaxrl.sweep_options import given_fields, parser
from jaxrl.tracking.session import Tracking

pytestmark = pytest.mark.usefixtures("compilation_cache")

TINY = {"steps": 200, "eval_episodes": 1, "final_episodes": 1, "device": "cpu"}


def test_the_documented_example_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    failed, tried = doctest.testmod(jaxrl.api)
    assert (failed, tried) == (0, 6)


def test_everything_that_is_offered_can_be_imported():
    code = "import jaxrl\nfor name in jaxrl.__all__: getattr(jaxrl, name)\nfrom jaxrl import sweep"
    subprocess.run([sys.executable, "-c", f"{code}\nassert callable(sweep)"], check=True)
    with pytest.raises(AttributeError):
        _ = jaxrl.nothing


def test_it_is_the_sweep_of_the_command(tmp_path):
    space = Space({"gamma": {"choices": [0.9, 0.99]}, "hidden_sizes": [8], "batch_size": 8})
    (tmp_path / "space.yaml").write_text(space.to_yaml())
    found = sweep(SweepSpec(configs=3, seed=7, **TINY), tmp_path / "called", space=space)
    assert found.status == "finished"
    options = [word for n, v in TINY.items() for word in (f"--{n.replace('_', '-')}", str(v))]
    drawn = ["--space", str(tmp_path / "space.yaml"), "--configs", "3", "--seed", "7"]
    assert main([*drawn, *options, "--no-track", "--run-dir", str(tmp_path / "run")]) == 0
    same = [(tmp_path / name / "results.csv").read_text() for name in ("called", "run")]
    assert same[0] == same[1]
    assert list(found.results["hidden_sizes"]) == [[8]] * 3
    assert found.report.exists()
    again = sweep(SweepSpec(configs=3, seed=7, **TINY), tmp_path / "called", space=space)
    assert again.status == "finished"
    with pytest.raises(InputError, match="another specification"):
        sweep(SweepSpec(configs=4, seed=7, **TINY), tmp_path / "called", space=space)
    other = Space({"gamma": 0.9})
    with pytest.raises(InputError, match="a sweep of another space"):
        sweep(SweepSpec(configs=3, seed=7, **TINY), tmp_path / "called", space=other)


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1, "finalists": 1, "final_seeds": 1, "verify": 1, "generations": 1},
        {"eval_episodes": 1, "stop_at": 0.0, "pbt": True, "select": "best"},
        {"budget_seconds": 1.0, "fixed": {"gamma": 1.0, "hidden_sizes": (8,), "dueling": True}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_the_command_of_a_specification_asks_for_it(changes):
    spec = SweepSpec(**changes)
    words = shlex.split(spec.command())
    assert words[:3] == ["python", "-m", "jaxrl.sweep"]
    assert SweepSpec(**given_fields(parser(None).parse_args(words[3:]))) == spec


def test_what_is_fixed_is_as_the_command_line_has_it(tmp_path):
    spec = SweepSpec(fixed={"batch_size": np.int64(16), "hidden_sizes": [8]})
    assert json.loads(json.dumps(spec.fixed)) == {"batch_size": 16, "hidden_sizes": [8]}
    with pytest.raises(InputError, match="batch_size"):
        SweepSpec(fixed={"batch_size": "many"})
    for target in (600, 600.0):
        spec = SweepSpec(configs=1, stop_at=target, fixed={"hidden_sizes": [8]}, **TINY)
        assert sweep(spec, tmp_path / "run").status == "finished"


@pytest.mark.parametrize("wrong", [{"track": "top10"}, {"register": "a/b"}], ids=str)
def test_tracking_is_checked_before_anything_is_made(wrong):
    with pytest.raises(InputError):
        Tracking(**wrong)


def test_results_hold_numbers_also_where_they_are_none(tmp_path):
    (tmp_path / "results.csv").write_text("score,norm,sizes\nnan,inf,[8]\n1.5,10,[]\n")
    table = Sweep(tmp_path, "finished", SweepSpec()).results
    assert table["score"].mean() == 1.5
    assert list(table["norm"]) == [math.inf, 10]
    assert list(table["sizes"]) == [[8], []]


ENVIRONMENT = (
    """
import jax, jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces

@struct.dataclass
class State:
    time: jax.Array
    place: jax.Array

class Walk(environment.Environment):
    num_actions = 2

    def show(self, state):
        return state.place[None]

    def reset_env(self, key, params):
        state = State(jnp.int32(0), jnp.float32(0))
        return self.show(state), state

    def step_env(self, key, state, action, params):
        """
    + '"""Right is rewarded, left is not."""'
    + """
        state = State(state.time + 1, state.place + 2 * action - 1)
        return self.show(state), state, jnp.float32(action), jnp.bool_(False), {}

    @property
    def default_params(self):
        return environment.EnvParams(max_steps_in_episode=10)

    def action_space(self, params):
        return spaces.Discrete(2)

    def observation_space(self, params):
        return spaces.Box(-10, 10, (1,), jnp.float32)
"""
)


def test_an_environment_of_ones_own_is_learnt(tmp_path, monkeypatch):
    (tmp_path / "walking.py").write_text(ENVIRONMENT)
    monkeypatch.syspath_prepend(tmp_path)
    options = {"learning_rate": 1e-2, "learning_starts": 50, "train_freq": 1, "hidden_sizes": [8]}
    fixed = {**options, "target_update_interval": 50, "epsilon_end": 0.1, "gamma": 0.9}
    space = Space({**fixed, "batch_size": 16})
    spec = SweepSpec(configs=1, env="walking:Walk", **{**TINY, "steps": 3_000, "final_episodes": 5})
    found = sweep(spec, tmp_path / "run", space=space)
    assert list(found.results["eval_return_mean"]) == [10.0]


@pytest.mark.parametrize("env", ["walking:Nothing", "nowhere:Walk", "json:loads", "walking:"])
def test_an_environment_that_is_none_is_refused(env, tmp_path, monkeypatch):
    (tmp_path / "walking.py").write_text(ENVIRONMENT)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match="cannot be used"):
        sweep(SweepSpec(configs=1, env=env, **TINY), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        *({"select": "worst"}, {"rank_by": "median"}, {"pruner": "half"}, {"device": "tpu"}),
        *({"configs": "8"}, {"configs": 8.5}, {"budget_seconds": "10"}, {"verify": True}),
        *({"stop_at": math.nan}, {"pbt": "no"}, {"env": 3}),
    ],
    ids=str,
)
def test_a_specification_is_checked_as_the_command_line_is(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        SweepSpec(**wrong)


def test_what_is_given_must_be_of_its_kind(tmp_path):
    for given in ({"space": "cartpole"}, {"tracking": "sqlite:///mlflow.db"}):
        with pytest.raises(InputError, match=r"sweep\(\) takes a"):
            sweep(SweepSpec(configs=1, **TINY), tmp_path / "run", **given)
    assert not (tmp_path / "run").exists()


def readme_example(start):
    """The README's block of Python that begins so."""
    text = (pathlib.Path(__file__).parents[1] / "README.md").read_text()
    return text[text.index(start) : text.index("```", text.index(start))]


def test_a_network_of_ones_own_is_trained_and_saved(tmp_path, monkeypatch):
    (tmp_path / "looking.py").write_text(readme_example("import flax.linen as nn\n"))
    monkeypatch.syspath_prepend(tmp_path)
    space = Space({"batch_size": 8, "learning_starts": 50, "train_freq": 10})
    network = "looking:Convolution"
    spec = SweepSpec(configs=1, env="Breakout-MinAtar", network=network, **TINY)
    found = sweep(spec, tmp_path / "run", space=space)
    assert list(found.results["updates"]) == [15]
    observations = np.random.default_rng(0).integers(0, 2, (5, 400))
    best = tmp_path / "run" / "best" / "1"
    policy = load_policy(best, network)
    assert policy.q_values(observations).shape == (5, 3)
    assert policy.act(observations[0]).shape == ()
    assert policy.params["Conv_0.kernel"].shape == (3, 3, 4, 16)
    assert len({*map(str, policy.q_values(observations))}) == 5  # it looks at what it is shown
    for told, said in ((None, "none was named"), ("looking:Other", "'looking:Other' was named")):
        with pytest.raises(InputError, match=said):
            load_policy(best, told)
    action = found.policy().act(observations[0])  # who trained it trusts its code
    assert action == policy.act(observations[0])


SEVEN = """
import flax.linen as nn

class Seven(nn.Module):
    num_actions: int

    @nn.compact
    def __call__(self, x):
        return nn.Dense(7)(x)
"""


@pytest.mark.parametrize(
    "network", ["looking:Nothing", "nowhere:Net", "json:loads", "flax.linen:Dense", "looking:Seven"]
)
def test_a_network_that_is_none_is_refused(network, tmp_path, monkeypatch):
    (tmp_path / "looking.py").write_text(SEVEN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "looking", raising=False)
    with pytest.raises(InputError, match="cannot be used"):
        sweep(SweepSpec(configs=1, network=network, **TINY), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_readmes_call_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = readme_example("from jaxrl import Space, SweepSpec, Tracking, sweep\n")
    small = "configs=2, steps=200, eval_episodes=1, final_episodes=1, final_seeds=1"
    code = code.replace("configs=64", small).replace("[256, 256]", "[8]").replace("1e-5", "1e-4")
    names = {"observation": [0.0, 0.0, 0.1, 0.0]}
    exec(code, names)
    assert len(names["found"].results) == 4
