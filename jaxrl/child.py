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


def _end_with_parent() -> None:
    """In the child: ``PR_SET_PDEATHSIG``."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
