"""``python -m jaxrl.sync``: sends what a run directory has and a tracker has not."""

import argparse
import functools
import pathlib
import sys
from collections.abc import Sequence

from rich.console import Console

from jaxrl.command import Parser, say_error
from jaxrl.errors import InputError, SweepError
from jaxrl.lease import Lease
from jaxrl.rundir import RunDirectory
from jaxrl.saved import SavedSweep
from jaxrl.tracking import journal
from jaxrl.tracking.console import PatientConsole, say
from jaxrl.tracking.options import add_tracking_options, tracking_options
from jaxrl.tracking.session import Session, address, open_tracker


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m jaxrl.sync", description=__doc__, allow_abbrev=False)
    parser.add_argument("run_dir", type=pathlib.Path, help="of a sweep that does not run now")
    parser.add_argument(
        "--tracking-uri",
        help="MLflow's, jsonl:FILE or console: (where the sweep was tracked, or MLflow's default)",
    )
    add_tracking_options(parser)
    return parser


def _sync(console: Console, args: argparse.Namespace) -> bool:
    """Whether everything has arrived."""
    saved = SavedSweep.read(args.run_dir)
    options = tracking_options(args, address(args.tracking_uri, args.run_dir))
    tracker = open_tracker(options.uri, saved.description)
    for line in tracker.connect():
        say(console, line)
    session = Session(tracker, saved.description, options)
    lease = Lease(args.run_dir)
    try:
        say(console, f"sending to {tracker.uri}")
        session.start(RunDirectory(args.run_dir), is_new=False)
        arrived = session.send_all(functools.partial(say, console))
    finally:
        lease.release()
    for note in tracker.notes:
        say(console, f"warning: {note}")
    if not journal.has_ended(args.run_dir / "journal"):
        say(console, f"the sweep has not ended: python -m jaxrl.sweep --resume {args.run_dir}")
    if session.registered:
        say(console, f"registered: {session.registered}")
    if arrived:
        say(console, f"everything has arrived, in {tracker.requests:,} requests")
    else:
        reason = session.trouble or "it is too slow"
        say(console, f"not everything has arrived: {reason}; run this again")
    return arrived


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    console = PatientConsole()
    try:
        return 0 if _sync(console, _parser().parse_args(argv)) else 1
    except (InputError, SweepError) as error:
        return say_error(error)
    except KeyboardInterrupt:
        print("interrupted: what arrived is noted, run this again for the rest", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
