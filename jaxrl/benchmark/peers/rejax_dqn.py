"""Times rejax's DQN on workload W1, vmapped over learning rates; prints one line of JSON.

Stands alone: needs rejax (``pip install jaxrl[bench]``) and not jaxrl. rejax steps ten environments
for an update where W1 takes ten steps of one; the number of steps and updates is the same.
"""

import argparse
import importlib.metadata
import json
import time
from typing import Any

import gymnax
import jax
import jax.numpy as jnp
import rejax
from rejax.evaluate import evaluate


class FiveValues:
    """gymnax 1.x returns six values from ``step`` and rejax 0.1.3 expects five."""

    def __init__(self, env: Any) -> None:
        self._env = env

    def __getattr__(self, name: str) -> Any:
        if name == "_env":  # rejax copies its configuration, which looks before there is one
            raise AttributeError(name)
        return getattr(self._env, name)

    def step(self, key: Any, state: Any, action: Any, params: Any) -> tuple[Any, ...]:
        observation, state, reward, terminated, truncated, info = self._env.step(
            key, state, action, params
        )
        return observation, state, reward, jnp.logical_or(terminated, truncated), info


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", type=int, default=64)
    parser.add_argument("--steps", type=int, default=50_000)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    env, params = gymnax.make("CartPole-v1")
    env = FiveValues(env)
    algorithm = rejax.get_algo("dqn").create(
        env=env,
        env_params=params,
        agent_kwargs={"activation": "relu"},
        num_envs=10,
        total_timesteps=args.steps,
        eval_freq=args.steps // 20,
        skip_initial_evaluation=True,
        batch_size=128,
        buffer_size=10_000,
        fill_buffer=10_000,
        target_update_freq=500,
        polyak=0.0,
        ddqn=False,
        exploration_fraction=0.5,
    )

    def evaluate_few(algorithm: Any, state: Any, key: jax.Array) -> Any:
        return evaluate(algorithm.make_act(state), key, env, params, 10, 500)

    algorithm = algorithm.replace(eval_callback=evaluate_few)

    def train(learning_rate: jax.Array, key: jax.Array) -> Any:
        return algorithm.replace(learning_rate=learning_rate).train(key)[1]

    rates = jnp.logspace(-4, -2, args.agents)
    keys = jax.random.split(jax.random.key(0), args.agents)
    began = time.perf_counter()
    compiled = jax.jit(jax.vmap(train)).lower(rates, keys).compile()
    compile_seconds = time.perf_counter() - began
    seconds = []
    for _ in range(args.repeats):
        began = time.perf_counter()
        jax.block_until_ready(compiled(rates, keys))
        seconds.append(time.perf_counter() - began)
    print(
        json.dumps(
            {
                "system": f"rejax {importlib.metadata.version('rejax')}",
                "agents": args.agents,
                "steps": args.steps,
                "compile_seconds": compile_seconds,
                "seconds": seconds,
            }
        )
    )


if __name__ == "__main__":
    main()
