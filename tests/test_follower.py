"""The follower: everything reaches the tracker, once and in order, or it is said that it did not."""

import copy
import itertools
import threading
import time

import pytest

from jaxrl.tracking import follower as followers
from jaxrl.tracking import journal as journals
from jaxrl.tracking.budget import Budget
from jaxrl.tracking.delivery import Delivery, last_uri
from jaxrl.tracking.follower import Follower
from jaxrl.tracking.journal import Journal
from jaxrl.tracking.projection import METRICS, Description, Projection
from jaxrl.tracking.tracker import TrackerError

pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")


class Tracker:
    """Keeps updates; each call takes ``seconds`` and raises the next of ``errors`` first."""

    uri, notes = "memory:", ()

    def __init__(self, errors=(), seconds=0.0):
        self.requests, self.state = 0, {}
        self.updates = []
        self.calls = 0
        self._errors = iter(errors)
        self._seconds = seconds

    def apply(self, update):
        self.calls += 1
        self.requests += 1
        time.sleep(self._seconds)
        error = next(self._errors, None)
        if error is not None:
            raise error
        self.updates.append(copy.deepcopy(update))

    def of(self, config):
        return [update for update in self.updates if update.config == config]

    def points(self, config):
        """Steps and values of the returns of a configuration, as they came."""
        metrics = [metric for update in self.of(config) for metric in update.metrics]
        return [(m.step, m.value) for m in metrics if m.key == "eval/return_mean"]


def follow(directory, tracker, agents=1, **options):
    configurations = [{"gamma": 0.9}] * agents
    numbers = list(range(agents))
    description = Description("name", "id", "jaxrl", {}, configurations, numbers, numbers)
    follower = Follower(directory, Projection(description), tracker, **options)
    follower.start()
    return follower


def evaluate(journal, *steps, agents=1):
    """Agent i has a return of 1000 i + step."""
    for step in steps:
        metrics = {name: [0.0] * agents for name in METRICS} | {"diverged": [False] * agents}
        metrics["eval_return_mean"] = [1000.0 * agent + step for agent in range(agents)]
        journal.append("evaluation", step=step, agents=list(range(agents)), metrics=metrics)


def expected(steps, agent=0):
    return [(step, 1000.0 * agent + step) for step in steps]


def wait_for(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def timed(call):
    began = time.monotonic()
    return call(), time.monotonic() - began


def test_everything_is_delivered_once_and_in_order(tmp_path):
    journal, tracker = Journal(tmp_path), Tracker()
    evaluate(journal, *range(1, 700), agents=3)  # more than the follower reads at once
    follower = follow(tmp_path, tracker, agents=3)
    evaluate(journal, *range(700, 710), agents=3)
    journal.append("end", status="killed")
    assert follower.finish(20)
    for agent in range(3):
        assert tracker.points(agent) == expected(range(1, 710), agent)
        assert [u.status for u in tracker.of(agent) if u.status] == ["KILLED"]
        assert [bool(u.params) for u in tracker.of(agent)].count(True) == 1
    assert tracker.updates[-1].status == "KILLED"
    assert tracker.updates[-1].config is None
    assert follower.trouble is None


def test_a_journal_that_grows_is_followed_into_the_segments_of_later_processes(tmp_path):
    tracker = Tracker()
    follower = follow(tmp_path / "journal", tracker)  # which is not there yet
    for process in range(3):
        journal = Journal(tmp_path / "journal")
        for step in range(10 * process + 1, 10 * process + 11, 5):
            evaluate(journal, step)
            wait_for(lambda step=step: tracker.points(0)[-1:] == expected([step]))
        journal.close()
    assert tracker.points(0) == expected([1, 6, 11, 16, 21, 26])
    assert follower.finish(5)


def test_what_is_written_just_before_the_end_is_delivered(tmp_path):
    journal, tracker = Journal(tmp_path), Tracker()
    follower = follow(tmp_path, tracker)
    evaluate(journal, 1)
    wait_for(lambda: tracker.updates)
    evaluate(journal, *range(2, 100))
    assert follower.finish(5)
    assert tracker.points(0) == expected(range(1, 100))


def test_what_is_written_between_a_reading_and_the_end_is_delivered(tmp_path, monkeypatch):
    has_read, wrote = threading.Event(), threading.Event()
    read = journals.read

    def read_slowly(*args):
        yield from read(*args)
        if not has_read.is_set():
            has_read.set()
            wrote.wait(5)
            time.sleep(0.2)  # in which finish() is called

    monkeypatch.setattr(journals, "read", read_slowly)
    journal, tracker = Journal(tmp_path), Tracker()
    follower = follow(tmp_path, tracker)
    assert has_read.wait(5)
    evaluate(journal, 1)
    wrote.set()
    assert follower.finish(5)
    assert tracker.points(0) == expected([1])


def test_a_sweep_that_wrote_nothing_ends_at_once(tmp_path):
    tracker = Tracker()
    done, seconds = timed(lambda: follow(tmp_path, tracker).finish(10))
    assert done
    assert seconds < 3
    assert tracker.calls == 0


def test_a_tracker_that_fails_for_a_while_gets_everything_later(tmp_path):
    journal, tracker = Journal(tmp_path), Tracker([OSError("the\nnetwork is down"), OSError("on")])
    follower = follow(tmp_path, tracker)
    evaluate(journal, 1)
    wait_for(lambda: follower.trouble)
    assert follower.trouble == "the network is down"
    evaluate(journal, 2, 3)
    wait_for(lambda: tracker.points(0) == expected([1, 2, 3]))
    wait_for(lambda: follower.trouble is None)
    assert follower.finish(5)
    assert tracker.points(0) == expected([1, 2, 3])


def test_a_tracker_that_comes_back_while_the_sweep_waits_for_it_gets_everything(tmp_path):
    journal, tracker = Journal(tmp_path), Tracker([OSError("down")])
    evaluate(journal, 1, 2)
    assert follow(tmp_path, tracker).finish(20)
    assert tracker.points(0) == expected([1, 2])


def test_an_error_without_a_message_is_trouble_too(tmp_path):
    follower = follow(tmp_path, Tracker(itertools.repeat(TimeoutError())))
    evaluate(Journal(tmp_path), 1)
    wait_for(lambda: follower.trouble is not None)
    assert follower.trouble, "the display takes an empty text for none"
    assert not follower.finish(0)


def test_a_tracker_that_stays_down_ends_the_wait_in_time_and_is_said(tmp_path):
    tracker = Tracker(itertools.repeat(OSError("down")))
    follower = follow(tmp_path, tracker)
    evaluate(Journal(tmp_path), 1)
    wait_for(lambda: tracker.calls >= 2)
    done, seconds = timed(lambda: follower.finish(2))
    assert not done
    assert seconds < 5
    assert follower.trouble == "down"


def test_a_tracker_that_is_too_slow_ends_the_wait_in_time(tmp_path):
    tracker = Tracker(seconds=0.5)
    evaluate(Journal(tmp_path), 1, agents=15)
    done, seconds = timed(lambda: follow(tmp_path, tracker, agents=15).finish(1))
    assert seconds < 5, "finish() waits up to its timeout, and for a request that is under way"
    assert not done


def test_a_tracker_that_refuses_is_left_alone_and_nothing_raises(tmp_path):
    journal, tracker = Journal(tmp_path), Tracker([None, TrackerError("no permission")])
    follower = follow(tmp_path, tracker, agents=3)
    evaluate(journal, 1, agents=3)
    wait_for(lambda: follower.trouble)
    assert "refused" in follower.trouble
    assert "no permission" in follower.trouble
    evaluate(journal, 2, agents=3)
    done, seconds = timed(lambda: follower.finish(10))
    assert not done
    assert seconds < 3
    assert tracker.calls == 2


def test_a_damaged_record_is_said_and_not_tried_again(tmp_path):
    journal, tracker = Journal(tmp_path), Tracker()
    journal.append("evaluation", step=1, agents=[0], metrics={"eval_return_mexn": [1.0]})
    evaluate(journal, 2)
    follower = follow(tmp_path, tracker)
    done, seconds = timed(lambda: follower.finish(60))
    assert not done
    assert seconds < 10
    assert "the journal is damaged: a record of kind evaluation" in follower.trouble


def test_a_slow_tracker_gets_fewer_and_larger_updates(tmp_path):
    journal, tracker = Journal(tmp_path), Tracker(seconds=0.15)
    follower = follow(tmp_path, tracker)
    for step in range(1, 101):
        evaluate(journal, step)
        time.sleep(0.01)
    assert follower.finish(10)
    assert tracker.points(0) == expected(range(1, 101))
    assert len(tracker.of(0)) <= 12


def test_nobody_is_told_that_everything_arrived_where_the_journal_could_not_be_read(tmp_path):
    (tmp_path / "000000.jsonl").mkdir()  # reading it raises OSError, as a network drive may
    tracker = Tracker()
    follower = follow(tmp_path, tracker)
    time.sleep(0.3)
    (tmp_path / "000000.jsonl").rmdir()
    evaluate(Journal(tmp_path), 1)
    assert follower.finish(5) == (tracker.points(0) == expected([1]))


def test_a_tracker_that_has_everything_is_not_behind(tmp_path):
    follower = follow(tmp_path, Tracker())
    assert follower.seconds_behind() == 0
    evaluate(Journal(tmp_path), 1)
    time.sleep(1.5)  # nothing new is written
    assert follower.seconds_behind() < 1
    assert follower.finish(5)


def test_a_tracker_that_has_nothing_yet_is_as_far_behind_as_the_oldest_record_waits(tmp_path):
    follower = follow(tmp_path, Tracker(seconds=2))
    evaluate(Journal(tmp_path), 1)
    time.sleep(1.5)
    assert 1 < follower.seconds_behind() < 2.5
    assert follower.finish(10)


def test_an_outage_fills_no_memory(tmp_path, monkeypatch):
    read, count = journals.read, itertools.count()

    def counted(*args):
        for record in read(*args):
            next(count)
            yield record

    monkeypatch.setattr(journals, "read", counted)
    monkeypatch.setattr(followers, "_POINTS_AT_ONCE", 1000)
    evaluate(Journal(tmp_path), *range(5000))
    tracker = Tracker(itertools.repeat(OSError("down")))
    follower = follow(tmp_path, tracker)
    wait_for(lambda: tracker.calls >= 2)
    assert not follower.finish(0)
    assert next(count) <= 1000


class Process:
    """A follower of its own on a journal, with a record of what has arrived."""

    def __init__(self, directory, tracker, agents=2):
        delivery = Delivery(directory, tracker.uri)
        self.follower = follow(directory / "journal", tracker, agents, delivery=delivery)


def test_another_process_goes_on_where_the_last_one_was(tmp_path):
    journal, first, second = Journal(tmp_path / "journal"), Tracker(), Tracker()
    evaluate(journal, 1, 2, agents=2)
    assert Process(tmp_path, first).follower.finish(5)
    evaluate(journal, 3, agents=2)
    assert Process(tmp_path, second).follower.finish(5)
    assert first.points(1) == expected([1, 2], 1)
    assert second.points(1) == expected([3], 1)


def test_a_process_that_was_killed_before_it_noted_says_it_again(tmp_path, monkeypatch):
    journal, first, second = Journal(tmp_path / "journal"), Tracker(), Tracker()
    evaluate(journal, 1, 2, agents=2)
    with monkeypatch.context() as patch:
        patch.setattr(Delivery, "write", lambda _: None)
        assert Process(tmp_path, first).follower.finish(5)
    assert Process(tmp_path, second).follower.finish(5)
    assert second.points(0) == first.points(0) == expected([1, 2])


def test_a_record_that_cannot_be_read_is_none(tmp_path):
    evaluate(Journal(tmp_path / "journal"), 1, agents=2)
    assert Process(tmp_path, Tracker()).follower.finish(5)
    (record,) = (tmp_path / "tracking").glob("*.json")
    record.write_text("{torn")
    again = Tracker()
    assert Process(tmp_path, again).follower.finish(5)
    assert again.points(0) == expected([1])


def test_trackers_have_records_of_their_own(tmp_path):
    evaluate(Journal(tmp_path / "journal"), 1, agents=2)
    here, there = Tracker(), Tracker()
    there.uri = "memory:elsewhere"
    for tracker in (here, there):
        assert Process(tmp_path, tracker).follower.finish(5)
        assert tracker.points(0) == expected([1])
    assert last_uri(tmp_path) == "memory:elsewhere"


def test_a_budget_that_is_used_up_is_said_and_waited_for(tmp_path):
    evaluate(Journal(tmp_path), 1, agents=6)
    tracker = Tracker()
    follower = follow(tmp_path, tracker, agents=6, budget=Budget(3))
    wait_for(lambda: follower.trouble)
    assert "the hour's requests are used up for 60 minutes" in follower.trouble
    assert tracker.requests == 3
    assert not follower.finish(0)


def test_a_record_that_cannot_be_written_loses_nothing(tmp_path, monkeypatch):
    journal, tracker = Journal(tmp_path / "journal"), Tracker()
    write = Delivery.write

    def fail(_):
        raise OSError("no space left on device")

    process = Process(tmp_path, tracker)
    with monkeypatch.context() as patch:
        patch.setattr(Delivery, "write", fail)
        for step in (1, 2, 3):
            evaluate(journal, step, agents=2)
            wait_for(lambda step=step: tracker.points(1)[-1:] == expected([step], 1))
    assert Delivery.write is write
    assert process.follower.finish(5)
    evaluate(journal, 4, agents=2)
    again = Tracker()
    assert Process(tmp_path, again).follower.finish(5)
    assert again.points(1) == expected([4], 1)
