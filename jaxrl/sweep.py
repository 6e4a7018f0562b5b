"""``python -m jaxrl.sweep``: trains a population of DQN agents, streams each to MLflow."""

import argparse
import dataclasses
import pathlib
import shlex
import sys
import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from jaxrl.command import Parser, say_error
from jaxrl.dqn.hyperparameters import Cadence, Shape
from jaxrl.errors import InputError, SweepError
from jaxrl.preparation import PreparedSweep, prepare
from jaxrl.rundir import refuse_existing
from jaxrl.runner import Outcome, begin, resume
from jaxrl.saved import SavedSweep
from jaxrl.search.parameters import check_parameter
from jaxrl.search.pruners import PRUNERS
from jaxrl.search.results import AVERAGES, SELECTIONS
from jaxrl.search.show import list_spaces, sample
from jaxrl.search.space import load_space, packaged
from jaxrl.search.study import SAMPLER_NAMES
from jaxrl.search.table import parse_cell
from jaxrl.specification import SweepSpec
from jaxrl.tracking.console import (
    ConsoleDisplay,
    PatientConsole,
    best_table,
    finalists_table,
    format_value,
    say,
)
from jaxrl.tracking.credentials import user
from jaxrl.tracking.options import add_tracking_options, tracking_options
from jaxrl.tracking.session import Tracking

_EXPERIMENT = "jaxrl"


def _parser() -> argparse.ArgumentParser:
    default = SweepSpec()
    parser = Parser(prog="python -m jaxrl.sweep", description=__doc__, allow_abbrev=False)
    what = parser.add_argument_group("what is trained")
    what.add_argument(
        "--space",
        help=f"a packaged space ({', '.join(packaged())}) or a YAML file ({default.space})",
    )
    what.add_argument("--configs", type=int, help=f"configurations to draw ({default.configs})")
    what.add_argument(
        "--budget-seconds",
        type=float,
        metavar="S",
        help="of device time, instead of --configs: draws as long as there is time, cheap ones first",
    )
    what.add_argument("--sampler", choices=SAMPLER_NAMES, help=f"({default.sampler})")
    what.add_argument(
        "--generations",
        type=int,
        metavar="G",
        help="in which --configs are drawn, each after the results of those before (1, or as many "
        "as the sampler needs)",
    )
    what.add_argument(
        "--config-table", metavar="FILE", help="explicit configurations, CSV or JSON, instead"
    )
    what.add_argument("--seeds", type=int, help=f"of each configuration ({default.seeds})")
    what.add_argument("--seed", type=int, help=f"base of all random numbers ({default.seed})")
    what.add_argument(
        "--set",
        dest="fixed",
        action="append",
        metavar="NAME=VALUE",
        help="fixes one hyperparameter for all configurations; may be repeated",
    )
    what.add_argument("--env", help=f"gymnax environment ({default.env})")
    budget = parser.add_argument_group("how long")
    budget.add_argument(
        "--steps", type=int, help=f"environment steps of each agent ({default.steps})"
    )
    budget.add_argument(
        "--eval-every", type=int, help="steps between evaluations (a twentieth of --steps)"
    )
    budget.add_argument("--eval-episodes", type=int, help=f"({default.eval_episodes})")
    budget.add_argument("--final-episodes", type=int, help=f"({default.final_episodes})")
    budget.add_argument(
        "--select",
        choices=list(SELECTIONS),
        help="rank and save a configuration's last policy, or the best along the way "
        f"({default.select})",
    )
    _add_search(parser, default)
    where = parser.add_argument_group("where")
    where.add_argument("--device", choices=["auto", "cpu", "gpu"], help=f"({default.device})")
    where.add_argument("--run-dir", type=pathlib.Path, help="must not exist (runs/SPACE-DATE-TIME)")
    where.add_argument(
        "--resume",
        type=pathlib.Path,
        metavar="RUN_DIR",
        help="go on with the sweep in RUN_DIR, to the same numbers",
    )
    where.add_argument(
        "--checkpoint-every",
        type=float,
        metavar="SECONDS",
        help="(120, or 20 times what one takes)",
    )
    where.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    _add_tracking(parser)
    looks = parser.add_argument_group("spaces, without training")
    looks.add_argument("--list-spaces", action="store_true", help="what the packaged ones are for")
    looks.add_argument("--show-space", action="store_true", help="print the space, as YAML")
    looks.add_argument(
        "--sample", type=int, metavar="N", help="print N configurations of the space, as a table"
    )
    return parser


def _add_search(parser: argparse.ArgumentParser, default: SweepSpec) -> None:
    how = parser.add_argument_group("how it is searched")
    how.add_argument(
        "--pruner",
        choices=list(PRUNERS),
        help="which configurations of a generation end early (halving with --budget-seconds, else "
        "none)",
    )
    how.add_argument(
        "--pbt",
        action="store_true",
        default=None,
        help="population based training: the worst fifth goes on as changed copies of the best",
    )
    how.add_argument(
        "--pbt-every", type=int, metavar="STEPS", help="(a tenth of --steps, in whole evaluations)"
    )
    how.add_argument(
        "--rank-by",
        choices=list(AVERAGES),
        help=f"mean or interquartile mean over a configuration's seeds ({default.rank_by})",
    )
    how.add_argument(
        "--stop-at",
        type=float,
        metavar="RETURN",
        help="no more generations once a configuration scores this on each of its seeds",
    )
    how.add_argument(
        "--finalists",
        type=int,
        metavar="K",
        help="train the best K again on fresh seeds; the winner is named from these "
        f"({default.finalists})",
    )
    how.add_argument("--final-seeds", type=int, help=f"of each finalist ({default.final_seeds})")


def _add_tracking(parser: argparse.ArgumentParser) -> None:
    where = parser.add_argument_group("tracking")
    where.add_argument(
        "--tracking-uri",
        help="MLflow's, jsonl:FILE or console: (MLFLOW_TRACKING_URI, or MLflow's own default)",
    )
    where.add_argument("--experiment", help=f"MLflow experiment ({_EXPERIMENT})")
    add_tracking_options(where)
    where.add_argument(
        "--study",
        metavar="STORAGE",
        help="an Optuna storage that gets a copy, such as sqlite:///study.db",
    )
    where.add_argument("--no-track", action="store_true", help="train without MLflow")


def _given(args: argparse.Namespace) -> dict[str, Any]:
    """The fields of a specification that were given on the command line."""
    if args.config_table is not None:
        for option in ("space", "configs", "sampler"):
            if getattr(args, option) is not None:
                raise InputError(
                    f"--{option} draws configurations and --config-table lists them: "
                    "give one of the two."
                )
    if args.configs is not None and args.budget_seconds is not None:
        raise InputError(
            "--configs draws so many and --budget-seconds as many as there is time for: give one of "
            "the two."
        )
    names = (field.name for field in dataclasses.fields(SweepSpec))
    given = {name: value for name in names if (value := getattr(args, name)) is not None}
    if args.fixed is not None:
        given["fixed"] = {}
        for assignment in args.fixed:
            name, equals, value = assignment.partition("=")
            if not equals:
                raise InputError(f"--set {assignment}: write NAME=VALUE.")
            given["fixed"][name.strip()] = check_parameter(name.strip(), parse_cell(value))
    return given


def _looked_at(args: argparse.Namespace) -> str | None:
    """What the options that only look at spaces print, where one is given."""
    if args.list_spaces:
        return list_spaces()
    if not args.show_space and args.sample is None:
        return None
    option = "--show-space" if args.show_space else "--sample"
    if args.config_table is not None or args.resume is not None:
        other = "--config-table" if args.config_table is not None else "--resume"
        raise InputError(f"{option} looks at a space, and {other} uses none: give one of the two.")
    spec = SweepSpec(**_given(args))
    space = load_space(spec.space).fix(spec.fixed)
    if args.show_space:
        return space.to_yaml()
    if args.sample < 1:
        raise InputError(f"--sample {args.sample}: give 1 or more.")
    return sample(space, spec.sampler, spec.seed, args.sample)


def _tracking(args: argparse.Namespace) -> Tracking | None:
    track, per_hour = tracking_options(args)
    if args.checkpoint_every is not None and not args.checkpoint_every >= 0:
        raise InputError(f"--checkpoint-every {args.checkpoint_every}: give 0 or more seconds.")
    if args.no_track and args.tracking_uri is not None:
        raise InputError("--no-track contradicts --tracking-uri: give one of the two.")
    return None if args.no_track else Tracking(args.tracking_uri, track, per_hour)


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
        row = (cohort.agents, len(cohort.tiles), *cohort.shape, *cohort.cadence)
        table.add_row(*map(format_value, row))
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
    console.print(best_table(results, results.ranking(), results.column))
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
    if outcome.directory.best.exists():
        say(console, f"best policies: {outcome.directory.best}")
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
    given, tracking = _given(args), _tracking(args)
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
        "tracking": tracking,
        "checkpoint_every": args.checkpoint_every,
        "study": args.study,
    }
    if saved is not None:
        return resume(saved, sweep, **options)
    run_dir = args.run_dir or _default_run_dir(sweep.spec)
    return begin(
        sweep,
        run_dir,
        experiment=args.experiment if args.experiment is not None else _EXPERIMENT,
        **options,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    console = PatientConsole()
    try:
        args = _parser().parse_args(argv)
        shown = _looked_at(args)
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


if __name__ == "__main__":
    sys.exit(main())
