"""DQN's update against NumPy in double precision with a backward pass by hand."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.dqn import agent, losses
from jaxrl.dqn.networks import QNetwork
from jaxrl.dqn.replay import Batch

OBSERVATION, ACTIONS, BATCH = 5, 3, 16

update = jax.jit(agent.update, static_argnames="network")


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


def as_double(tree):
    return jax.tree.map(lambda x: np.asarray(x, float), tree)


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


def assert_close(ours, oracle, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), ours, oracle)


NETWORKS = [
    QNetwork(ACTIONS, hidden, dueling)
    for hidden, dueling in itertools.product([(), (8,), (8, 6)], [False, True])
]

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
    "gamma 0": {"gamma": 0},
    "gamma 1": {"gamma": 1},
    "high learning_rate": {"learning_rate": 0.1},
    "normalised": {
        "observation_mean": [1, -2, 0, 0.5, 3],
        "observation_std": [2, 0.5, 1, 4, 0.1],
    },
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("network", NETWORKS, ids=lambda n: f"{n.hidden_sizes}-dueling={n.dueling}")
def test_successive_updates_are_those_of_numpy(network, options, make_hyper):
    hyper = make_hyper(**{"learning_rate": 1e-3, "gamma": 0.9, **options})
    learner, sums = make_learner(network), agent.no_sums()
    params = as_double(learner.params)["params"]
    target_params = as_double(learner.target_params)["params"]
    mu = nu = jax.tree.map(np.zeros_like, params)
    count, totals = 0, np.zeros(3)
    for turn in range(4):
        batch = make_batch(turn, hyper)
        learner, sums = update(
            learner, sums, batch, hyper, jnp.bool_(True), hyper.double_q, network=network
        )
        batch = as_double(batch)._replace(a_tm1=np.asarray(batch.a_tm1))
        params, mu, nu, count, reported = numpy_update(
            params, target_params, mu, nu, count, batch, as_double(hyper)
        )
        totals += reported
        # An error of the gradient moves a parameter by up to its share of a step, so the bound
        # follows the step. Where a gradient is 0 both move by nothing.
        step = float(hyper.learning_rate)
        assert_close(learner.params["params"], params, rtol=1e-6, atol=1e-3 * step)
        largest = max(np.max(np.abs(m)) for m in jax.tree.leaves(mu))
        assert_close(learner.adam.mu["params"], mu, rtol=1e-4, atol=1e-5 * largest)
        assert_close(learner.adam.nu["params"], nu, rtol=1e-4, atol=1e-5 * largest**2)
        np.testing.assert_allclose([sums.loss, sums.q, sums.grad_norm], totals, rtol=1e-4)
    assert learner.updates == sums.updates == learner.adam.count == 4
    assert not learner.diverged
    np.testing.assert_array_equal(
        learner.target_params["params"]["advantage" if network.dueling else "q"]["bias"],
        target_params["advantage" if network.dueling else "q"]["bias"],
    )


def test_agents_with_and_without_double_q_learn_side_by_side(make_hyper):
    network = NETWORKS[2]
    learner, ready = make_learner(network), jnp.bool_(True)
    plain, double = make_hyper(gamma=0.9), make_hyper(gamma=0.9, double_q=True)
    batch = make_batch(0, plain)
    both = jax.tree.map(lambda *x: jnp.stack(x), plain, double)

    def learn(hyper, any_double_q):
        return agent.update(
            learner, agent.no_sums(), batch, hyper, ready, any_double_q, network=network
        )

    together = jax.vmap(learn, in_axes=(0, None))(both, jnp.bool_(True))[1]
    alone = [learn(hyper, hyper.double_q)[1] for hyper in (plain, double)]
    np.testing.assert_allclose(together.loss, [sums.loss for sums in alone], rtol=1e-5)
    assert abs(together.loss[0] - together.loss[1]) > 1e-3


def assert_identical(new, old):
    jax.tree.map(np.testing.assert_array_equal, new, old)


@pytest.mark.parametrize("reward", [0.0, np.inf, np.nan])
def test_an_agent_that_is_not_ready_does_not_change_at_all(reward, make_hyper):
    network, hyper = NETWORKS[3], make_hyper(double_q=True)
    batch = make_batch(0, hyper)
    learner, sums = update(
        make_learner(network),
        agent.no_sums(),
        batch,
        hyper,
        jnp.bool_(True),
        hyper.double_q,
        network=network,
    )
    bad = batch._replace(r_t=batch.r_t + reward)
    new = update(learner, sums, bad, hyper, jnp.bool_(False), hyper.double_q, network=network)
    assert_identical(new, (learner, sums))


@pytest.mark.parametrize("huber_delta", [1, np.inf])
@pytest.mark.parametrize("reward", [np.inf, -np.inf, np.nan])
def test_a_loss_that_is_not_finite_flags_the_agent_for_good(reward, huber_delta, make_hyper):
    network, hyper = NETWORKS[2], make_hyper(huber_delta=huber_delta)
    ready = jnp.bool_(True)
    healthy = make_learner(network)
    batch = make_batch(0, hyper)
    bad = batch._replace(r_t=batch.r_t.at[0].set(reward))
    learner, sums = update(
        healthy, agent.no_sums(), bad, hyper, ready, hyper.double_q, network=network
    )
    assert learner.diverged
    # Its parameters mended, its next loss is finite; the flag stays.
    learner = learner._replace(params=healthy.params, adam=healthy.adam)
    learner, sums = update(
        learner, agent.no_sums(), batch, hyper, ready, hyper.double_q, network=network
    )
    assert np.isfinite(sums.loss)
    assert learner.diverged


def test_parameters_that_are_not_finite_flag_the_agent(make_hyper):
    network, hyper = NETWORKS[2], make_hyper()
    learner = make_learner(network)
    assert agent.is_finite(learner.params)
    for bad in (jnp.nan, jnp.inf, -jnp.inf):
        params = jax.tree.map(lambda x: x, learner.params)
        params["params"]["hidden_0"]["kernel"] = (
            params["params"]["hidden_0"]["kernel"].at[1, 2].set(bad)
        )
        assert not agent.is_finite(params)
        new, _ = update(
            learner._replace(params=params),
            agent.no_sums(),
            make_batch(0, hyper),
            hyper,
            jnp.bool_(True),
            hyper.double_q,
            network=network,
        )
        assert new.diverged


def test_a_huge_but_finite_reward_is_no_divergence(make_hyper):
    network, hyper = NETWORKS[2], make_hyper()
    batch = make_batch(0, hyper)
    batch = batch._replace(r_t=batch.r_t.at[0].set(1e30))
    learner, _ = update(
        make_learner(network),
        agent.no_sums(),
        batch,
        hyper,
        jnp.bool_(True),
        hyper.double_q,
        network=network,
    )
    assert not learner.diverged
    assert agent.is_finite(learner.params)


@pytest.mark.parametrize("delta", [0.1, 1, 10, np.inf])
@pytest.mark.parametrize("error", [0, 0.03, 0.1, 0.5, 1, 1.5, 10, 1e4])
@pytest.mark.parametrize("sign", [-1, 1])
def test_the_huber_loss_and_its_gradient(sign, error, delta):
    value, gradient = jax.value_and_grad(losses.huber)(
        jnp.float32(sign * error), jnp.float32(delta)
    )
    is_square = error <= delta
    expected = 0.5 * error**2 if is_square else delta * (error - 0.5 * delta)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(gradient, sign * (error if is_square else delta), rtol=1e-6)


@pytest.mark.parametrize("learning_starts", [0, 13])
@pytest.mark.parametrize("tau", [1, 0.3, 0.005])
@pytest.mark.parametrize("interval", [1, 3, 4, 6, 7, 12, 25])
@pytest.mark.parametrize("train_freq", [1, 4, 5])
def test_target_updates_are_those_of_a_loop_over_steps(
    train_freq, interval, tau, learning_starts, make_hyper
):
    rng = np.random.default_rng(0)
    hyper = make_hyper(target_update_interval=interval, tau=tau)
    online = expected = rng.normal(size=3)
    params = jnp.asarray(online, jnp.float32)
    learner = agent.Learner(params, params, None, None, None)
    for t in range(1, 101):
        if t % interval == 0:
            expected = tau * online + (1 - tau) * expected
        if t % train_freq == 0 and t > learning_starts:
            target = agent.update_target(learner, hyper, jnp.int32(t), jnp.int32(train_freq))
            np.testing.assert_allclose(target, expected, rtol=1e-4, atol=1e-6)
            online = online + rng.normal(size=3)
            learner = learner._replace(
                params=jnp.asarray(online, jnp.float32), target_params=target
            )


def test_a_target_update_with_tau_1_is_a_copy_to_the_bit(make_hyper):
    params, target = jnp.array([0.1, 1e-30, 3e8]), jnp.array([7e5, -1.0, 1e-9])
    learner = agent.Learner(params, target, None, None, None)
    hyper = make_hyper(target_update_interval=10, tau=1)
    copied = agent.update_target(learner, hyper, jnp.int32(20), jnp.int32(4))
    kept = agent.update_target(learner, hyper, jnp.int32(24), jnp.int32(4))
    np.testing.assert_array_equal(copied, params)
    np.testing.assert_array_equal(kept, target)
