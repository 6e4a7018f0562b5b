"""Which device trains, with how many tiles at a time, and how much memory there is."""

import dataclasses
import os
import pathlib

import jax
import psutil

from jaxrl.errors import InputError

# One tile runs on one core: spreading its small matrix products over threads costs more than it
# gives, and the cores are better used by one tile each.
_XLA_FLAGS = {"xla_cpu_multi_thread_eigen": "false"}


@dataclasses.dataclass(frozen=True)
class Hardware:
    """Where tiles run."""

    platform: str
    """``cpu`` or ``gpu``."""
    devices: tuple[jax.Device, ...]
    """A worker thread feeds each entry; the CPU stands here once for every core."""
    tile_width: int
    """Agents in a tile. On the CPU small, so that its working set stays in a core's cache."""
    memory_bytes: int
    """Free for a sweep, over all devices."""

    @property
    def description(self) -> str:
        return f"{len(self.devices)} × {self.devices[0].device_kind} ({self.platform})"


def configure(device: str = "auto") -> Hardware:
    """Chooses the devices; call it before anything else uses JAX, since backends start only once.

    Args:
        device: ``cpu``, ``gpu``, or ``auto``: the GPU where there is one.

    Raises:
        InputError: a GPU is asked for and JAX sees none.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    for name, value in _XLA_FLAGS.items():
        if name not in flags:
            flags += f" --{name}={value}"
    os.environ["XLA_FLAGS"] = flags.strip()
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if device == "cpu":
        jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    platform = jax.default_backend()
    if device == "gpu" and platform != "gpu":
        raise InputError(
            "--device gpu, but JAX sees no GPU here: install jaxrl[cuda12] or jaxrl[cuda13] beside a "
            "CUDA driver, or use --device cpu."
        )
    if platform == "gpu":
        devices = tuple(jax.local_devices())
        stats = [d.memory_stats() or {} for d in devices]
        free = sum(s.get("bytes_limit", 0) - s.get("bytes_in_use", 0) for s in stats)
        return Hardware("gpu", devices, tile_width=256, memory_bytes=free)
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return Hardware(
        "cpu", (jax.devices("cpu")[0],) * cores, tile_width=4, memory_bytes=_free_memory()
    )


def _free_memory() -> int:
    """Bytes of main memory that this process may still take, a container's limit counted in."""
    free = psutil.virtual_memory().available
    group = pathlib.Path("/sys/fs/cgroup")
    try:
        limit = int((group / "memory.max").read_text())
        free = min(free, limit - int((group / "memory.current").read_text()))
    except (OSError, ValueError):
        pass  # no control group, or one without a limit
    return free
