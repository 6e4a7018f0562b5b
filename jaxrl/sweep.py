"""``python -m jaxrl.sweep``: trains a population of DQN agents, streams each to MLflow."""

import argparse
import math
import pathlib
import shlex
import sys
import time
import types
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from jaxrl.command import say_error
from jaxrl.dqn.hyperparameters import Cadence, Shape
from jaxrl.errors import InputError, SweepError
from jaxrl.preparation import PreparedSweep, prepare
from jaxrl.rundir import refuse_existing
from jaxrl.runner import Outcome, begin, resume
from jaxrl.saved import SavedSweep
from jaxrl.specification import SweepSpec
from jaxrl.sweep_options import EXPERIMENT, given_fields, looked_at, parser, tracking
from jaxrl.tracking.console import (
    ConsoleDisplay,
    PatientConsole,
    best_table,
    finalists_table,
    format_value,
    say,
)
from jaxrl.tracking.credentials import user


def _default_run_dir(spec: SweepSpec) -> pathlib.Path:
    source = spec.config_table or spec.space
    return pathlib.Path("runs") / f"{pathlib.Path(source).stem}-{time.strftime('%Y%m%d-%H%M%S')}"


def _print_plan(console: Console, sweep: PreparedSweep) -> None:
    plan = sweep.plan
    waves = f", in {len(plan.waves)} waves" if len(plan.waves) > 1 else ""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("agents", "tiles", *Shape._fields, *Cadence._fields):
        table.add_column(name, justify="right", overflow="fold")
    for cohort in plan.cohorts:
        row = map(format_value, (cohort.agents, len(cohort.tiles), *cohort.shape))
        cadences = zip(*cohort.cadences, strict=True)
        table.add_row(*row, *(", ".join(map(str, sorted(set(values)))) for values in cadences))
    console.print(table)
    lines = (
        f"{len(sweep.configurations)} configurations, {len(plan.agents)} agents of "
        f"{plan.budget.steps:,} steps each, in {len(plan.cohorts)} cohorts (a row each above)",
        f"programs: {len(plan.shapes)} for training, one a shape, each with four helpers",
        f"memory: {plan.memory_bytes / 2**20:,.0f} MiB of "
        f"{plan.hardware.memory_bytes / 2**20:,.0f} MiB free{waves}",
        f"checkpoints: up to {plan.state_bytes / 2**20:,.0f} MiB each",
        f"device: {plan.hardware.description}",
        f"time: about {plan.predicted_seconds():,.0f} s and, where nothing is cached, "
        f"{plan.compile_seconds():,.0f} s of compiling",
    )
    later = []
    if sweep.spec.budget_seconds is not None:
        later.append(
            f"this is the first of about {sweep.spec.parts} generations that share "
            f"{sweep.spec.budget_seconds:,.0f} s"
        )
    elif sweep.spec.parts > 1:
        later.append(f"this is the first of {sweep.spec.parts} generations of about this size")
    if sweep.spec.pruner != "none":
        later.append(f"--pruner {sweep.spec.pruner} ends some early, which is not in the time")
    if sweep.spec.finalists:
        later.append(
            f"then {sweep.spec.finalists} finalists on {sweep.spec.final_seeds} seeds, not in the time"
        )
    warnings = (f"warning: {text}" for text in sweep.warnings)
    say(console, "\n".join([*lines, *later, *warnings]))


def _print_outcome(console: Console, outcome: Outcome) -> None:
    found, run_dir = outcome.conclusion, shlex.quote(str(outcome.directory.path))
    results = found.results
    if outcome.was_finished:
        say(console, f"the sweep in {run_dir} is finished: nothing is left to train")
    ranking, column = results.ranking(), results.column
    if math.isnan(results.mean(ranking[0], column)):  # nobody got as far
        ranking, column = results.ranking_so_far(), results.column_so_far
    console.print(best_table(results, ranking, column))
    front = sorted((c for c in found.costs if c.on_front), key=lambda c: -c.score)
    if len(found.costs) > 1 and front:
        shown = (
            f"{c.score:.1f} for {c.operations / 1e9:,.0f} (config {c.config})" for c in front[:5]
        )
        say(console, f"score for cost, in 10⁹ operations: {', '.join(shown)}; all in costs.csv")
    for what, shares in found.importances.items():
        largest = (f"{name} {share:.0%}" for name, share in [*shares.items()][:5])
        say(console, f"what mattered for the {what.replace('_', ' ')}: {', '.join(largest)}")
    if found.finalists:
        say(console, "finalists, on fresh seeds (the first is the winner):")
        console.print(finalists_table(found.finalists))
    if outcome.status != "finished":
        say(console, "interrupted: what was done is written, the rest has status killed")
        say(console, f"to go on: python -m jaxrl.sweep --resume {run_dir}")
    say(console, f"results: {outcome.directory.results}")
    if outcome.directory.report.exists():
        say(console, f"report: {outcome.directory.report}")
    if outcome.directory.best.exists():
        say(console, f"best policies: {outcome.directory.best}")
    if outcome.registered:
        say(console, f"registered: {outcome.registered}")
    for note in outcome.notes:
        say(console, f"warning: {note}")
    if outcome.tracking_uri is None:
        return
    if not outcome.tracked:
        string = "JAXRL_TRACKING_URI='…' " if user() else ""  # it was not kept, nor its password
        say(
            console,
            f"the journal has it all; to send the rest: {string}python -m jaxrl.sync {run_dir}",
        )
    if outcome.tracking_uri.startswith("http"):
        say(console, f"dashboard: {outcome.tracking_uri}")
    elif "://" in outcome.tracking_uri:
        uri = shlex.quote(outcome.tracking_uri)
        say(console, f"dashboard: mlflow server --backend-store-uri {uri}")


def _sweep(console: Console, args: argparse.Namespace) -> Outcome | None:
    given, tracked = given_fields(args), tracking(args)
    saved = None if args.resume is None else SavedSweep.read(args.resume)
    if saved is None:
        sweep = prepare(SweepSpec(**given))
    else:
        if args.run_dir is not None:
            raise InputError("--resume names the run directory: leave --run-dir out.")
        if args.experiment is not None:
            given["experiment"] = args.experiment
        saved.refuse_other(given)
        sweep = saved.prepare()
    if args.dry_run:
        if args.run_dir is not None:
            refuse_existing(args.run_dir)
        _print_plan(console, sweep)
        return None
    options: dict[str, Any] = {
        "display": ConsoleDisplay(console, sweep.warnings),
        "tracking": tracked,
        "checkpoint_every": args.checkpoint_every,
        "study": args.study,
    }
    if saved is not None:
        return resume(saved, sweep, **options)
    run_dir = args.run_dir or _default_run_dir(sweep.spec)
    return begin(
        sweep,
        run_dir,
        experiment=args.experiment if args.experiment is not None else EXPERIMENT,
        **options,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    console = PatientConsole()
    try:
        args = parser(__doc__).parse_args(argv)
        shown = looked_at(args)
        if shown is not None:
            say(console, shown.rstrip("\n"))
            return 0
        outcome = _sweep(console, args)
    except (InputError, SweepError) as error:
        return say_error(error)
    except KeyboardInterrupt:  # before training began, or a second one while it was ending
        print("interrupted", file=sys.stderr)
        return 130
    if outcome is None:
        return 0
    _print_outcome(console, outcome)
    return 0 if outcome.signal is None or outcome.status == "finished" else 128 + outcome.signal


class _Callable(types.ModuleType):
    """``from jaxrl import sweep`` is :func:`jaxrl.api.sweep`, also where this module of the same name
    was imported before."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from jaxrl import api

        return api.sweep(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable

if __name__ == "__main__":
    sys.exit(main())
