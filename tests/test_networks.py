"""Q-networks: shapes, the dueling head, and where parameters start."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxrl.dqn import agent, environment
from jaxrl.dqn.hyperparameters import Shape
from jaxrl.dqn.networks import FastQNetwork, QNetwork

OBSERVATION, ACTIONS = 5, 3

LAYERS = {
    (): {},
    (7,): {"hidden_0": (5, 7)},
    (7, 4, 6): {"hidden_0": (5, 7), "hidden_1": (7, 4), "hidden_2": (4, 6)},
}
"""For the hidden sizes of a network its hidden layers: inputs and outputs of each."""


def layers_of(hidden_sizes, dueling):
    last = (OBSERVATION, *hidden_sizes)[-1]
    heads = {"value": 1, "advantage": ACTIONS} if dueling else {"q": ACTIONS}
    return {**LAYERS[hidden_sizes], **{name: (last, outputs) for name, outputs in heads.items()}}


def initialiser(twin, fast):
    """What starts the twin's variables, by itself or through the fast network."""
    network = FastQNetwork(twin)
    return lambda *args: network.as_twin(network.init(*args)) if fast else twin.init(*args)


@pytest.mark.parametrize("dueling", [False, True])
@pytest.mark.parametrize("hidden_sizes", LAYERS)
def test_layers_and_outputs_have_the_shapes_that_were_asked_for(hidden_sizes, dueling):
    shape = Shape(hidden_sizes, dueling, minibatch_rows=32, n_step=1)
    network = QNetwork.of(shape, ACTIONS)
    params = network.init(jax.random.key(0), jnp.zeros(OBSERVATION))
    layers = layers_of(hidden_sizes, dueling)
    assert jax.tree.map(jnp.shape, params["params"]) == {
        name: {"kernel": size, "bias": size[1:]} for name, size in layers.items()
    }
    assert network.apply(params, jnp.zeros(OBSERVATION)).shape == (ACTIONS,)
    assert network.apply(params, jnp.zeros((2, 9, OBSERVATION))).shape == (2, 9, ACTIONS)


def test_a_network_without_hidden_layers_is_linear():
    network = QNetwork(ACTIONS, ())
    params = network.init(jax.random.key(0), jnp.zeros(OBSERVATION))
    x, y = jax.random.normal(jax.random.key(1), (2, OBSERVATION))
    zero = network.apply(params, jnp.zeros(OBSERVATION))
    np.testing.assert_allclose(zero, params["params"]["q"]["bias"])
    np.testing.assert_allclose(
        network.apply(params, 2 * x - 3 * y) - zero,
        2 * (network.apply(params, x) - zero) - 3 * (network.apply(params, y) - zero),
        atol=1e-5,
    )


@pytest.mark.parametrize("hidden_sizes", LAYERS)
def test_dueling_advantages_are_centred_around_the_value(hidden_sizes):
    network = QNetwork(ACTIONS, hidden_sizes, dueling=True)
    params = network.init(jax.random.key(0), jnp.zeros(OBSERVATION))
    x = jax.random.normal(jax.random.key(1), (50, OBSERVATION))
    q = network.apply(params, x)
    for name in LAYERS[hidden_sizes]:
        layer = params["params"][name]
        x = np.maximum(x @ layer["kernel"] + layer["bias"], 0)
    value, advantage = (
        x @ params["params"][name]["kernel"] + params["params"][name]["bias"]
        for name in ("value", "advantage")
    )
    np.testing.assert_allclose(np.mean(q, axis=1), value[:, 0], atol=1e-6)
    centred = advantage - np.mean(advantage, axis=1, keepdims=True)
    np.testing.assert_allclose(q - value, centred, atol=1e-6)
    assert np.max(np.abs(centred)) > 0.01


@pytest.mark.parametrize("fast", [False, True], ids=["flax", "fast"])
@pytest.mark.parametrize("dueling", [False, True])
def test_weights_and_biases_start_uniform_within_one_over_the_root_of_the_fan_in(dueling, fast):
    init = jax.jit(initialiser(QNetwork(ACTIONS, (7, 4, 6), dueling), fast))
    agents = [init(jax.random.key(seed), jnp.zeros(OBSERVATION)) for seed in range(300)]
    params = jax.tree.map(lambda *x: np.stack(x), *agents)["params"]
    for name, (fan_in, _) in layers_of((7, 4, 6), dueling).items():
        bound = fan_in**-0.5
        uniform = scipy.stats.uniform(-bound, 2 * bound)
        for kind in ("kernel", "bias"):
            values = np.ravel(params[name][kind])
            assert np.max(np.abs(values)) <= bound, (name, kind)
            assert np.max(np.abs(values)) > 0.97 * bound, (name, kind)
            assert scipy.stats.kstest(values, uniform.cdf).pvalue > 1e-3, (name, kind)


@pytest.mark.parametrize("fast", [False, True], ids=["flax", "fast"])
def test_no_two_parameters_of_a_network_start_alike(fast):
    init = initialiser(QNetwork(ACTIONS, (5, 5), dueling=True), fast)
    params = init(jax.random.key(0), jnp.zeros(OBSERVATION))
    values = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(params)])
    assert len(np.unique(values)) == len(values)


@pytest.mark.parametrize("dueling", [False, True])
@pytest.mark.parametrize("hidden_sizes", LAYERS)
def test_the_fast_network_is_its_twin(hidden_sizes, dueling):
    """Values of one observation and of many, and gradients."""
    twin = QNetwork(ACTIONS, hidden_sizes, dueling)
    fast = FastQNetwork(twin)
    params = fast.init(jax.random.key(0), jnp.zeros(OBSERVATION))
    variables = fast.as_twin(params)
    expected = jax.eval_shape(twin.init, jax.random.key(0), jnp.zeros(OBSERVATION))
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, expected)
    dq = jax.random.normal(jax.random.key(3), (50, ACTIONS))
    observations = jax.random.normal(jax.random.key(1), (50, OBSERVATION))
    for observation in (observations, observations[0]):
        expected = twin.apply(variables, observation)
        np.testing.assert_allclose(fast.apply(params, observation), expected, atol=1e-6)
    (q, pullback), (expected_q, expected_pullback) = (
        fast.vjp(params, observations),
        twin.vjp(variables, observations),
    )
    np.testing.assert_allclose(q, expected_q, atol=1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
        fast.as_twin(pullback(dq)),
        expected_pullback(dq),
    )


def test_the_parameters_of_many_agents_become_their_twins_together():
    fast = FastQNetwork(QNetwork(ACTIONS, (5, 6), dueling=True))
    agents = [fast.init(jax.random.key(k), jnp.zeros(OBSERVATION)) for k in range(3)]
    together = fast.as_twin(jax.tree.map(lambda *x: np.stack(x), *agents))
    for k, params in enumerate(agents):
        alone = fast.as_twin(params)
        jax.tree.map(lambda a, b, k=k: np.testing.assert_array_equal(a[k], b), together, alone)


def test_agents_of_different_seeds_start_apart_and_of_one_seed_alike():
    env = environment.make("CartPole-v1")
    network = QNetwork.of(Shape((8,), False, 32, 1), env.num_actions)
    initialise = jax.jit(lambda seed: agent.initialise(seed, env, network))
    (actor, learner), (same_actor, same_learner), (other_actor, other_learner) = (
        initialise(jnp.uint32(seed)) for seed in (7, 7, 2**30 + 7)
    )
    jax.tree.map(np.testing.assert_array_equal, learner.params, same_learner.params)
    np.testing.assert_array_equal(actor.observation, same_actor.observation)
    for ours, theirs in zip(
        jax.tree.leaves(learner.params), jax.tree.leaves(other_learner.params), strict=True
    ):
        assert np.all(ours != theirs)
    assert np.all(actor.observation != other_actor.observation)
    jax.tree.map(np.testing.assert_array_equal, learner.params, learner.target_params)
