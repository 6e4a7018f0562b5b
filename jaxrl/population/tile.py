"""What a tile of agents does, to be compiled: the one place where agents are mapped over a tile.

A *tile* is the agents that one program holds, whose number is a constant of the shape. A cohort of any
size is a number of tiles, run one after another or side by side, so an agent's numbers cannot
depend on how many others are trained.

Shapes: P agents of a tile, C rows of a replay ring, W values a row, E evaluation episodes. Times
are int32 scalars, environment steps of an agent.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.dqn import agent, replay
from jaxrl.dqn.environment import Environment
from jaxrl.dqn.exploration import epsilon
from jaxrl.dqn.hyperparameters import Cadence, Hyperparameters, Shape
from jaxrl.dqn.networks import FastQNetwork, OwnNetwork, network_of


class Tile(NamedTuple):
    """The state of one tile. Every leaf has a leading P axis."""

    actor: agent.Actor
    learner: agent.Learner
    ring: jax.Array
    """[P, C, W], the replay rows."""
    sums: agent.Sums
    best_params: Any
    """The parameters with the highest evaluation so far."""
    best_return: jax.Array
    """[P], that evaluation; -inf before the first."""


class Evaluation(NamedTuple):
    """What a tile reports at an evaluation step. Arrays ``[P]``, but for ``eval_returns``."""

    eval_returns: jax.Array
    """[P, E]."""
    train_return_sum: jax.Array
    """Over the latest training episodes, whose number is the next."""
    train_episodes: jax.Array
    loss: jax.Array
    """Mean over the updates since the last report, as the next two; NaN without updates."""
    q_mean: jax.Array
    grad_norm: jax.Array
    epsilon: jax.Array
    updates: jax.Array
    diverged: jax.Array


@dataclasses.dataclass(frozen=True)
class TileFunctions:
    """Functions of a tile of one shape, pure and not yet compiled.

    Everywhere ``seeds [P]`` (uint32) and ``hyper`` belong to the tile, and ``cadence`` is that of all
    its agents, or where it is ``mixed``, ``[P]``, that of each: whose turn it is not is masked.
    """

    shape: Shape
    env: Environment
    width: int
    """P."""
    capacity: int
    """C."""
    eval_episodes: int
    final_episodes: int
    mixed: bool = False
    """Whether its agents may differ in cadence."""

    @property
    def network(self) -> OwnNetwork | FastQNetwork:
        return network_of(self.shape, self.env)

    def inputs(
        self,
    ) -> tuple[jax.ShapeDtypeStruct, Hyperparameters, Cadence, jax.ShapeDtypeStruct]:
        """Types of seeds, hyperparameters, cadence and a time."""

        def leaf(name: str) -> jax.ShapeDtypeStruct:
            observation = name.startswith("observation_")
            shape = (self.width, self.env.observation_size) if observation else (self.width,)
            return jax.ShapeDtypeStruct(shape, HYPERPARAMETER_DTYPES.get(name, np.float32))

        hyper = Hyperparameters(*map(leaf, Hyperparameters._fields))  # type: ignore[arg-type]
        seeds = jax.ShapeDtypeStruct((self.width,), np.uint32)
        rhythm = jax.ShapeDtypeStruct((self.width,) if self.mixed else (), np.int32)
        cadence = Cadence(rhythm, rhythm)  # type: ignore[arg-type]
        return seeds, hyper, cadence, jax.ShapeDtypeStruct((), np.int32)

    def start(self, seeds: jax.Array) -> Tile:
        """New agents, before their first step."""
        initialise = functools.partial(agent.initialise, env=self.env, network=self.network)
        actor, learner = jax.vmap(initialise)(seeds)
        rows = (self.width, self.capacity, replay.row_size(self.env.observation_size))
        return Tile(
            actor=actor,
            learner=learner,
            ring=jnp.zeros(rows),
            sums=jax.tree.map(lambda x: jnp.broadcast_to(x, (self.width,)), agent.no_sums()),
            best_params=learner.params,
            best_return=jnp.full(self.width, -jnp.inf),
        )

    def act(
        self,
        tile: Tile,
        seeds: jax.Array,
        hyper: Hyperparameters,
        start: jax.Array,
        steps: jax.Array,
    ) -> Tile:
        """Takes ``steps`` steps from ``start`` on, without training."""
        act = jax.vmap(
            functools.partial(agent.act, env=self.env, network=self.network),
            in_axes=(0, 0, 0, 0, None),
        )
        keys = jax.vmap(agent.agent_key, in_axes=(0, None))(seeds, agent.ACT)

        def step(
            index: jax.Array, carry: tuple[agent.Actor, jax.Array]
        ) -> tuple[agent.Actor, jax.Array]:
            t = start + index
            actor, rows = act(carry[0], tile.learner.params, hyper, keys, t)
            return actor, replay.write(carry[1], rows, t)

        actor, ring = jax.lax.fori_loop(0, steps, step, (tile.actor, tile.ring))
        return tile._replace(actor=actor, ring=ring)

    def train(
        self,
        tile: Tile,
        seeds: jax.Array,
        hyper: Hyperparameters,
        start: jax.Array,
        cadence: Cadence,
        every: jax.Array,
        rounds: jax.Array,
    ) -> Tile:
        """Rounds of acting up to the next multiple of ``every``, which divides every ``train_freq``,
        and of the training that is due there."""

        def train_round(_: jax.Array, carry: tuple[jax.Array, Tile]) -> tuple[jax.Array, Tile]:
            t, tile = carry
            end = (t // every + 1) * every
            tile = self.act(tile, seeds, hyper, t, end - t)
            return end, self.learn(tile, seeds, hyper, end, cadence)

        return jax.lax.fori_loop(0, rounds, train_round, (start, tile))[1]

    def learn(
        self,
        tile: Tile,
        seeds: jax.Array,
        hyper: Hyperparameters,
        t: jax.Array,
        cadence: Cadence,
    ) -> Tile:
        """The training after ``t`` steps, of the agents whose turn it is and whose warm-up is over."""
        train_freq: Any = cadence.train_freq
        gradient_steps: Any = cadence.gradient_steps
        own = 0 if self.mixed else None  # the axis of what is each agent's own where they are mixed
        ready, turns, since = t > hyper.learning_starts, gradient_steps, train_freq
        any_double_q = jnp.any(hyper.double_q)
        choose = functools.partial(
            replay.choose,
            capacity=self.capacity,
            rows=self.shape.minibatch_rows,
            n_step=self.shape.n_step,
        )
        draw: Callable[..., replay.Choice] = jax.vmap(choose, in_axes=(0, None, 0))
        if self.mixed:
            due = t % train_freq == 0
            ready, since = ready & due, jnp.where(due, train_freq, 0)
            turns = jnp.max(jnp.where(ready, gradient_steps, 0))
            # Known only at run time it would be a branch, perhaps for the host to choose.
            any_double_q = jnp.bool_(True)
        else:
            draw = functools.partial(_apart, draw, once=jnp.minimum(gradient_steps, 1))
        keys = jax.vmap(agent.agent_key, in_axes=(0, None))(seeds, agent.REPLAY)
        fold_in = jax.vmap(jax.random.fold_in, in_axes=(0, own))
        update = jax.vmap(
            functools.partial(agent.update, network=self.network), in_axes=(0, 0, 0, 0, 0, None)
        )
        update_target = jax.vmap(agent.update_target, in_axes=(0, 0, None, own))

        def step(
            index: jax.Array, carry: tuple[agent.Learner, agent.Sums]
        ) -> tuple[agent.Learner, agent.Sums]:
            turn_keys = fold_in(keys, (t // train_freq) * gradient_steps + index)
            choice = draw(turn_keys, t, hyper.buffer_size)
            batch = jax.vmap(replay.read)(tile.ring, choice, hyper.gamma)
            now = ready & (index < gradient_steps) if self.mixed else ready
            return update(*carry, batch, hyper, now, any_double_q)

        learner = tile.learner._replace(target_params=update_target(tile.learner, hyper, t, since))
        learner, sums = jax.lax.fori_loop(0, turns, step, (learner, tile.sums))
        return tile._replace(learner=learner, sums=sums)

    def evaluate(
        self, tile: Tile, seeds: jax.Array, hyper: Hyperparameters, t: jax.Array
    ) -> tuple[Tile, Evaluation]:
        """Greedy episodes after ``t`` steps; keeps the best policy so far, restarts the sums.

        A policy that has not been trained yet is never the best: agents that share a seed share it.
        """
        learner, sums = tile.learner, tile.sums
        diverged = learner.diverged | ~jax.vmap(agent.is_finite)(learner.params)
        returns = self._returns(learner.params, seeds, hyper, agent.EVALUATE, t, self.eval_episodes)
        mean = jnp.mean(returns, axis=1)
        better = (mean > tile.best_return) & (learner.updates > 0) & ~diverged
        evaluation = Evaluation(
            eval_returns=returns,
            train_return_sum=jnp.sum(tile.actor.returns, axis=1),
            train_episodes=jnp.minimum(tile.actor.episodes, agent.RETURN_WINDOW),
            loss=sums.loss / sums.updates,
            q_mean=sums.q / sums.updates,
            grad_norm=sums.grad_norm / sums.updates,
            epsilon=jax.vmap(epsilon, in_axes=(0, None))(hyper, t),
            updates=learner.updates,
            diverged=diverged,
        )
        tile = tile._replace(
            learner=learner._replace(diverged=diverged),
            sums=jax.tree.map(jnp.zeros_like, sums),
            best_params=jax.vmap(_select)(better, learner.params, tile.best_params),
            best_return=jnp.where(better, mean, tile.best_return),
        )
        return tile, evaluation

    def finish(
        self, params: Any, seeds: jax.Array, hyper: Hyperparameters, t: jax.Array
    ) -> jax.Array:
        """The final evaluation: returns ``[P, E]`` of fresh episodes, the same ones for all policies
        of an agent."""
        return self._returns(params, seeds, hyper, agent.FINAL, t, self.final_episodes)

    def _returns(
        self,
        params: Any,
        seeds: jax.Array,
        hyper: Hyperparameters,
        purpose: int,
        t: jax.Array,
        episodes: int,
    ) -> jax.Array:
        """Returns ``[P, E]`` of greedy episodes, on keys that follow from seed, purpose and step."""
        play = functools.partial(agent.greedy_return, env=self.env, network=self.network)

        def of_agent(params: Any, hyper: Hyperparameters, seed: jax.Array) -> jax.Array:
            key = jax.random.fold_in(agent.agent_key(seed, purpose), t)
            keys = jax.random.split(key, episodes)
            return jax.vmap(play, in_axes=(None, None, 0))(params, hyper, keys)

        return jax.vmap(of_agent)(params, hyper, seeds)


HYPERPARAMETER_DTYPES: dict[str, type] = {
    "batch_size": np.int32,
    "train_freq": np.int32,
    "gradient_steps": np.int32,
    "buffer_size": np.int32,
    "target_update_interval": np.int32,
    "learning_starts": np.int32,
    "epsilon_decay_steps": np.int32,
    "double_q": np.bool_,
}
"""Types of the traced hyperparameters, and of the cadence, that are not float32."""


def _apart(fn: Callable[..., Any], *args: Any, once: jax.Array) -> Any:
    """``fn(*args)`` in a loop of one turn, whose number XLA does not know.

    Fused with the gather that uses them, sampled positions would be computed again for every value
    of a row; on a CPU no barrier survives until fusion but a loop.
    """
    empty = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(fn, *args))
    return jax.lax.fori_loop(0, once, lambda _, __: fn(*args), empty)


def _select(condition: jax.Array, new: Any, old: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)
