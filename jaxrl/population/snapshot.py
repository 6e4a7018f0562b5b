"""Tiles copied to the host between two chunks, and put back.

Agents do not know of each other, so a checkpoint is any set of snapshots, one a tile, each at a step
of its own. The replay is most of a tile and mostly old: a snapshot holds the blocks of the ring that
were written to since the last one.
"""

import dataclasses
import threading
from collections.abc import Callable

import jax
import numpy as np

from jaxrl.population.layout import Verdict
from jaxrl.population.tile import Tile

BLOCK_ROWS = 2048
"""Rows of the ring that are copied together."""


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """A tile of P agents on the host."""

    tile: int
    """Its number, see :class:`jaxrl.population.layout.TilePlace`."""
    step: int
    leaves: list[np.ndarray]
    """Of the tile without its ring, in the order of JAX's trees."""
    blocks: dict[int, np.ndarray]
    """Blocks of the ring, ``[P, rows, W]``, by their first position."""
    since: int = 0
    """Step from which on the blocks hold what was written; 0 for all of it."""

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(array.nbytes for array in (*self.leaves, *self.blocks.values()))


@dataclasses.dataclass(frozen=True)
class SavedTile:
    """A tile to go on with."""

    step: int
    load: Callable[[], Snapshot]
    """Its snapshot, with every block that was ever written to."""


def take_snapshot(index: int, tile: Tile, step: int, since: int) -> Snapshot:
    """Copies ``tile`` at ``step``; of its ring what was written from step ``since`` on.

    The views of device memory end here: a program that gives up a buffer could else not reuse it.
    """
    leaves = [np.array(leaf) for leaf in jax.tree.leaves(_without_ring(tile))]
    ring = np.asarray(tile.ring)
    starts = written_blocks(since, step, ring.shape[1])
    blocks = {start: ring[:, start : start + BLOCK_ROWS].copy() for start in starts}
    return Snapshot(index, step, leaves, blocks, since)


def written_blocks(since: int, step: int, capacity: int) -> list[int]:
    """First positions of the blocks that steps ``since`` to ``step − 1`` wrote to, in a ring of
    ``capacity`` rows."""
    count = min(step - since, capacity)
    first = (step - count) % capacity
    spans = [(first, min(first + count, capacity)), (0, first + count - capacity)]
    return sorted(
        {
            block * BLOCK_ROWS
            for start, stop in spans
            if start < stop
            for block in range(start // BLOCK_ROWS, (stop - 1) // BLOCK_ROWS + 1)
        }
    )


def restore(snapshot: Snapshot, like: Tile, device: jax.Device) -> Tile:
    """The tile of a snapshot, of the types of ``like``, on ``device``.

    Raises:
        ValueError: it is none of such a tile.
    """
    small = _without_ring(like)
    types = jax.tree.leaves(small)
    given = [(leaf.shape, leaf.dtype) for leaf in snapshot.leaves]
    if given != [(leaf.shape, leaf.dtype) for leaf in types]:
        raise ValueError("its arrays are not those of this tile")
    ring = np.zeros(like.ring.shape, like.ring.dtype)
    for start, rows in snapshot.blocks.items():
        ring[:, start : start + rows.shape[1]] = rows
    tile = jax.tree.unflatten(jax.tree.structure(small), snapshot.leaves)
    return jax.device_put(tile._replace(ring=ring), device)


def _without_ring(tile: Tile) -> Tile:
    return tile._replace(ring=())  # type: ignore[arg-type]


class Control:
    """What the host asks of a training under way; safe from any thread."""

    ROOM = 2**29
    """Bytes of snapshots that may wait to be written."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        """What the training waits on."""
        self.stopping = False
        self.keep_rest = False
        """Whether every tile gives a last snapshot when it has stopped."""
        self.wanted = 0
        """How often every tile has been asked for a snapshot."""
        self.wanted_whole = 0
        """Which of those was the last for a whole ring."""
        self.decided: dict[int, Verdict] = {}
        """What becomes of the agents at each rung that was decided."""
        self._waiting = 0

    def stop(self, keep_rest: bool = False) -> None:
        """Ends the training after the chunks under way; with a last snapshot of every tile if
        ``keep_rest``."""
        with self.changed:
            self.stopping = True
            self.keep_rest |= keep_rest
            self.wanted += keep_rest
            self.changed.notify_all()

    def decide(self, rung: int, verdict: Verdict) -> None:
        """Says what becomes of the agents at the step ``rung``, where all of them wait for this."""
        with self.changed:
            self.decided[rung] = verdict
            self.changed.notify_all()

    def ask_for_snapshots(self) -> None:
        """Asks every tile for one, at the end of its next chunk."""
        with self.changed:
            self.wanted += 1

    def ask_whole(self) -> None:
        """Has the next snapshots hold the whole ring, not only what is new."""
        with self.changed:
            self.wanted_whole = self.wanted + 1

    @property
    def has_room(self) -> bool:
        return self._waiting < self.ROOM

    def hold(self, size: int) -> None:
        """Counts a snapshot that was taken."""
        with self.changed:
            self._waiting += size

    def release(self, size: int) -> None:
        """Discounts one that was written."""
        with self.changed:
            self._waiting -= size
            self.changed.notify_all()

    def wait_for_room(self) -> None:
        with self.changed:
            self.changed.wait_for(lambda: self.has_room)
