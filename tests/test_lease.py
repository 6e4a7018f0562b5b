"""A run directory belongs to one process at a time."""

import json
import subprocess
import sys
import threading
import time

import pytest

from jaxrl import lease as leases
from jaxrl.errors import InputError, SweepError
from jaxrl.lease import NAME, Lease


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(leases, "_BEAT_SECONDS", 0.1)
    monkeypatch.setattr(leases, "_SILENT_SECONDS", 1.0)


def test_it_is_held_until_it_is_released(tmp_path):
    lease = Lease(tmp_path)
    with pytest.raises(InputError, match="works on"):
        Lease(tmp_path)
    lease.release()
    assert list(tmp_path.iterdir()) == []
    Lease(tmp_path).release()


def test_a_killed_process_holds_nothing(tmp_path):
    script = (
        "import os, pathlib, sys; from jaxrl.lease import Lease; "
        "lease = Lease(pathlib.Path(sys.argv[1])); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert (tmp_path / NAME).exists()
    began = time.monotonic()
    Lease(tmp_path).release()
    assert time.monotonic() - began < 0.9, "the system knows that it is dead"


def another_machine(path, beat):
    holder = {"host": "another", "pid": 1, "started": 0.0, "token": "x", "beat": beat}
    path.write_text(json.dumps(holder))


def test_another_machine_whose_heart_beats_holds_it_whatever_its_clock_says(tmp_path):
    another_machine(tmp_path / NAME, 0)
    timer = threading.Timer(0.3, another_machine, (tmp_path / NAME, 1))
    timer.start()
    with pytest.raises(InputError, match="process 1 on another works on"):
        Lease(tmp_path)
    timer.join()


def test_another_machine_that_is_silent_is_dead_whatever_its_clock_says(tmp_path):
    another_machine(tmp_path / NAME, time.time() + 1e6)
    Lease(tmp_path).release()


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "null"])
def test_an_illegible_heartbeat_is_none(tmp_path, content):
    (tmp_path / NAME).write_text(content)
    Lease(tmp_path).release()


def wait_until_lost(lease):
    deadline = time.monotonic() + 5
    while not lease.is_lost:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_directory_that_another_takes_over_is_lost(tmp_path):
    lease = Lease(tmp_path)
    lease.check()
    another_machine(tmp_path / NAME, 5)
    wait_until_lost(lease)
    with pytest.raises(SweepError, match="another process has taken"):
        lease.check()
    lease.release()
    assert (tmp_path / NAME).exists(), "it is the other's"


def test_a_directory_that_is_gone_is_lost(tmp_path):
    (tmp_path / "run").mkdir()
    lease = Lease(tmp_path / "run")
    (tmp_path / "run").rename(tmp_path / "away")
    wait_until_lost(lease)
    with pytest.raises(SweepError, match="is gone"):
        lease.check()
    lease.release()


def test_where_it_cannot_write_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be written to"):
        Lease(tmp_path / "none")
