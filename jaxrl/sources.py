"""Where a saved policy is found: in a run directory, in an MLflow run, or in MLflow's registry."""

import argparse
import pathlib
import tempfile

import numpy as np

from jaxrl.errors import InputError
from jaxrl.loader import DESCRIPTION, Policy
from jaxrl.models import MODEL
from jaxrl.policy import load_policy
from jaxrl.tracking.credentials import default_uri, take_credentials
from jaxrl.tracking.mlflow_client import load_mlflow
from jaxrl.tracking.preflight import explain

_RUN, _MODEL = "runs:/", "models:/"


def find_policy(
    source: str, rank: int = 1, network: str | None = None, env: str | None = None
) -> Policy:
    """The policy that ``source`` names: a run directory, of whose best it is the ``rank``-th, a
    policy's own folder, ``runs:/ID`` or ``models:/NAME``, also with ``/VERSION`` or ``@ALIAS``.

    Of what MLflow keeps, arrays and JSON are read, and no code is run.

    Args:
        network: the policy's own, as :func:`load_policy` takes it.
        env: likewise.

    Raises:
        InputError: there is none, or it is damaged.
    """
    if source.startswith((_RUN, _MODEL)):
        with tempfile.TemporaryDirectory() as folder:
            return load_policy(_downloaded(source, pathlib.Path(folder)), network, env)
    path = pathlib.Path(source)
    if (path / DESCRIPTION).exists():
        return load_policy(path, network, env)
    best = path / "best"
    ranks = sorted(int(p.name) for p in best.glob("*") if p.name.isdigit())
    if not ranks:
        what = "it has no policy yet" if path.is_dir() else "it is not there"
        raise InputError(f"no usable policy in {source}: {what}.")
    if rank not in ranks:
        known = f"{ranks[0]} to {ranks[-1]}"
        raise InputError(f"no usable policy of rank {rank} in {source}: it has {known}.")
    return load_policy(best / str(rank), network, env)


def add_source_options(parser: argparse.ArgumentParser) -> None:
    """Adds what :func:`policy_of` reads."""
    parser.add_argument(
        "source", help="a run directory, a policy's folder, runs:/ID or models:/NAME"
    )
    parser.add_argument("--rank", type=int, default=1, help="of the saved policies (%(default)s)")
    parser.add_argument(
        "--network", metavar="MODULE:NAME", help="that it was trained with, if it is your own"
    )
    parser.add_argument(
        "--env", metavar="MODULE:NAME", help="that it was trained in, if it is your own"
    )


def policy_of(args: argparse.Namespace) -> Policy:
    """The policy of :func:`add_source_options`; raises as :func:`find_policy`, and where it cannot
    act."""
    policy = find_policy(args.source, args.rank, args.network, args.env)
    if not all(np.isfinite(array).all() for array in policy.params.values()):
        raise InputError(
            f"the policy in {args.source} has parameters that are no numbers: its agent diverged, "
            "so there is nothing that it would do. Give another --rank."
        )
    return policy


def _downloaded(source: str, folder: pathlib.Path) -> pathlib.Path:
    mlflow = load_mlflow()
    uri = take_credentials(default_uri() or mlflow.get_tracking_uri())
    mlflow.set_tracking_uri(uri)
    try:
        mlflow.artifacts.download_artifacts(_artifact(source), dst_path=str(folder))
    except Exception as error:  # whatever the client raises
        raise InputError(f"{source} cannot be had from {uri}: {explain(error, uri)}.") from None
    found = [path.parent for path in sorted(folder.rglob(DESCRIPTION))]
    if len(found) != 1:
        raise InputError(f"{source} holds no policy of jaxrl's.")
    return found[0]


def _artifact(source: str) -> str:
    """What MLflow calls it."""
    if source.startswith(_RUN):
        is_whole = "/" in source.removeprefix(_RUN).strip("/")
        return source if is_whole else f"{source.rstrip('/')}/{MODEL}"
    name = source.removeprefix(_MODEL)
    return source if "/" in name or "@" in name else f"{source}/latest"
