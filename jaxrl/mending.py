"""A damaged journal: cut where it is damaged, so that all that followed is trained again.

What follows a lost record cannot be followed: which agents had ended, what was decided at a rung. The
same numbers come again, since they depend on nothing but the specification.
"""

import collections
from collections.abc import Callable

from jaxrl.errors import InputError
from jaxrl.history import History
from jaxrl.rundir import RunDirectory
from jaxrl.tracking import journal
from jaxrl.tracking.journal import Position, Record


def mend(directory: RunDirectory, history: History) -> str | None:
    """Cuts the journal before its first damage, and removes the checkpoints, which are of later; what
    a user should know of it, or None where nothing is damaged.

    Args:
        history: of nothing yet; it is used up.

    Raises:
        InputError: the sweep has finished, so there is nothing to go on with.
    """
    whole = _whole(directory, history.take)
    if whole is None:
        return None
    place = f"segment {whole.segment}, byte {whole.offset:,}"
    where = f"the journal of {directory.path} is damaged ({place})"
    records = collections.deque(journal.read(directory.journal), maxlen=1)
    if any(last["kind"] == "end" and last.get("status") == "finished" for last, _ in records):
        raise InputError(
            f"{where}, and the sweep has finished: results.csv and best/ are what they were. Put the "
            "journal back from a copy to send it to a tracker."
        )
    for path in directory.checkpoints.glob("*.npz"):
        path.unlink()
    journal.cut(directory.journal, whole)
    return f"warning: {where}: what it said from there on is trained again, and kept as *.damaged"


def _whole(directory: RunDirectory, take: Callable[[Record], None]) -> Position | None:
    """Where the first damaged record begins; None where there is none."""
    end = Position()
    for record, after in journal.read_lines(directory.journal):
        begin = end if after.segment == end.segment else Position(after.segment)
        if record is None:
            return begin
        try:
            take(record)
        except InputError:
            return begin
        end = after
    return None
