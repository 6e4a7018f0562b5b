"""Processes of ours that end when we do, also when we are killed."""

import ctypes
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any


def start(command: Sequence[str], **options: Any) -> subprocess.Popen:
    """Starts ``command`` in a session of its own, so that Ctrl-C is ours to pass on; ``options`` are
    those of ``subprocess.Popen``. To be called in the main thread.

    On Linux it is told to end (SIGTERM) when this process is killed.
    """
    tie = _end_with_parent if sys.platform == "linux" else None
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=tie, **options
    )


class Executioner:
    """Ends another process when this one is gone, killed or not, until :meth:`dismiss`.

    It is for processes that we did not start ourselves, and works on every system: a process that
    waits for its input to end, which only happens when we do.
    """

    def __init__(self, pid: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _EXECUTIONER, str(pid)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    def dismiss(self) -> None:
        self._process.communicate(b"dismissed")


_EXECUTIONER = """
import os, signal, sys
if not sys.stdin.read():
    try:
        os.kill(int(sys.argv[1]), signal.SIGKILL)
    except ProcessLookupError:
        pass
"""


def _end_with_parent() -> None:
    """In the child: ``PR_SET_PDEATHSIG``."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
