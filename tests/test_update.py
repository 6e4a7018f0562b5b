"""DQN's update against NumPy in double precision with a backward pass by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.dqn import agent, losses
from jaxrl.dqn.networks import FastQNetwork, QNetwork
from jaxrl.dqn.replay import Batch

OBSERVATION, ACTIONS, BATCH = 5, 3, 32

update = jax.jit(agent.update, static_argnames="network")
update_target = jax.jit(agent.update_target)


# The oracle. Parameters are {layer: {"kernel": [in, out], "bias": [out]}}.


def dense(layer, x):
    return x @ layer["kernel"] + layer["bias"]


def hidden_layers(params):
    return sorted(name for name in params if name.startswith("hidden_"))


def numpy_q(params, x):
    for name in hidden_layers(params):
        x = np.maximum(dense(params[name], x), 0)
    if "q" in params:
        return dense(params["q"], x)
    advantage = dense(params["advantage"], x)
    return dense(params["value"], x) + advantage - advantage.mean(axis=1, keepdims=True)


def numpy_gradients(params, x, dq):
    """Gradients of a loss whose derivative by the action values of inputs ``x`` is ``dq``."""
    inputs = [x]
    for name in hidden_layers(params):
        inputs.append(np.maximum(dense(params[name], inputs[-1]), 0))
    if "q" in params:
        heads = {"q": dq}
    else:
        heads = {
            "value": dq.sum(axis=1, keepdims=True),
            "advantage": dq - dq.mean(axis=1, keepdims=True),
        }
    gradients = {}
    dx = 0
    for name, d in heads.items():
        gradients[name] = {"kernel": inputs[-1].T @ d, "bias": d.sum(axis=0)}
        dx = dx + d @ params[name]["kernel"].T
    for index, name in reversed(list(enumerate(hidden_layers(params)))):
        d = dx * (inputs[index + 1] > 0)
        gradients[name] = {"kernel": inputs[index].T @ d, "bias": d.sum(axis=0)}
        dx = d @ params[name]["kernel"].T
    return gradients


def numpy_update(params, target_params, mu, nu, count, batch, hyper):
    """New parameters, moments and what is reported."""
    batch = jax.tree.map(lambda x: x[: hyper.batch_size], batch)
    x_tm1 = (batch.observation_tm1 - hyper.observation_mean) / hyper.observation_std
    x_t = (batch.observation_t - hyper.observation_mean) / hyper.observation_std
    rows = np.arange(len(batch.a_tm1))

    q_t = numpy_q(target_params, x_t)
    best = np.argmax(numpy_q(params, x_t) if hyper.double_q else q_t, axis=1)
    target = batch.r_t + batch.discount_t * q_t[rows, best]
    q_tm1 = numpy_q(params, x_tm1)
    q_taken = q_tm1[rows, batch.a_tm1]
    error = q_taken - target
    delta = hyper.huber_delta
    is_small = np.abs(error) <= delta
    line = 0 if np.isinf(delta) else delta * (np.abs(error) - 0.5 * delta)
    loss = np.mean(np.where(is_small, 0.5 * error**2, line))

    dq = np.zeros_like(q_tm1)
    dq[rows, batch.a_tm1] = np.where(is_small, error, delta * np.sign(error)) / len(rows)
    gradients = numpy_gradients(params, x_tm1, dq)
    norm = np.sqrt(sum(np.sum(g**2) for g in jax.tree.leaves(gradients)))
    if norm > hyper.max_grad_norm:
        gradients = jax.tree.map(lambda g: g * (hyper.max_grad_norm / norm), gradients)

    count += 1
    mu = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, mu, gradients)
    nu = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g**2, nu, gradients)
    params = jax.tree.map(
        lambda p, m, v: (
            p
            - hyper.learning_rate
            * (m / (1 - 0.9**count))
            / (np.sqrt(v / (1 - 0.999**count)) + 1e-8)
        ),
        params,
        mu,
        nu,
    )
    return params, mu, nu, count, (loss, np.mean(q_taken), norm)


# What is tested.


@pytest.fixture
def double_precision():
    """So that what is compared differs by a mistake or not at all."""
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


def as_double(tree):
    return jax.tree.map(lambda x: x.astype(float) if x.dtype == jnp.float32 else x, tree)


def make_learner(network):
    """A learner whose target network is another one than its online network."""
    keys = jax.random.split(jax.random.key(3))
    params, target = (network.init(key, jnp.zeros(OBSERVATION)) for key in keys)
    return agent.Learner(
        params=params,
        target_params=jax.tree.map(lambda x: 2 * x, target),
        adam=agent._ADAM.init(params),
        diverged=jnp.bool_(False),
        updates=jnp.int32(0),
    )


def make_batch(seed, hyper):
    rng = np.random.default_rng(seed)
    terminated = rng.random(BATCH) < 0.3
    assert 0 < np.sum(terminated) < BATCH
    return Batch(
        observation_tm1=jnp.asarray(rng.normal(1, 2, (BATCH, OBSERVATION)), jnp.float32),
        a_tm1=jnp.asarray(rng.integers(0, ACTIONS, BATCH), jnp.int32),
        r_t=jnp.asarray(rng.normal(0, 1.5, BATCH), jnp.float32),
        discount_t=jnp.where(terminated, 0, hyper.gamma ** rng.integers(1, 4, BATCH)),
        observation_t=jnp.asarray(rng.normal(1, 2, (BATCH, OBSERVATION)), jnp.float32),
    )


def learn(learner, sums, batch, hyper, network, ready=True):
    return update(learner, sums, batch, hyper, jnp.bool_(ready), hyper.double_q, network=network)


def assert_close(ours, oracle):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-14), ours, oracle)


def assert_identical(new, old):
    jax.tree.map(np.testing.assert_array_equal, new, old)


NETWORKS = {
    "linear": QNetwork(ACTIONS, ()),
    "linear dueling": QNetwork(ACTIONS, (), dueling=True),
    "one layer": QNetwork(ACTIONS, (8,)),
    "one layer, dueling": QNetwork(ACTIONS, (8,), dueling=True),
    "two layers": QNetwork(ACTIONS, (8, 6)),
    "two layers, dueling": QNetwork(ACTIONS, (8, 6), dueling=True),
}

OPTIONS = {
    "defaults": {},
    "double_q": {"double_q": True},
    "small huber_delta": {"huber_delta": 0.1},
    "small huber_delta, double_q": {"huber_delta": 0.1, "double_q": True},
    "squared error": {"huber_delta": np.inf},
    "clipped": {"max_grad_norm": 0.1},
    "clipped to where Adam's epsilon counts": {"max_grad_norm": 1e-6},
    "never clipped": {"max_grad_norm": np.inf},
    "squared error, never clipped": {"huber_delta": np.inf, "max_grad_norm": np.inf},
    "a part of the batch": {"batch_size": 11},
    "one transition, double_q": {"batch_size": 1, "double_q": True},
    "gamma 0": {"gamma": 0},
    "gamma 1": {"gamma": 1},
    "high learning_rate": {"learning_rate": 0.1},
    "normalised": {
        "observation_mean": [1, -2, 0, 0.5, 3],
        "observation_std": [2, 0.5, 1, 4, 0.1],
    },
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("fast", [False, True], ids=["flax", "fast"])
@pytest.mark.parametrize("twin", NETWORKS.values(), ids=NETWORKS)
def test_successive_updates_are_those_of_numpy(twin, fast, options, make_hyper, double_precision):
    network = FastQNetwork(twin) if fast else twin

    def layers(params):
        return (network.as_twin(params) if fast else params)["params"]

    hyper = as_double(make_hyper(**{"learning_rate": 1e-3, "gamma": 0.9, **options}))
    start = as_double(make_learner(network))
    learner, sums = start, as_double(agent.no_sums())
    params, target_params = layers(start.params), layers(start.target_params)
    mu = nu = jax.tree.map(np.zeros_like, params)
    count, totals = 0, np.zeros(3)
    for turn in range(4):
        batch = as_double(make_batch(turn, hyper))
        learner, sums = learn(learner, sums, batch, hyper, network)
        params, mu, nu, count, reported = numpy_update(
            *jax.tree.map(np.asarray, (params, target_params, mu, nu, count, batch, hyper))
        )
        totals += reported
        assert_close(layers(learner.params), params)
        assert_close(layers(learner.adam.mu), mu)
        assert_close(layers(learner.adam.nu), nu)
        assert_close(sums, agent.Sums(*totals, turn + 1))
    assert learner.updates == learner.adam.count == 4
    assert not learner.diverged
    assert_identical(learner.target_params, start.target_params)


def test_agents_with_and_without_double_q_learn_side_by_side(make_hyper):
    network = NETWORKS["one layer"]
    learner, sums = make_learner(network), agent.no_sums()
    plain, double = make_hyper(gamma=0.9), make_hyper(gamma=0.9, double_q=True)
    batch = make_batch(0, plain)
    both = jax.tree.map(lambda *x: jnp.stack(x), plain, double)

    @jax.jit
    def learn_both(any_double_q):
        return jax.vmap(
            lambda hyper: agent.update(
                learner, sums, batch, hyper, jnp.bool_(True), any_double_q, network=network
            )
        )(both)

    _, together = learn_both(jnp.bool_(True))
    alone = [learn(learner, sums, batch, hyper, network)[1] for hyper in (plain, double)]
    np.testing.assert_allclose(together.loss, [sums.loss for sums in alone], rtol=1e-5)
    assert abs(together.loss[0] - together.loss[1]) > 1e-3


@pytest.mark.parametrize("reward", [0, np.inf, np.nan])
def test_an_agent_that_is_not_ready_does_not_change_at_all(reward, make_hyper):
    network, hyper = NETWORKS["one layer, dueling"], make_hyper(double_q=True)
    batch = make_batch(0, hyper)
    learner, sums = learn(make_learner(network), agent.no_sums(), batch, hyper, network)
    batch = batch._replace(r_t=batch.r_t + reward)
    new = learn(learner, sums, batch, hyper, network, ready=False)
    assert_identical(new, (learner, sums))


@pytest.mark.parametrize("huber_delta", [1, np.inf])
@pytest.mark.parametrize("reward", [np.inf, -np.inf, np.nan])
def test_a_loss_that_is_not_finite_flags_the_agent_for_good(reward, huber_delta, make_hyper):
    network, hyper = NETWORKS["one layer"], make_hyper(huber_delta=huber_delta)
    start, batch = make_learner(network), make_batch(0, hyper)
    bad = batch._replace(r_t=batch.r_t.at[0].set(reward))
    learner, _ = learn(start, agent.no_sums(), bad, hyper, network)
    assert learner.diverged
    # Even with its parameters mended and a finite loss.
    learner = learner._replace(params=start.params, adam=start.adam)
    learner, sums = learn(learner, agent.no_sums(), batch, hyper, network)
    assert np.isfinite(sums.loss)
    assert learner.diverged


def test_a_loss_that_overflows_flags_the_agent_though_its_gradient_is_finite(make_hyper):
    network, hyper = NETWORKS["one layer"], make_hyper(huber_delta=1e10)
    batch = make_batch(0, hyper)
    batch = batch._replace(r_t=batch.r_t.at[0].set(1e30))
    learner, sums = learn(make_learner(network), agent.no_sums(), batch, hyper, network)
    assert np.isfinite(sums.grad_norm)
    assert learner.diverged


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_parameters_that_are_not_finite_flag_the_agent(value, make_hyper):
    network, hyper = NETWORKS["one layer"], make_hyper()
    learner = make_learner(network)
    assert agent.is_finite(learner.params)
    learner.params["params"]["q"]["kernel"] = jnp.full((8, ACTIONS), 0.1).at[1, 2].set(value)
    assert not agent.is_finite(learner.params)
    learner, _ = learn(learner, agent.no_sums(), make_batch(0, hyper), hyper, network)
    assert learner.diverged


def test_a_huge_but_finite_reward_is_no_divergence(make_hyper):
    network, hyper = NETWORKS["one layer"], make_hyper()
    batch = make_batch(0, hyper)
    batch = batch._replace(r_t=batch.r_t.at[0].set(1e30))
    learner, _ = learn(make_learner(network), agent.no_sums(), batch, hyper, network)
    assert not learner.diverged
    assert agent.is_finite(learner.params)


@pytest.mark.parametrize("delta", [0.1, 1, 10, np.inf])
def test_the_huber_loss_and_its_gradient(delta):
    magnitudes = np.array([0, 0.03, 0.1, 0.5, 1, 1.5, 10, 1e4])
    errors = np.concatenate([-magnitudes, magnitudes])
    values, gradients = jax.vmap(jax.value_and_grad(losses.huber), in_axes=(0, None))(
        jnp.asarray(errors, jnp.float32), jnp.float32(delta)
    )
    for error, value, gradient in zip(errors, values, gradients, strict=True):
        is_square = abs(error) <= delta
        expected = 0.5 * error**2 if is_square else delta * (abs(error) - 0.5 * delta)
        assert value == pytest.approx(expected, rel=1e-6)
        assert gradient == pytest.approx(error if is_square else delta * np.sign(error), rel=1e-6)


@pytest.mark.parametrize("learning_starts", [0, 13])
@pytest.mark.parametrize("tau", [1, 0.3, 0.005])
@pytest.mark.parametrize("interval", [1, 4, 6, 25])
@pytest.mark.parametrize("train_freq", [1, 4, 5])
def test_target_updates_are_those_of_a_loop_over_steps(
    train_freq, interval, tau, learning_starts, make_hyper
):
    rng = np.random.default_rng(0)
    hyper = make_hyper(target_update_interval=interval, tau=tau)
    online = expected = rng.normal(size=3)
    params = jnp.asarray(online, jnp.float32)
    learner = agent.Learner(params, params, None, None, None)
    for t in range(1, 61):
        if t % interval == 0:
            expected = tau * online + (1 - tau) * expected
        if t % train_freq == 0 and t > learning_starts:
            target = update_target(learner, hyper, jnp.int32(t), jnp.int32(train_freq))
            np.testing.assert_allclose(target, expected, rtol=1e-4, atol=1e-6)
            online = online + rng.normal(size=3)
            learner = learner._replace(
                params=jnp.asarray(online, jnp.float32), target_params=target
            )


def test_a_target_update_with_tau_1_is_a_copy_to_the_bit(make_hyper):
    params, target = jax.random.normal(jax.random.key(0), (2, 1000))
    hyper = make_hyper(target_update_interval=10, tau=1)
    learner = agent.Learner(params, target, None, None, None)
    copied = update_target(learner, hyper, jnp.int32(20), jnp.int32(4))
    np.testing.assert_array_equal(copied, params)


@pytest.mark.parametrize("tau", [1, 0.3])
def test_the_target_network_stays_to_the_bit_between_its_updates(tau, make_hyper):
    params, target = jax.random.normal(jax.random.key(0), (2, 1000))
    hyper = make_hyper(target_update_interval=10, tau=tau)
    learner = agent.Learner(params, target, None, None, None)
    kept = update_target(learner, hyper, jnp.int32(24), jnp.int32(4))
    np.testing.assert_array_equal(kept, target)
