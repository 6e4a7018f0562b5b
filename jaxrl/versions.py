"""Versions of installed packages."""

import importlib.metadata

STACK = ("jaxrl", "jax", "jaxlib", "flax", "optax", "gymnax", "numpy", "mlflow")
"""What a sweep's numbers and their way to a tracker depend on."""


def version(package: str) -> str | None:
    """Of an installed package; None of one that is not there."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
