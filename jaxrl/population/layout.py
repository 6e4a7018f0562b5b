"""Which agents share a tile, and how the survivors of a rung are put together.

At a rung some agents stop. Tiles that keep all of theirs stay as they are; the survivors of the others
move together, so that what is saved is whole tiles and thereby time. A lane's neighbours change none
of its numbers.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Collection
from typing import NamedTuple

import jax
import numpy as np

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


@dataclasses.dataclass(frozen=True)
class Layout:
    """All tiles of a training after a number of rungs."""

    plan: Plan
    tiles: tuple[TilePlace, ...]
    next_number: int

    @classmethod
    def of(cls, plan: Plan) -> "Layout":
        """Before the first rung: the tiles of the plan, numbered in its order."""
        members = [(wave, *tile) for wave, part in enumerate(plan.waves) for tile in part]
        tiles = tuple(TilePlace(number, *member) for number, member in enumerate(members))
        return cls(plan, tiles, len(tiles))

    @property
    def agents(self) -> dict[int, tuple[int, ...]]:
        """Of each tile, by its number."""
        return {tile.number: tile.agents for tile in self.tiles}

    def without(self, stopped: Collection[int]) -> "Layout":
        """The tiles after a rung at which the agents ``stopped`` end."""
        gone = set(stopped)
        tiles, pools = [], defaultdict(list)
        for tile in self.tiles:
            left = [agent for agent in tile.agents if agent not in gone]
            if len(left) == self.plan.tile_width(tile.cohort.shape):
                tiles.append(tile._replace(sources=()))
            elif left:
                pools[tile.wave, tile.cohort].append(tile)
        number = self.next_number
        for (wave, cohort), pool in pools.items():
            if all(gone.isdisjoint(tile.agents) for tile in pool):
                tiles += [tile._replace(sources=()) for tile in pool]
                continue
            lanes = [
                (agent, Lane(tile.number, lane))
                for tile in pool
                for lane, agent in enumerate(tile.agents)
                if agent not in gone
            ]
            width = self.plan.tile_width(cohort.shape)
            for start in range(0, len(lanes), width):
                agents, sources = zip(*lanes[start : start + width], strict=True)
                tiles.append(TilePlace(number, wave, cohort, agents, sources))
                number += 1
        return Layout(self.plan, tuple(tiles), number)


def gather(states: dict[int, Tile], sources: tuple[Lane, ...], width: int) -> Tile:
    """The tile of the agents at ``sources``, filled up with the first of them, on the host.

    Args:
        states: of the tiles that they come from.
    """
    filled = [*sources, *[sources[0]] * (width - len(sources))]
    order = sorted({tile for tile, _ in sources})

    def leaf(*arrays: jax.Array) -> np.ndarray:
        views = dict(zip(order, map(np.asarray, arrays), strict=True))
        return np.stack([views[tile][lane] for tile, lane in filled])

    return jax.tree.map(leaf, *(states[tile] for tile in order))
