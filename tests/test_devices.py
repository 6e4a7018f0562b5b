"""What is set before JAX starts, seen in fresh interpreters."""

import os
import subprocess
import sys

SCRIPT = """
import time, jax, jax.numpy as jnp
from jax import monitoring
hits = []
monitoring.register_event_listener(lambda name, **_: hits.append(name.endswith("/cache_hits")))
from jaxrl.population.devices import configure
hardware = configure("cpu")
jax.jit(lambda x: jnp.sin(x) @ x)(jnp.ones((4, 4))).block_until_ready()
print(jax.config.jax_compilation_cache_dir, sum(hits), len(hardware.devices))
"""


def configured(**env):
    """The cache's folder, hits in it and the number of workers of a fresh process."""
    env = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"} | env
    output = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, env=env
    )
    assert "rror" not in output.stderr
    folder, hits, workers = output.stdout.split()
    return folder, int(hits), int(workers)


def test_a_second_process_compiles_nothing_again(tmp_path):
    folder, hits, _ = configured(XDG_CACHE_HOME=str(tmp_path))
    assert folder.startswith(str(tmp_path / "jaxrl"))
    assert hits == 0
    again, hits, _ = configured(XDG_CACHE_HOME=str(tmp_path))
    assert again == folder
    assert hits > 0


def test_a_cache_that_the_user_chose_is_kept(tmp_path):
    chosen = str(tmp_path / "mine")
    folder, _, _ = configured(XDG_CACHE_HOME=str(tmp_path), JAX_COMPILATION_CACHE_DIR=chosen)
    assert folder == chosen
    assert os.listdir(chosen)
    assert not (tmp_path / "jaxrl").exists()


def test_a_home_that_cannot_be_written_to_is_done_without(tmp_path):
    occupied = tmp_path / "file"
    occupied.write_text("")
    assert configured(XDG_CACHE_HOME=str(occupied))[0] == "None"


def test_there_is_a_worker_for_every_core_that_the_process_may_use(tmp_path):
    assert configured(XDG_CACHE_HOME=str(tmp_path))[2] == len(os.sched_getaffinity(0))
