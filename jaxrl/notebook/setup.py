"""The first cells: is the image as it was, where do runs go, which MLflow."""

import getpass
import os
import pathlib
import re
import warnings

from jaxrl.errors import InputError
from jaxrl.notebook.stop import stops
from jaxrl.tracking.credentials import VARIABLE
from jaxrl.tracking.mlflow_tracker import MlflowTracker
from jaxrl.tracking.projection import Description
from jaxrl.versions import version

WAYS = ("paste", "secret", "none")


@stops
def check_install(versions_before: str | pathlib.Path) -> None:
    """Makes sure that installing replaced nothing that the image came with.

    Args:
        versions_before: a file with lines ``name==version``, as ``pip freeze`` writes them.

    Raises:
        StopNotebook: something was replaced, and what to do.
    """
    changed = []
    for line in pathlib.Path(versions_before).read_text().splitlines():
        if match := re.fullmatch(r"([\w.-]+)==(\S+)", line.strip()):
            name, before = match.groups()
            if (now := version(name) or "nothing") != before:
                changed.append(f"{name} {before} became {now}")
    if changed:
        raise InputError(
            f"installing changed the image ({', '.join(changed)}): restart the runtime with "
            "Runtime, Disconnect and delete runtime, and install again with the -c option of the "
            "cell above."
        )
    print(f"jaxrl {version('jaxrl')} is installed, and nothing was replaced")


@stops
def workspace(on_drive: bool = False) -> pathlib.Path:
    """The folder for runs: on the user's Google Drive, where a lost runtime can go on, or here."""
    if not on_drive:
        return pathlib.Path("runs").absolute()
    try:
        from google.colab import drive
    except ImportError:
        raise InputError("Google Drive can be mounted in Colab only: untick it.") from None
    drive.mount("/content/drive")
    return pathlib.Path("/content/drive/MyDrive/jaxrl-runs")


@stops
def folder(runs: pathlib.Path, name: str) -> pathlib.Path:
    """Where the search ``name`` is kept, in ``runs``.

    Raises:
        StopNotebook: ``name`` is none for a folder.
    """
    if not re.fullmatch(r"[^/\\\s.][^/\\]*", name):
        raise InputError(f"NAME is {name!r}; give a search a plain name, such as first.")
    return runs / name


def own_database() -> pathlib.Path:
    """MLflow's file in the notebook's own folder, for who has no server."""
    return pathlib.Path("mlflow.db").absolute()


@stops
def connect(how: str = "paste", experiment: str = "jaxrl") -> None:
    """Says where sweeps are tracked from now on, and looks whether that can be used.

    Args:
        how: ``paste`` asks for the connection string of ``jaxrl.serve`` and hides it; ``secret`` takes
            it from Colab's secret ``JAXRL_TRACKING_URI``; ``none`` is a file beside the runs.

    Raises:
        StopNotebook: it cannot be used, and why.
    """
    if how not in WAYS:
        raise InputError.unknown("way to connect", how, WAYS)
    if how == "none":
        os.environ[VARIABLE] = f"sqlite:///{own_database()}"
        print("tracking: mlflow.db in this notebook's own folder")
        return
    given = _secret() if how == "secret" else getpass.getpass("connection string (not shown): ")
    if not given.strip():
        raise InputError("the connection string is empty: python -m jaxrl.serve shows it.")
    if (found := re.search(r"https?://[^\s'\"]+", given)) is None:
        raise InputError(
            "that is no connection string, which begins with https:// or http://: "
            "python -m jaxrl.serve shows it."
        )
    description = Description("notebook", "notebook", experiment, {}, [], [], [])
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="IProgress")  # of MLflow's progress bars
            lines = MlflowTracker(found[0], description).connect()
    except InputError as error:
        raise InputError(f"{error} In this notebook: paste it again, or CONNECT = none.") from None
    for line in lines:
        print(line)
    os.environ[VARIABLE] = found[0]


def _secret() -> str:
    try:
        from google.colab import userdata

        return str(userdata.get(VARIABLE))
    except ImportError:
        raise InputError("secrets are Colab's: paste the connection string instead.") from None
    except Exception as error:  # Colab's own: none of that name, or no access
        raise InputError(
            f"Colab gives no secret {VARIABLE} ({type(error).__name__}): add it under the key symbol "
            "on the left, and let this notebook see it."
        ) from None


def environment() -> dict[str, str]:
    """For the processes that a notebook starts: its own, without what makes Jupyter's kernel colour
    and draw, and with room for a table's lines."""
    kernels = ("MPLBACKEND", "FORCE_COLOR", "CLICOLOR_FORCE", "CLICOLOR", "TTY_COMPATIBLE")
    kept = {name: value for name, value in os.environ.items() if name not in kernels}
    return kept | {"PYTHONUNBUFFERED": "1", "TERM": "dumb", "COLUMNS": "110"}
