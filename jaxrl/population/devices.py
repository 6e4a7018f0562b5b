"""Which device trains, with how many tiles at a time, and how much memory there is."""

import dataclasses
import hashlib
import os
import pathlib
import platform

import jax
import psutil

from jaxrl.errors import InputError

# One tile runs on one core: spreading its small matrix products over threads costs more than it
# gives, and the cores are better used by one tile each. A loop of small operations (acting) becomes
# one native function, where XLA would start every operation anew in every turn; the loop of updates,
# which touches more bytes, must not: with jax 0.7 it would lose the fast matrix products (5 to 7 times
# slower, measured).
_XLA_FLAGS = {
    "xla_cpu_multi_thread_eigen": "false",
    "xla_cpu_prefer_vector_width": "512",
    "xla_backend_extra_options": "xla_cpu_small_while_loop_byte_threshold=500000",
}
# A GPU's loops of unknown length as part of CUDA graphs: else the host reads in every turn whether
# there is another (W1 with 256 agents: 2.7 s for 2.1 s, measured). Earlier versions can crash when such
# a loop runs for the second time (https://github.com/openxla/xla/pull/35760).
_XLA_GRAPH_FLAGS = {
    "xla_gpu_enable_command_buffer": "+WHILE",
    "xla_gpu_graph_min_graph_size": "1",
}
_GRAPHS_SINCE = (0, 10)


@dataclasses.dataclass(frozen=True)
class Hardware:
    """Where tiles run."""

    platform: str
    """``cpu`` or ``gpu``."""
    devices: tuple[jax.Device, ...]
    """A worker thread feeds each entry; the CPU stands here once for every core."""
    tile_width: int
    """Agents in a tile of small networks, on a GPU in the smallest. On the CPU few, so that they stay
    in a core's cache."""
    memory_bytes: int
    """Free for a sweep, over all devices."""

    @property
    def mixes_cadences(self) -> bool:
        """Whether agents of different cadence share tiles. On a GPU a step of few agents takes as long
        as one of many: what would be wasted on a CPU, masked updates, is cheaper than more tiles."""
        return self.platform == "gpu"

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
    wanted = _XLA_FLAGS | (_XLA_GRAPH_FLAGS if jax.__version_info__ >= _GRAPHS_SINCE else {})
    for name, value in wanted.items():
        if name not in flags:
            flags += f" --{name}={value}"
    os.environ["XLA_FLAGS"] = flags.strip()
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if device == "cpu":
        jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    _keep_compiled_programs()
    backend = jax.default_backend()
    if device == "gpu" and backend != "gpu":
        raise InputError(
            "--device gpu, but JAX sees no GPU here: install jaxrl[cuda12] or jaxrl[cuda13] beside a "
            "CUDA driver, or use --device cpu."
        )
    if backend == "gpu":
        devices = tuple(jax.local_devices())
        stats = [d.memory_stats() or {} for d in devices]
        free = sum(s.get("bytes_limit", 0) - s.get("bytes_in_use", 0) for s in stats)
        return Hardware("gpu", devices, tile_width=64, memory_bytes=free)
    devices = (jax.devices("cpu")[0],) * core_count()
    return Hardware("cpu", devices, tile_width=4, memory_bytes=_free_memory())


def core_count() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _keep_compiled_programs() -> None:
    """Turns JAX's persistent compilation cache on, where the user has not chosen one.

    A program for this machine's processor may be wrong for another's that shares the home
    directory: each kind has a folder of its own.
    """
    if jax.config.jax_compilation_cache_dir is None:  # type: ignore[attr-defined]
        root = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
        folder = pathlib.Path(root) / "jaxrl" / _processor()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            return  # a home that cannot be written to: compile every time
        jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _processor() -> str:
    """A name for this kind of processor: what it is, and a digest of what it can do."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        features = next(x for x in lines if x.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        features = platform.processor()
    return f"{platform.machine()}-{hashlib.sha256(features.encode()).hexdigest()[:8]}"


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
