"""What is in a run directory, for tests."""

import csv

from jaxrl.tracking.journal import read


def rows(path):
    """Of a table, each by column."""
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def records(run_dir, kind):
    """Of the journal, those of a kind."""
    return [record for record, _ in read(run_dir / "journal") if record["kind"] == kind]
