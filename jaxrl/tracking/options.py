"""The options of tracking that commands share."""

import argparse

from jaxrl.errors import InputError
from jaxrl.tracking.selection import Choice


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


def tracking_options(args: argparse.Namespace) -> tuple[str | None, int | None]:
    """Which configurations get a run, and how many requests an hour a tracker is sent, where said.

    Raises:
        InputError: one of them cannot be used.
    """
    if args.track is not None:
        Choice.parse(args.track)
    per_hour: int | None = args.tracker_requests_per_hour
    if per_hour is not None and per_hour < 1:
        raise InputError(f"--tracker-requests-per-hour {per_hour}: give 1 or more.")
    return args.track, per_hour
