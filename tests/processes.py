"""Sweeps as processes of their own, to be killed."""

import os
import pathlib
import subprocess
import sys
import time


def start(*arguments, cwd):
    with (pathlib.Path(cwd) / "output.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "jaxrl.sweep", *map(str, arguments)],
            cwd=cwd,
            stdout=log,
            stderr=log,
            env={**os.environ, "JAX_PLATFORMS": "cpu", "JAX_ENABLE_COMPILATION_CACHE": "true"},
        )


def wait_for(condition, process, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        assert process.poll() is None, "it ended"
        time.sleep(0.02)
