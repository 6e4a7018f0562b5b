"""What the commands share."""

import argparse
import sys
from typing import NoReturn

from jaxrl.errors import InputError, without_secrets
from jaxrl.tracking.selection import Choice


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (--help lists the options)")


def say_error(error: Exception) -> int:
    """Prints the one line of an error; the exit code that goes with it."""
    print(f"error: {without_secrets(str(error))}", file=sys.stderr)
    return 2 if isinstance(error, InputError) else 1


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
