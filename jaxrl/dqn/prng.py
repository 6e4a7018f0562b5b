"""Random keys: JAX's own Threefry, bit for bit, written so that it melts into what uses it.

On a CPU JAX compiles ``threefry2x32`` to a loop of its own, on a GPU to a kernel of its own; for
the few numbers that an environment step draws, starting that costs far more than the hash. Here the
twenty rounds are plain arithmetic, which XLA fuses with the code around them.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.random import define_prng_impl

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA


@functools.partial(jax.jit, inline=True)  # traced once for a shape
def _threefry2x32(key: jax.Array, high: jax.Array, low: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Threefry-2x32 with 20 rounds (Salmon et al. 2011, doi 10.1145/2063384.2063405).

    Written in ``lax``, which traces in half the time of ``jax.numpy``.

    Args:
        key: [2], uint32.
        high, low: uint32 counters of one shape.
    """

    def number(value: int) -> jax.Array:
        return lax.full_like(low, value)

    first, second = (lax.broadcast(key[i], low.shape) for i in (0, 1))
    third = lax.bitwise_xor(lax.bitwise_xor(first, second), number(_PARITY))
    schedule = (first, second, third)
    x, y = lax.add(high, first), lax.add(low, second)
    for group in range(5):
        for rotation in _ROTATIONS[group % 2]:
            x = lax.add(x, y)
            left = lax.shift_left(y, number(rotation))
            right = lax.shift_right_logical(y, number(32 - rotation))
            y = lax.bitwise_xor(x, lax.bitwise_or(left, right))
        x = lax.add(x, schedule[(group + 1) % 3])
        y = lax.add(lax.add(y, schedule[(group + 2) % 3]), number(group + 1))
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
