"""A run directory belongs to one process at a time, which a heartbeat file says.

There is no lock: a network drive may have none. The file holds who beats, and changes with every beat.
"""

import contextlib
import json
import os
import pathlib
import socket
import threading
import time
import uuid

import psutil

from jaxrl.errors import InputError, SweepError, brief
from jaxrl.rundir import write_whole

NAME = "heartbeat.json"
_BEAT_SECONDS = 4.0
_SILENT_SECONDS = 12.0
"""Without a beat for so long, a process of another machine is taken for dead."""


class Lease:
    """Holds ``directory`` from now to :meth:`release`.

    Raises:
        InputError: another process holds it, or it cannot be written to.
    """

    def __init__(self, directory: pathlib.Path) -> None:
        self._path = directory / NAME
        self._token = uuid.uuid4().hex
        self._released = threading.Event()
        self._trouble: str | None = None
        if is_held(directory) and (holder := _read(self._path)):
            raise InputError(
                f"process {holder['pid']} on {holder['host']} works on {directory}: stop it first, or "
                "wait until it has ended."
            )
        try:
            self._beat()
        except OSError as error:
            raise InputError(f"{directory} cannot be written to: {brief(error)}.") from None
        self._thread = threading.Thread(target=self._run, name="jaxrl-heartbeat", daemon=True)
        self._thread.start()

    @property
    def is_lost(self) -> bool:
        """Whether the directory is gone, or taken by another process."""
        return self._trouble is not None

    def check(self) -> None:
        """Raises ``SweepError`` where the directory is lost."""
        if self._trouble is not None:
            raise SweepError(self._trouble)

    def release(self) -> None:
        """Gives the directory back."""
        self._released.set()
        self._thread.join()
        if self._is_mine():
            with contextlib.suppress(OSError):
                self._path.unlink()

    def _run(self) -> None:
        while not self._released.wait(_BEAT_SECONDS):
            if not self._path.parent.is_dir():
                self._trouble = f"the run directory {self._path.parent} is gone"
                return
            if not self._is_mine():
                self._trouble = f"another process has taken {self._path.parent} over"
                return
            with contextlib.suppress(OSError):  # a full disk may have room again
                self._beat()

    def _is_mine(self) -> bool:
        holder = _read(self._path)
        return holder is None or holder["token"] == self._token

    def _beat(self) -> None:
        holder = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": psutil.Process().create_time(),
            "token": self._token,
            "beat": time.time(),
        }
        write_whole(self._path, json.dumps(holder).encode(), f".{self._token}.part")


def is_held(directory: pathlib.Path) -> bool:
    """Whether a process works on a run directory; of one elsewhere it takes a while to tell."""
    holder = _read(directory / NAME)
    return holder is not None and _is_alive(directory / NAME, holder)


def _read(path: pathlib.Path) -> dict | None:
    """Who holds a directory; nobody where nothing legible says so."""
    try:
        holder = json.loads(path.read_text())
        return holder if {"host", "pid", "started", "token"} <= holder.keys() else None
    except (OSError, ValueError, AttributeError):
        return None


def _is_alive(path: pathlib.Path, holder: dict) -> bool:
    """Whether the process that holds a directory still does. Of one on another machine only its
    heart can be heard, whose clock is not ours."""
    if holder["host"] == socket.gethostname():
        with contextlib.suppress(psutil.Error, TypeError, ValueError):
            return abs(psutil.Process(holder["pid"]).create_time() - holder["started"]) < 1
        return False
    deadline = time.monotonic() + _SILENT_SECONDS
    while time.monotonic() < deadline:
        time.sleep(0.5)
        if _read(path) != holder:
            return True
    return False
