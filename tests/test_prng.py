"""Our Threefry against JAX's own, bit for bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrl.dqn.prng import THREEFRY

UINT32 = st.integers(0, 2**32 - 1)


def keys_of(seed, *folded):
    """The key of ``seed`` with ``folded`` folded in, ours and JAX's."""
    keys = [jax.random.key(jnp.uint32(seed), impl=impl) for impl in (THREEFRY, "threefry2x32")]
    for data in folded:
        keys = [jax.random.fold_in(key, jnp.uint32(data)) for key in keys]
    return keys


def assert_same_keys(ours, theirs):
    np.testing.assert_array_equal(*(jax.random.key_data(key) for key in (ours, theirs)))


@given(UINT32, UINT32)
def test_seeds_and_what_is_folded_in_give_jaxs_keys(seed, data):
    assert_same_keys(*keys_of(seed))
    assert_same_keys(*keys_of(seed, data, data))


@given(UINT32, st.sampled_from([1, 2, 5]))
def test_keys_are_split_as_jax_splits_them(seed, number):
    ours, theirs = keys_of(seed)
    assert_same_keys(jax.random.split(ours, number), jax.random.split(theirs, number))


@pytest.mark.parametrize(
    "draw",
    [
        lambda key: jax.random.bits(key, (3, 5)),
        lambda key: jax.random.bits(key, (7,), jnp.uint8),
        lambda key: jax.random.bits(key, (7,), jnp.uint16),
        lambda key: jax.random.uniform(key, (100,)),
        lambda key: jax.random.normal(key, (4, 9)),
        lambda key: jax.random.randint(key, (50,), -3, 1000),
        lambda key: jax.random.bernoulli(key, 0.3, (50,)),
        lambda key: jax.random.permutation(key, 20),
        lambda key: jax.random.uniform(key),
    ],
)
def test_numbers_are_those_of_jaxs_key(draw):
    for seed in (0, 1, 2**32 - 1):
        ours, theirs = keys_of(seed, 17)
        np.testing.assert_array_equal(draw(ours), draw(theirs))


def test_sixty_four_bits_are_those_of_jaxs_key():
    jax.config.update("jax_enable_x64", True)
    try:
        ours, theirs = (jax.random.bits(key, (5,), jnp.uint64) for key in keys_of(3))
        np.testing.assert_array_equal(ours, theirs)
    finally:
        jax.config.update("jax_enable_x64", False)


def test_keys_of_a_population_are_those_of_its_agents():
    seeds = jnp.arange(6, dtype=jnp.uint32)
    together = jax.vmap(lambda seed: jax.random.key(seed, impl=THREEFRY))(seeds)
    drawn = jax.vmap(jax.random.uniform)(together)
    for seed, number in zip(seeds, drawn, strict=True):
        assert number == jax.random.uniform(keys_of(seed)[1])
