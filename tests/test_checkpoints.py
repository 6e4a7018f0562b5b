"""Checkpoints on disk: whole or not at all, small, and the last two."""

import dataclasses
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from jaxrl.archives import Writing
from jaxrl.checkpoints import Checkpoints
from jaxrl.errors import SweepError
from jaxrl.population.layout import Verdict
from jaxrl.population.report import Report, Rung
from jaxrl.population.snapshot import BLOCK_ROWS, Control, Snapshot


def report(tile, step, starts=(), final=False, value=0, since=0):
    agents = np.array([2 * tile, 2 * tile + 1])
    if final:
        return Report(tile, agents, step, 0, 0.0, 1, final={})
    leaves = [np.full((2, 3), value, np.float32), np.array([True, False])]
    blocks = {start: np.full((2, BLOCK_ROWS, 4), value, np.float32) for start in starts}
    snapshot = Snapshot(tile, step, leaves, blocks, since)
    return Report(tile, agents, step, 1, 0.0, 1, snapshot=snapshot)


TILES = [(0, 1), (2, 3), (4, 5)]


class Store:
    """Checkpoints in a folder, written when asked."""

    def __init__(self, folder, every=1e9, generation=0):
        self.folder, self.control = folder, Control()
        self.commits = 0
        self.checkpoints = Checkpoints(folder, self.control, every, self.count, 1000, generation)

    def load(self):
        return self.checkpoints.load([dict(enumerate(TILES))], (), 0)[1]

    def count(self):
        self.commits += 1

    def write(self, *reports):
        """One checkpoint of ``reports``."""
        before = self.commits
        for each in reports:
            self.checkpoints.add(each)
        deadline = time.monotonic() + 10
        while self.commits == before:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(0.1)  # it is renamed after that

    def trouble(self):
        """Waits for it."""
        deadline = time.monotonic() + 10
        while self.checkpoints.trouble is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return self.checkpoints.trouble

    def __enter__(self):
        self.checkpoints.start()
        return self

    def __exit__(self, *_):
        self.checkpoints.close()

    def names(self):
        return sorted(path.name for path in self.folder.iterdir())


def load(folder, tiles=TILES, ended=(), **options):
    return Store(folder, **options).checkpoints.load([dict(enumerate(tiles))], ended, 0)[1]


def test_what_was_written_is_loaded_with_every_block(tmp_path):
    with Store(tmp_path) as store:
        store.checkpoints.add(report(1, 1))  # so that it is known
        store.write(report(0, 3000, [0, BLOCK_ROWS], value=1), report(1, 2000, [0], value=2))
        store.write(report(0, 5000, [BLOCK_ROWS], value=3), report(1, 2001, [0], value=4))
    saved = load(tmp_path)
    assert {tile: each.step for tile, each in saved.items()} == {0: 5000, 1: 2001}
    snapshot = saved[0].load()
    assert (snapshot.tile, snapshot.step) == (0, 5000)
    assert {start: rows[0, 0, 0] for start, rows in snapshot.blocks.items()} == {
        0: 1,
        BLOCK_ROWS: 3,
    }
    np.testing.assert_array_equal(snapshot.leaves[0], np.full((2, 3), 3))
    np.testing.assert_array_equal(snapshot.leaves[1], [True, False])


def test_the_last_two_are_kept_with_what_they_need(tmp_path):
    with Store(tmp_path) as store:
        for number in range(6):
            store.write(report(0, 1000 + number, [0 if number else BLOCK_ROWS], value=number))
    assert store.names() == [
        "replay-000001.npz",  # of it there is one block that was never written to again
        "replay-000005.npz",
        "replay-000006.npz",
        "state-000005.npz",
        "state-000006.npz",
    ]
    assert {start: rows[0, 0, 0] for start, rows in load(tmp_path)[0].load().blocks.items()} == {
        0: 5,
        BLOCK_ROWS: 0,
    }


@pytest.mark.parametrize("damaged", ["state-000002.npz", "replay-000002.npz"])
@pytest.mark.parametrize("how", ["cut", "empty", "missing", "bits"])
def test_a_damaged_checkpoint_is_skipped_for_the_one_before(damaged, how, tmp_path):
    with Store(tmp_path) as store:
        for number in (1, 2):
            store.write(report(0, 100 * number, [0], value=number))
    path = tmp_path / damaged
    content = path.read_bytes()
    if how == "missing":
        path.unlink()
    elif how == "bits":
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes(64) + b"\x01" + content[middle + 65 :])
    else:
        path.write_bytes(content[: len(content) // 2] if how == "cut" else b"")
    saved = load(tmp_path)
    assert saved[0].step == 100 or (how == "bits" and saved[0].step == 200)
    assert saved[0].load().leaves[0][0, 0] == saved[0].step / 100
    if saved[0].step == 100 and (how, damaged[:5]) != ("missing", "state"):
        assert [path.name for path in tmp_path.glob("*.damaged")] == ["state-000002.damaged"]


def test_a_tile_that_has_not_reported_again_is_carried_over(tmp_path):
    with Store(tmp_path) as store:
        store.write(report(0, 100, [0], value=1))
    with Store(tmp_path) as store:
        assert store.load()[0].step == 100
        store.write(report(1, 70, [0], value=2))
        store.write(report(1, 80, [0], value=3))
        store.write(report(1, 90, [0], value=4))
    saved = load(tmp_path)
    assert {tile: each.step for tile, each in saved.items()} == {0: 100, 1: 90}
    assert saved[0].load().blocks[0][0, 0, 0] == 1


def test_finished_tiles_are_dropped(tmp_path):
    with Store(tmp_path) as store:
        store.checkpoints.add(report(1, 10))
        store.write(report(0, 100, [0]), report(1, 100, [0]))
        store.checkpoints.add(report(0, 200, final=True))
        store.write(report(1, 200, [0]))
    assert load(tmp_path).keys() == {1}
    assert load(tmp_path, ended={2, 3}) == {}


def test_a_checkpoint_of_other_tiles_is_not_used(tmp_path):
    with Store(tmp_path) as store:
        store.write(report(0, 100, [0]))
    assert load(tmp_path, [(0, 2), (1, 3)]) == {}


def passed(*tiles):
    """A report that all have passed a rung, after which there are ``tiles``: number, agents."""
    layout = SimpleNamespace(agents=dict(tiles))
    nobody = np.array([], int)
    return Report(-1, nobody, 100, 0, 0.0, 1, rung=Rung(Verdict(), layout))


def test_after_a_rung_a_checkpoint_is_of_the_tiles_that_are_left(tmp_path):
    before, after = dict(enumerate(TILES)), {1: (2, 3), 3: (0, 5)}
    with Store(tmp_path) as store:
        for tile in (0, 1, 2):
            store.checkpoints.add(report(tile, 90))
        store.write(*(report(tile, 100, [0], value=1) for tile in (0, 1, 2)))
        store.checkpoints.add(report(1, 110, [0], value=2))  # of a checkpoint that is never whole
        store.checkpoints.add(passed((1, (2, 3)), (3, (0, 5))))
        rungs, saved = Store(tmp_path).checkpoints.load([before, after], (), 1)
        assert (rungs, saved.keys()) == (0, {0, 1, 2})
        store.write(report(1, 120, [0], value=3), regrouped(3, 120, [0, 5]))
    rungs, saved = Store(tmp_path).checkpoints.load([before, after], (), 1)
    assert (rungs, {tile: each.step for tile, each in saved.items()}) == (1, {1: 120, 3: 120})
    assert saved[1].load().blocks[0][0, 0, 0] == 3
    rungs, saved = Store(tmp_path).checkpoints.load([before], (), 0)  # who has passed fewer rungs
    assert (rungs, saved.keys()) == (0, {0, 1, 2})


def test_behind_a_rung_where_nobody_may_begin_anew_a_checkpoint_has_all_tiles_or_is_passed_over(
    tmp_path,
):
    before, after = dict(enumerate(TILES)), {1: (2, 3), 3: (0, 5)}
    with Store(tmp_path) as store:
        for tile in (0, 1, 2):
            store.checkpoints.add(report(tile, 90))
        store.write(*(report(tile, 100, [0], value=1) for tile in (0, 1, 2)))
        store.checkpoints.add(passed((1, (2, 3)), (3, (0, 5))))
        store.checkpoints.add(report(1, 120, [0], value=3))  # and then it ends
    found = {
        (anew, ended): Store(tmp_path).checkpoints.load([before, after], ended, anew)
        for anew, ended in ((0, ()), (0, (0, 5)), (1, ()))
    }
    steps = {
        key: (rungs, {tile: each.step for tile, each in saved.items()})
        for key, (rungs, saved) in found.items()
    }
    assert steps == {
        (0, ()): (0, {0: 100, 1: 100, 2: 100}),
        (0, (0, 5)): (1, {1: 120}),
        (1, ()): (1, {1: 120}),
    }


def regrouped(tile, step, agents):
    return dataclasses.replace(report(tile, step, [0]), agents=np.array(agents))


def test_a_checkpoint_of_another_generation_is_not_used(tmp_path):
    with Store(tmp_path) as store:
        store.write(report(0, 100, [0]))
    assert load(tmp_path).keys() == {0}
    assert load(tmp_path, generation=1) == {}


def test_parts_of_a_killed_process_are_removed_and_numbers_go_on(tmp_path):
    with Store(tmp_path) as store:
        store.write(report(0, 100, [0]))
    (tmp_path / "state-000002.npz.part").write_bytes(b"half")
    with Store(tmp_path) as store:
        store.load()
        store.write(report(0, 200, [0]))
    assert not list(tmp_path.glob("*.part"))
    assert (tmp_path / "state-000002.npz").exists()


def test_it_waits_for_every_tile_that_has_begun(tmp_path):
    with Store(tmp_path) as store:
        store.checkpoints.add(report(1, 10))
        time.sleep(0.2)
        before = store.commits
        store.checkpoints.add(report(0, 100, [0]))
        time.sleep(0.3)
        assert store.commits == before
        store.write(report(1, 100, [0]))
    assert load(tmp_path).keys() == {0, 1}


def test_the_end_writes_what_has_come(tmp_path):
    with Store(tmp_path) as store:
        store.checkpoints._begun.add(2)
        store.checkpoints.add(report(0, 100, [0]))
    assert load(tmp_path).keys() == {0}


def test_snapshots_are_asked_for_when_they_are_due(tmp_path):
    with Store(tmp_path, every=0.2) as store:
        time.sleep(0.7)
        assert store.control.wanted >= 2


def test_a_folder_that_cannot_be_written_is_trouble_and_the_next_is_whole(tmp_path, monkeypatch):
    folder = tmp_path / "checkpoints"
    with Store(folder) as store:
        store.write(report(0, 100, [0], value=1))
        folder.rename(tmp_path / "away")
        store.checkpoints.add(report(0, 200, [0], value=2))
        assert "no such file or directory" in store.trouble()
        assert store.control.wanted_whole == store.control.wanted + 1
        (tmp_path / "away").rename(folder)
        store.write(report(0, 300, [0], value=3))
        assert store.checkpoints.trouble is None
    assert load(folder)[0].step == 300
    assert threading.active_count() < 50


def test_a_snapshot_that_goes_on_from_one_that_was_lost_is_passed_over(tmp_path):
    with Store(tmp_path) as store:
        store.write(report(0, 100, [0], value=1))
        store.checkpoints.add(report(0, 300, [0], value=3, since=200))
        time.sleep(0.3)
        assert store.commits == 1
        store.write(report(0, 400, [0], value=4, since=100))
    assert load(tmp_path)[0].step == 400


@pytest.mark.parametrize("when", ["add", "close"])
def test_whatever_goes_wrong_while_it_writes_is_trouble_and_not_the_end(
    tmp_path, monkeypatch, when
):
    def fail(*_):
        raise ValueError("no such number")

    with Store(tmp_path) as store:
        with monkeypatch.context() as patch:
            patch.setattr(Writing, when, fail)
            store.checkpoints.add(report(0, 100, [0], value=1))
            assert store.trouble() == "no checkpoint: no such number"
        store.write(report(0, 200, [0], value=2))
    assert load(tmp_path)[0].step == 200
    assert not list(tmp_path.glob("*.part"))


def test_a_checkpoint_that_is_gone_when_it_is_needed_is_said_to_be(tmp_path):
    with Store(tmp_path) as store:
        store.write(report(0, 100, [0]))
    saved = load(tmp_path)
    (tmp_path / "replay-000001.npz").unlink()
    with pytest.raises(SweepError, match="could be read a moment ago and now cannot: no such file"):
        saved[0].load()
