"""Policies on disk: what was saved acts as what was trained, and damage is said."""

import dataclasses
import json
import math
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxrl.dqn.hyperparameters import Configuration
from jaxrl.dqn.networks import QNetwork
from jaxrl.errors import InputError
from jaxrl.loader import Policy
from jaxrl.policy import load_policy

OBSERVATIONS = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)

NETWORKS = [
    {},
    {"hidden_sizes": []},
    {"hidden_sizes": [], "dueling": True},
    {"hidden_sizes": [64, 64], "dueling": True, "normalize_observations": True},
]


def make_policy(num_actions=3, **values):
    configuration = Configuration.create({"hidden_sizes": [16, 8], **values}, 1000)
    network = QNetwork.of(configuration.shape, num_actions)
    rng = np.random.default_rng(1)
    return Policy(
        env_id="CartPole-v1",
        num_actions=num_actions,
        configuration=dataclasses.asdict(configuration),
        seed=2**32 - 1,
        observation_mean=rng.normal(size=4).astype(np.float32),
        observation_std=rng.uniform(0.3, 2, size=4).astype(np.float32),
        params={
            name: rng.normal(size=leaf.shape).astype(np.float32)
            for name, leaf in flatten_dict(
                network.init(jax.random.key(0), OBSERVATIONS[0])["params"], sep="."
            ).items()
        },
        scores={"config": 3, "eval_return_mean": math.nan, "best_return_mean": 491.25},
    )


def save(policy, directory):
    directory.mkdir(exist_ok=True)
    for name, content in policy.files().items():
        (directory / name).write_bytes(content)
    return directory


@pytest.fixture
def saved(tmp_path):
    return save(make_policy(), tmp_path / "1")


def refusal(directory):
    with pytest.raises(InputError) as caught:
        load_policy(directory)
    message = str(caught.value)
    assert str(directory) in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize("values", NETWORKS)
def test_a_loaded_policy_has_the_same_action_values_to_the_bit(tmp_path, values):
    policy = make_policy(**values)
    loaded = load_policy(save(policy, tmp_path / "1"))
    q_values = policy.q_values(OBSERVATIONS)
    assert q_values.shape == (200, 3)
    assert q_values.dtype == np.float32
    assert loaded.q_values(OBSERVATIONS).tobytes() == q_values.tobytes()


@pytest.mark.parametrize("values", NETWORKS)
def test_it_is_the_network_that_was_trained(values):
    policy = make_policy(**values)
    configuration = Configuration.create(policy.configuration, 1)
    network = QNetwork.of(configuration.shape, policy.num_actions)
    variables = {"params": unflatten_dict(policy.params, sep=".")}
    inputs = (OBSERVATIONS - policy.observation_mean) / policy.observation_std
    expected = np.asarray(network.apply(variables, inputs))
    np.testing.assert_allclose(policy.q_values(OBSERVATIONS), expected, rtol=1e-4, atol=1e-4)


def test_a_loaded_policy_knows_what_it_was_trained_with(saved):
    policy, loaded = make_policy(), load_policy(str(saved))
    assert (loaded.env_id, loaded.num_actions, loaded.seed) == ("CartPole-v1", 3, 2**32 - 1)
    assert Configuration.create(loaded.configuration, 1) == Configuration.create(
        policy.configuration, 1
    )
    assert np.array_equal(loaded.observation_mean, policy.observation_mean)
    assert np.array_equal(loaded.observation_std, policy.observation_std)
    assert loaded.scores["best_return_mean"] == 491.25
    assert math.isnan(loaded.scores["eval_return_mean"])
    assert loaded.params.keys() == policy.params.keys()


def test_infinite_hyperparameters_survive(tmp_path):
    policy = make_policy(huber_delta=math.inf, max_grad_norm=math.inf)
    loaded = load_policy(save(policy, tmp_path / "1"))
    assert loaded.configuration["huber_delta"] == math.inf
    assert loaded.configuration["max_grad_norm"] == math.inf


def test_observations_are_normalised_before_the_network_sees_them():
    policy = make_policy()
    plain = dataclasses.replace(
        policy, observation_mean=np.zeros(4, np.float32), observation_std=np.ones(4, np.float32)
    )
    normalised = (OBSERVATIONS - policy.observation_mean) / policy.observation_std
    assert np.array_equal(policy.q_values(OBSERVATIONS), plain.q_values(normalised))
    assert not np.allclose(policy.q_values(OBSERVATIONS), plain.q_values(OBSERVATIONS))


def test_it_acts_greedily(saved):
    policy = load_policy(saved)
    q_values = policy.q_values(OBSERVATIONS)
    actions = policy.act(OBSERVATIONS)
    assert actions.shape == (200,)
    chosen = np.take_along_axis(q_values, actions[:, None], axis=1)[:, 0]
    assert np.array_equal(chosen, q_values.max(axis=1))
    assert len(set(actions.tolist())) > 1


def test_a_single_observation_and_a_batch_of_batches_are_accepted(saved):
    policy = load_policy(saved)
    assert policy.act(OBSERVATIONS[0]).shape == ()
    assert policy.act(OBSERVATIONS.reshape(10, 20, 4)).shape == (10, 20)
    assert policy.act(OBSERVATIONS[0].tolist()) == policy.act(OBSERVATIONS)[0]


def test_a_policy_is_text_and_arrays_and_what_reads_them(saved):
    names = sorted(file.name for file in saved.iterdir())
    assert names == ["loader.py", "params.safetensors", "policy.json"]
    assert json.loads((saved / "policy.json").read_text())["env"] == "CartPole-v1"


def test_the_loader_beside_it_needs_nothing_of_jaxrl(saved, tmp_path):
    np.save(tmp_path / "observations.npy", OBSERVATIONS)
    code = """
import sys
sys.modules |= {"jaxrl": None, "jax": None, "flax": None}
sys.path.insert(0, sys.argv[1])
import numpy as np
from loader import load
np.save("actions.npy", load(sys.argv[1]).act(np.load("observations.npy")))
"""
    subprocess.run([sys.executable, "-I", "-c", code, str(saved)], check=True, cwd=tmp_path)
    assert np.array_equal(np.load(tmp_path / "actions.npy"), make_policy().act(OBSERVATIONS))


def test_where_no_policy_is_that_is_said(tmp_path, saved):
    refusal(tmp_path / "missing")
    refusal(tmp_path)  # a directory of policies
    refusal(saved / "policy.json")  # a file


@pytest.mark.parametrize("name", ["policy.json", "params.safetensors"])
def test_a_missing_file_is_said(saved, name):
    (saved / name).unlink()
    assert name in refusal(saved)
    (saved / name).mkdir()
    refusal(saved)


@pytest.mark.parametrize("name", ["policy.json", "params.safetensors"])
def test_a_truncated_file_is_refused_wherever_it_ends(saved, name):
    whole = (saved / name).read_bytes()
    lengths = range(0, len(whole.rstrip()), max(1, len(whole) // 150))
    for length in lengths:
        (saved / name).write_bytes(whole[:length])
        refusal(saved)


@pytest.mark.parametrize(
    "content",
    [
        b"\x01",
        b"\x00" * 100,
        b"\xff" * 100,
        b"\x80\x04\x95 a pickle",
        b"\x02\x00\x00\x00\x00\x00\x00\x00{}",
        b"\x00\x00\x00\x00\x00\x00\x00\x40{}",
        b"\x04\x00\x00\x00\x00\x00\x00\x00null",
    ],
    ids=repr,
)
def test_parameters_that_are_something_else_are_refused(saved, content):
    (saved / "params.safetensors").write_bytes(content)
    refusal(saved)


def test_parameters_of_another_network_are_refused(tmp_path, saved):
    other = save(make_policy(hidden_sizes=[5]), tmp_path / "2")
    shutil.copy(other / "params.safetensors", saved / "params.safetensors")
    refusal(saved)


@pytest.mark.parametrize(
    "content", ["", "[]", "null", "1", "{}", '{"env": "CartPole-v1"}', "{'env': 1}", "\x00" * 50]
)
def test_a_description_that_is_something_else_is_refused(saved, content):
    (saved / "policy.json").write_text(content)
    refusal(saved)


def test_a_description_that_is_no_text_is_refused(saved):
    (saved / "policy.json").write_bytes(b"\xff\xfe\x80")
    refusal(saved)


DESCRIPTION = (
    "env",
    "num_actions",
    "configuration",
    "seed",
    "observation_mean",
    "observation_std",
)


@pytest.mark.parametrize("key", DESCRIPTION)
def test_a_description_without_one_of_its_entries_is_refused(saved, key):
    description = json.loads((saved / "policy.json").read_text())
    del description[key]
    (saved / "policy.json").write_text(json.dumps(description))
    assert key in refusal(saved)


@pytest.mark.parametrize("key", DESCRIPTION)
def test_a_description_with_an_entry_of_another_kind_is_refused(saved, key):
    whole = json.loads((saved / "policy.json").read_text())
    accepted = []
    for value in (None, [], {"a": 1}, "x", -1.5, [[1], [2, 3]]):
        (saved / "policy.json").write_text(json.dumps({**whole, key: value}))
        try:
            load_policy(saved)
        except InputError:
            continue
        accepted.append(value)
    assert accepted == (["x"] if key == "env" else [])
