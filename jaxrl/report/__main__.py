"""``python -m jaxrl.report``: writes the report of a run directory anew, as far as its sweep is."""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from jaxrl.command import Parser, print_result
from jaxrl.conclusion import Conclusion
from jaxrl.dqn import environment
from jaxrl.errors import InputError
from jaxrl.lease import is_held
from jaxrl.population.devices import configure
from jaxrl.report.data import SoFar
from jaxrl.report.writer import write_pictures, write_report
from jaxrl.rundir import RunDirectory


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m jaxrl.report", description=__doc__, allow_abbrev=False)
    parser.add_argument("run_dir", type=pathlib.Path, help="of a sweep")
    return parser


def _report(run_dir: pathlib.Path) -> pathlib.Path:
    sweep, directory = SoFar(run_dir), RunDirectory(run_dir)
    configure("cpu")  # the GPU may be training
    spec, history = sweep.saved.spec, sweep.history
    env = environment.make(spec.env, spec.network)
    if sweep.status is None and not is_held(run_dir):
        sweep.status = "killed"  # and could not say so any more
    is_finished, known = sweep.status == "finished", sweep.importances
    conclusion = Conclusion(spec, env, history.results, history.finalists, is_finished, known)
    try:
        write_report(sweep, directory, conclusion)
        write_pictures(sweep, directory, conclusion)
    except OSError as error:
        raise InputError(f"{run_dir} cannot be written to: {error.strerror}.") from None
    return directory.report


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return print_result(lambda: str(_report(_parser().parse_args(argv).run_dir)))


if __name__ == "__main__":
    sys.exit(main())
