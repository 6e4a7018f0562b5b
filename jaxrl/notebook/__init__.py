"""What a notebook needs beyond commands: checks, a view of a sweep under way, pictures inline.

Sweeps run as processes of their own, so that the notebook's own process holds no device memory. An
error stops the notebook with its one line.
"""

from jaxrl.notebook.setup import check_install, connect, folder, workspace
from jaxrl.notebook.show import show_best, show_curves, show_importance
from jaxrl.notebook.sweeps import download, retrain, sweep

__all__ = [
    "check_install",
    "connect",
    "download",
    "folder",
    "retrain",
    "show_best",
    "show_curves",
    "show_importance",
    "sweep",
    "workspace",
]
