"""The options of tracking that commands share."""

import argparse

from jaxrl.errors import InputError
from jaxrl.tracking.credentials import default_uri
from jaxrl.tracking.selection import Choice
from jaxrl.tracking.session import Tracking


def add_tracking_options(parser: argparse._ActionsContainer) -> None:
    """Adds what :func:`tracking_options` reads."""
    parser.add_argument(
        "--track",
        metavar="all|top:N|parent",
        help="which configurations get a run of their own (all, or as it was begun)",
    )
    parser.add_argument(
        "--tracker-requests-per-hour",
        type=int,
        metavar="N",
        help="at most (no limit; 5,000 through ngrok)",
    )
    parser.add_argument(
        "--register",
        metavar="NAME",
        help="the best policy becomes a version of this model in MLflow's registry",
    )


def tracking_options(args: argparse.Namespace, uri: str | None) -> Tracking:
    """What was said of tracking to ``uri``.

    Raises:
        InputError: one of them cannot be used.
    """
    if args.track is not None:
        Choice.parse(args.track)
    per_hour: int | None = args.tracker_requests_per_hour
    if per_hour is not None and per_hour < 1:
        raise InputError(f"--tracker-requests-per-hour {per_hour}: give 1 or more.")
    name: str | None = args.register
    if name is not None and (not name.strip() or set(name) & set("/:@")):
        raise InputError(f"--register {name!r}: give a name without /, : and @.")
    if name is not None and (uri or default_uri() or "").startswith(("jsonl:", "console:")):
        raise InputError(f"--register needs MLflow, and {uri or default_uri()} is none.")
    return Tracking(uri, args.track, per_hour, name)
