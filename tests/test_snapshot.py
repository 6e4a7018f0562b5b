"""Tiles copied to the host and put back: to the bit, and without a copy on the device."""

import dataclasses

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrl.dqn.environment import make
from jaxrl.dqn.hyperparameters import Configuration
from jaxrl.population.devices import configure
from jaxrl.population.plan import Agent, Budget, make_plan
from jaxrl.population.snapshot import (
    BLOCK_ROWS,
    Control,
    SavedTile,
    restore,
    take_snapshot,
    written_blocks,
)
from jaxrl.population.tile import TileFunctions
from jaxrl.population.train import train

pytestmark = pytest.mark.usefixtures("compilation_cache")

VALUES = {"hidden_sizes": [8], "buffer_size": 5000, "learning_starts": 100, "train_freq": 7}


@given(st.integers(0, 30_000), st.integers(0, 30_000), st.sampled_from([1, 2048, 5000, 9001]))
def test_the_blocks_are_those_that_were_written_to(since, more, capacity):
    step = since + more
    positions = {t % capacity for t in range(max(since, step - capacity), step)}
    expected = sorted({position // BLOCK_ROWS * BLOCK_ROWS for position in positions})
    assert written_blocks(since, step, capacity) == expected


def plan_of(agents=6, steps=9000):
    population = [Agent(Configuration.create(VALUES, steps), seed) for seed in range(agents)]
    budget = Budget(steps, eval_every=1500, eval_episodes=2, final_episodes=3)
    return make_plan(population, budget, make("CartPole-v1"), configure("cpu"))


def finals(reports):
    return {
        index: {name: column[place] for name, column in report.final.items()}
        for report in reports
        if report.final is not None
        for place, index in enumerate(report.agents)
    }


@pytest.fixture(scope="module")
def whole():
    reports = list(train(plan_of()))
    assert all(report.snapshot is None for report in reports)
    return finals(reports)


class Merged:
    """Snapshots of one tile, the later over the earlier, as a checkpoint keeps them."""

    def __init__(self):
        self.blocks, self.latest = {}, None

    def add(self, snapshot):
        self.blocks |= snapshot.blocks
        self.latest = snapshot

    def saved(self):
        whole = dataclasses.replace(self.latest, blocks=self.blocks)
        return SavedTile(whole.step, lambda: whole)


def stopped_after(count, plan):
    """What a training has given when it is stopped after ``count`` reports."""
    control, tiles, reports = Control(), {0: Merged(), 1: Merged()}, []
    for report in train(plan, control):
        reports.append(report)
        if report.snapshot is not None:
            tiles[report.tile].add(report.snapshot)
            control.release(report.snapshot.size)
        control.ask_for_snapshots()
        if len(reports) == count:
            control.stop(keep_rest=True)
    return reports, tiles


@pytest.mark.parametrize("count", [1, 8])
def test_a_training_goes_on_from_its_snapshots_to_the_same_numbers(count, whole):
    plan = plan_of()
    before, tiles = stopped_after(count, plan)
    finished = {report.tile for report in before if report.final is not None}
    saved = {i: m.saved() for i, m in tiles.items() if m.latest is not None and i not in finished}
    assert saved or finished or count == 1, "stopped before evaluation was compiled, it begins anew"
    after = list(train(plan, None, saved, finished))
    assert finals(before).keys().isdisjoint(finals(after))
    together = {**finals(before), **finals(after)}
    assert together.keys() == whole.keys()
    for index, values in whole.items():
        for name, value in values.items():
            np.testing.assert_array_equal(together[index][name], value)


def test_snapshots_after_the_first_hold_only_what_is_new():
    control, sizes = Control(), []
    for report in train(plan_of(agents=4), control):
        if report.snapshot is not None:
            sizes.append((report.step, len(report.snapshot.blocks)))
            control.release(report.snapshot.size)
        control.ask_for_snapshots()
    assert all(blocks <= 2 for _, blocks in sizes[1:]), "1,500 steps touch two blocks at most"


def test_a_host_that_does_not_write_is_not_asked_to_hold_more(monkeypatch):
    monkeypatch.setattr(Control, "ROOM", 1)
    control, taken = Control(), 0
    for report in train(plan_of(agents=4), control):
        taken += report.snapshot is not None  # and never released
        control.ask_for_snapshots()
    assert taken == 1


def test_a_snapshot_leaves_the_tile_where_it_is(monkeypatch):
    """A view of a buffer that is given up must not make the next program copy it."""
    from jaxrl.population import tile_run as module

    places = []
    monkeypatch.setattr(
        module,
        "take_snapshot",
        lambda *args: (places.append(args[1].ring.unsafe_buffer_pointer()), take_snapshot(*args))[
            1
        ],
    )
    control = Control()
    for report in train(plan_of(agents=4), control):
        if report.snapshot is not None:
            control.release(report.snapshot.size)
        control.ask_for_snapshots()
    assert len(places) > 3
    assert len(set(places)) == 1


def test_another_tiles_snapshot_is_refused():
    plan, seeds = plan_of(agents=4), np.zeros(4, np.uint32)

    def tile_of(hidden_sizes):
        shape = plan.shapes[0]._replace(hidden_sizes=hidden_sizes)
        return TileFunctions(shape, plan.env, 4, 5000, 1, 1)

    snapshot = take_snapshot(0, tile_of((8,)).start(seeds), step=0, since=0)
    other = jax.eval_shape(tile_of((9,)).start, seeds)
    with pytest.raises(ValueError, match="not those of this tile"):
        restore(snapshot, other, jax.devices()[0])
