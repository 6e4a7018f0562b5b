"""Which agents share a tile, and how they are put together anew at a rung.

At a rung some agents stop, or go on as copies of others. Tiles that keep all of theirs stay as they
are; who is left of the others moves together, so that what is saved is whole tiles and thereby time,
and a copy joins the cohort of its source. A lane's neighbours change none of its numbers.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.dqn.hyperparameters import Configuration
from jaxrl.population.plan import Cohort, Plan
from jaxrl.population.tile import Tile


class Lane(NamedTuple):
    """A place in a tile."""

    tile: int
    lane: int


class TilePlace(NamedTuple):
    """A tile and its agents."""

    number: int
    """Of this tile; no other ever has it in this training."""
    wave: int
    """Tiles of a later wave wait until those of earlier ones have given their memory back."""
    cohort: Cohort
    agents: tuple[int, ...]
    sources: tuple[Lane, ...] = ()
    """Where each agent was before the tile was put together; empty where it was planned so."""


class Copy(NamedTuple):
    """What an agent goes on as."""

    source: int
    """The agent whose state it takes over, replay and all; perhaps its own."""
    configuration: Configuration
    """Of the source's shape and cadence."""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What becomes of the agents at a rung; who is not named goes on."""

    stopped: frozenset[int] = frozenset()
    copies: Mapping[int, Copy] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Layout:
    """All tiles of a training after a number of rungs."""

    plan: Plan
    tiles: tuple[TilePlace, ...]
    next_number: int
    changed: Mapping[int, Configuration]
    """Of the agents that have another than in the plan."""

    @classmethod
    def of(cls, plan: Plan) -> "Layout":
        """Before the first rung: the tiles of the plan, numbered in its order."""
        members = [(wave, *tile) for wave, part in enumerate(plan.waves) for tile in part]
        tiles = tuple(TilePlace(number, *member) for number, member in enumerate(members))
        return cls(plan, tiles, len(tiles), {})

    @property
    def agents(self) -> dict[int, tuple[int, ...]]:
        """Of each tile, by its number."""
        return {tile.number: tile.agents for tile in self.tiles}

    def configuration(self, agent: int) -> Configuration:
        """What an agent trains with now."""
        return self.changed.get(agent, self.plan.agents[agent].configuration)

    def after(self, verdict: Verdict) -> "Layout":
        """The tiles after a rung at which that was decided."""
        gone = verdict.stopped | verdict.copies.keys()
        tiles: list[TilePlace] = []
        pools: dict[tuple[int, Cohort], list[tuple[int, Lane]]] = defaultdict(list)
        loose = []
        for tile in self.tiles:
            width = self.plan.widths[tile.cohort.shape]
            if len(tile.agents) == width and gone.isdisjoint(tile.agents):
                tiles.append(tile._replace(sources=()))
            else:
                loose.append(tile)
        joined = self._joined(verdict.copies)
        moving = {
            (t.wave, t.cohort) for t in loose if not gone.isdisjoint(t.agents)
        } | joined.keys()
        for tile in loose:
            if (tile.wave, tile.cohort) in moving:
                lanes = [(a, Lane(tile.number, i)) for i, a in enumerate(tile.agents)]
                pools[tile.wave, tile.cohort] += [(a, lane) for a, lane in lanes if a not in gone]
            else:
                tiles.append(tile._replace(sources=()))
        for place, copies in joined.items():
            pools[place] += copies
        number = self.next_number
        for (wave, cohort), lanes in pools.items():
            width = self.plan.widths[cohort.shape]
            for start in range(0, len(lanes), width):
                agents, sources = zip(*lanes[start : start + width], strict=True)
                tiles.append(TilePlace(number, wave, cohort, agents, sources))
                number += 1
        changed = {agent: copy.configuration for agent, copy in verdict.copies.items()}
        return Layout(self.plan, tuple(tiles), number, {**self.changed, **changed})

    def _joined(
        self, copies: Mapping[int, Copy]
    ) -> dict[tuple[int, Cohort], list[tuple[int, Lane]]]:
        """For each wave and cohort the copies that join it, and the lanes that they come from."""
        where = {a: (tile, i) for tile in self.tiles for i, a in enumerate(tile.agents)}
        joined = defaultdict(list)
        for agent, copy in sorted(copies.items()):
            tile, lane = where[copy.source]
            joined[tile.wave, tile.cohort].append((agent, Lane(tile.number, lane)))
        return joined


def gather(states: Mapping[int, Tile], sources: tuple[Lane, ...], width: int) -> Tile:
    """The tile of the agents at ``sources``, filled up with the first of them, on their device.

    Args:
        states: of the tiles that they come from.
    """
    filled = [*sources, *[sources[0]] * (width - len(sources))]
    tile = states[sources[0].tile]
    for number in dict.fromkeys(number for number, _ in sources):
        lanes = [lane if of == number else -1 for of, lane in filled]
        tile = _put(tile, states[number], np.array(lanes, np.int32))
    return tile


@jax.jit
def _put(tile: Tile, source: Tile, lanes: jax.Array) -> Tile:
    """``tile`` with lane ``lanes[p]`` of ``source`` at each p where that is not negative."""

    def leaf(mine: jax.Array, theirs: jax.Array) -> jax.Array:
        stays = (lanes < 0).reshape(-1, *[1] * (mine.ndim - 1))
        return jnp.where(stays, mine, theirs[jnp.maximum(lanes, 0)])

    return jax.tree.map(leaf, tile, source)
