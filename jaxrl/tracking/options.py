"""The options of tracking that commands share."""

import argparse

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
    return Tracking(uri, args.track, args.tracker_requests_per_hour, args.register)
