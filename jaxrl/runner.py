"""A sweep from its specification to its results: what ``python -m jaxrl.sweep`` composes."""

import pathlib

from jaxrl.errors import InputError, SweepError
from jaxrl.generations import Outcome, Search
from jaxrl.preparation import PreparedSweep, describe
from jaxrl.rundir import SPACE, SPECIFICATION, RunDirectory, refuse_existing
from jaxrl.saved import SavedSweep, sweep_json
from jaxrl.search.mirror import StudyCopy
from jaxrl.tracking.projection import Description
from jaxrl.tracking.session import Session, Tracking, address, open_tracker
from jaxrl.training import Display, storage_errors


def begin(
    sweep: PreparedSweep,
    run_dir: pathlib.Path,
    *,
    display: Display,
    tracking: Tracking | None = None,
    experiment: str = "jaxrl",
    checkpoint_every: float | None = None,
    study: str | None = None,
) -> Outcome:
    """Trains a prepared sweep into a new ``run_dir``; SIGINT and SIGTERM end it cleanly.

    Args:
        tracking: None to train without a tracker.
        checkpoint_every: seconds; None for the default of :mod:`jaxrl.checkpoints`.
        study: an Optuna storage in which the search is copied, under the run directory's name.

    Raises:
        InputError: the run directory exists or the tracker cannot be used; nothing was trained.
        SweepError: it cannot go on; what was done can be resumed.
    """
    description = describe(sweep, run_dir.name, experiment)
    refuse_existing(run_dir)
    session = None
    if tracking is not None:
        session = Session(open_tracker(tracking.uri, description), description, tracking)
        for line in session.tracker.connect():
            display.say(line)
    copy = _study_copy(study, description, sweep)
    directory = RunDirectory.make(run_dir)
    try:
        with storage_errors(directory):
            if sweep.space is not None:
                directory.write(SPACE, sweep.space.to_yaml().encode())
            directory.write_json(SPECIFICATION, sweep_json(sweep, description))
    except SweepError:
        directory.remove(run_dir)  # nothing can go on with it
        raise
    return Search(sweep, directory, session, display, checkpoint_every, copy).run(is_new=True)


def resume(
    saved: SavedSweep,
    sweep: PreparedSweep,
    *,
    display: Display,
    tracking: Tracking | None = None,
    checkpoint_every: float | None = None,
    study: str | None = None,
) -> Outcome:
    """Goes on with the sweep in a run directory, to the numbers that it would have had.

    A tracker that does not answer is no reason not to train; it is tried again meanwhile. Arguments
    and errors are those of :func:`begin`; ``tracking`` without an address means where it was tracked
    before, if it was.
    """
    session = None
    if tracking is not None:
        if uri := address(tracking.uri, saved.directory):
            tracker = open_tracker(uri, saved.description)
            session = Session(tracker, saved.description, tracking)
            _try_to_connect(session, display)
        else:
            display.say("not tracked, as before: --tracking-uri would, also what there is already")
    copy = _study_copy(study, saved.description, sweep)
    directory = RunDirectory(saved.directory)
    return Search(sweep, directory, session, display, checkpoint_every, copy).run(is_new=False)


def _study_copy(
    storage: str | None, description: Description, sweep: PreparedSweep
) -> StudyCopy | None:
    if storage is None:
        return None
    if sweep.space is None:
        raise InputError("--study copies what is drawn from a space, and a table has none.")
    return StudyCopy(storage, description.name, description.sweep_id, sweep.space)


def _try_to_connect(session: Session, display: Display) -> None:
    """Says whether the tracker can be used; it is tried again while training."""
    try:
        lines = session.tracker.connect()
    except InputError as error:
        lines = [f"warning: {error}"]
    for line in lines:
        display.say(line)
