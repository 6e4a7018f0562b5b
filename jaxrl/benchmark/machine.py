"""What a result was measured on."""

import datetime
import importlib.metadata
import os
import pathlib
import platform


def describe() -> dict[str, object]:
    """Machine, versions and date, to stand in every result."""
    packages = ("jaxrl", "jax", "jaxlib", "flax", "optax", "gymnax", "numpy", "mlflow")
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{name: version for name in packages if (version := _version(name)) is not None},
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # a peer's environment, or a GPU compiler's
        return None


def _cpu() -> str:
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in text.splitlines() if "model name" in line]
    return names[0] if names else platform.processor()
