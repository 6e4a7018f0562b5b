"""Takes the README's picture of the live view: runs a sweep and keeps one frame of it as SVG."""

import argparse
import io
import pathlib
import re

from rich.console import Console

from jaxrl.population.train import Report
from jaxrl.preparation import prepare
from jaxrl.runner import begin
from jaxrl.specification import SweepSpec
from jaxrl.tracking.console import ConsoleDisplay
from jaxrl.tracking.session import Tracking

COMMAND = "$ python -m jaxrl.sweep"


class Photographer(ConsoleDisplay):
    """A display that keeps the first frame after ``at`` of the work is done."""

    def __init__(self, console: Console, at: float, path: pathlib.Path) -> None:
        super().__init__(console)
        self._at = at
        self._path = path

    def update(self, report: Report) -> None:
        super().update(report)
        if self._meter.fraction >= self._at and not self._path.exists():
            frame = Console(record=True, width=112, file=io.StringIO(), force_terminal=True)
            frame.print(COMMAND, highlight=False)
            frame.print(self._render())
            self._path.parent.mkdir(parents=True, exist_ok=True)
            svg = frame.export_svg(title="jaxrl.sweep")
            self._path.write_text(re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run-dir", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, default="benchmarks/results/live-view.svg")
    args = parser.parse_args()
    args.out.unlink(missing_ok=True)
    display = Photographer(Console(), 0.6, args.out)
    begin(prepare(SweepSpec()), args.run_dir, tracking=Tracking(), display=display)


if __name__ == "__main__":
    main()
