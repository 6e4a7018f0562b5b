"""Random keys: JAX's own Threefry, bit for bit, written so that it melts into what uses it.

On a CPU JAX compiles ``threefry2x32`` to a loop of its own, on a GPU to a kernel of its own; for
the few numbers that an environment step draws, starting that costs far more than the hash. Here the
twenty rounds are plain arithmetic, which XLA fuses with the code around them.
"""

import math

import jax
import jax.numpy as jnp
from jax.extend.random import define_prng_impl

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA


def _threefry2x32(key: jax.Array, high: jax.Array, low: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Threefry-2x32 with 20 rounds (Salmon et al. 2011, doi 10.1145/2063384.2063405).

    Args:
        key: [2], uint32.
        high, low: uint32 counters of one shape.
    """
    schedule = (key[0], key[1], key[0] ^ key[1] ^ jnp.uint32(_PARITY))
    x, y = high + schedule[0], low + schedule[1]
    for group in range(5):
        for rotation in _ROTATIONS[group % 2]:
            x = x + y
            y = x ^ ((y << rotation) | (y >> (32 - rotation)))
        x = x + schedule[(group + 1) % 3]
        y = y + schedule[(group + 2) % 3] + jnp.uint32(group + 1)
    return x, y


def _counters(shape: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """The numbers 0, 1, … as 64 bits in two halves."""
    size = math.prod(shape)
    assert size < 2**32, "fewer than 2³² numbers are drawn at a time"
    return jnp.zeros(shape, jnp.uint32), jnp.arange(size, dtype=jnp.uint32).reshape(shape)


def _seed(seed: jax.Array) -> jax.Array:
    return jnp.stack([jnp.uint32(0), seed.astype(jnp.uint32)])


def _split(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return jnp.stack(_threefry2x32(key, *_counters(shape)), axis=-1)


def _random_bits(key: jax.Array, bit_width: int, shape: tuple[int, ...]) -> jax.Array:
    high, low = _threefry2x32(key, *_counters(shape))
    if bit_width == 64:
        return (high.astype(jnp.uint64) << 32) | low.astype(jnp.uint64)
    return (high ^ low).astype(f"uint{bit_width}")


def _fold_in(key: jax.Array, data: jax.Array | int) -> jax.Array:
    return jnp.stack(_threefry2x32(key, jnp.uint32(0), jnp.asarray(data).astype(jnp.uint32)))


THREEFRY = define_prng_impl(
    key_shape=(2,),
    seed=_seed,
    split=_split,
    random_bits=_random_bits,
    fold_in=_fold_in,
    name="jaxrl_threefry2x32",
    tag="jfry",
)
"""The implementation to give to ``jax.random.key``."""
