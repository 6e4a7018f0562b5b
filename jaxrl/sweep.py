"""``python -m jaxrl.sweep``: trains a population of DQN agents, streams each to MLflow."""

import argparse
import pathlib
import shlex
import sys
import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from jaxrl.command import Parser
from jaxrl.dqn.hyperparameters import Cadence, Shape
from jaxrl.errors import InputError
from jaxrl.rundir import refuse_existing
from jaxrl.runner import Outcome, PreparedSweep, SweepSpec, prepare, run
from jaxrl.search.results import SELECTIONS
from jaxrl.search.samplers import SAMPLERS
from jaxrl.search.space import check_parameter, packaged
from jaxrl.search.table import parse_cell
from jaxrl.tracking.console import ConsoleDisplay, PatientConsole, best_table, format_value, say


def _parser() -> argparse.ArgumentParser:
    default = SweepSpec()
    parser = Parser(prog="python -m jaxrl.sweep", description=__doc__, allow_abbrev=False)
    what = parser.add_argument_group("what is trained")
    what.add_argument(
        "--space",
        help=f"a packaged space ({', '.join(packaged())}) or a YAML file ({default.space})",
    )
    what.add_argument("--configs", type=int, help=f"configurations to draw ({default.configs})")
    what.add_argument("--sampler", choices=sorted(SAMPLERS), help=f"({default.sampler})")
    what.add_argument(
        "--config-table", metavar="FILE", help="explicit configurations, CSV or JSON, instead"
    )
    what.add_argument(
        "--seeds", type=int, default=default.seeds, help="of each configuration (%(default)s)"
    )
    what.add_argument(
        "--seed", type=int, default=default.seed, help="base of all random numbers (%(default)s)"
    )
    what.add_argument(
        "--set",
        dest="fixed",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="fixes one hyperparameter for all configurations; may be repeated",
    )
    what.add_argument("--env", default=default.env, help="gymnax environment (%(default)s)")
    budget = parser.add_argument_group("how long")
    budget.add_argument(
        "--steps",
        type=int,
        default=default.steps,
        help="environment steps of each agent (%(default)s)",
    )
    budget.add_argument(
        "--eval-every", type=int, help="steps between evaluations (a twentieth of --steps)"
    )
    budget.add_argument(
        "--eval-episodes", type=int, default=default.eval_episodes, help="(%(default)s)"
    )
    budget.add_argument(
        "--final-episodes", type=int, default=default.final_episodes, help="(%(default)s)"
    )
    budget.add_argument(
        "--select",
        choices=list(SELECTIONS),
        default=default.select,
        help="rank and save a configuration's last policy, or the best along the way (%(default)s)",
    )
    where = parser.add_argument_group("where")
    where.add_argument(
        "--device", choices=["auto", "cpu", "gpu"], default=default.device, help="(%(default)s)"
    )
    where.add_argument("--run-dir", type=pathlib.Path, help="must not exist (runs/SPACE-DATE-TIME)")
    where.add_argument(
        "--tracking-uri", help="MLflow's (MLFLOW_TRACKING_URI, or MLflow's own default)"
    )
    where.add_argument("--experiment", default="jaxrl", help="MLflow experiment (%(default)s)")
    where.add_argument("--no-track", action="store_true", help="train without MLflow")
    where.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    return parser


def _spec(args: argparse.Namespace) -> SweepSpec:
    default = SweepSpec()
    if args.config_table is not None:
        for option in ("space", "configs", "sampler"):
            if getattr(args, option) is not None:
                raise InputError(
                    f"--{option} draws configurations and --config-table lists them: "
                    "give one of the two."
                )
    fixed: dict[str, Any] = {}
    for assignment in args.fixed:
        name, equals, value = assignment.partition("=")
        if not equals:
            raise InputError(f"--set {assignment}: write NAME=VALUE.")
        fixed[name.strip()] = check_parameter(name.strip(), parse_cell(value))
    return SweepSpec(
        space=args.space or default.space,
        configs=default.configs if args.configs is None else args.configs,
        config_table=args.config_table,
        sampler=args.sampler or default.sampler,
        seeds=args.seeds,
        seed=args.seed,
        fixed=fixed,
        env=args.env,
        steps=args.steps,
        eval_every=args.eval_every,
        eval_episodes=args.eval_episodes,
        final_episodes=args.final_episodes,
        select=args.select,
        device=args.device,
    )


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
        f"device: {plan.hardware.description}",
        f"time: about {plan.predicted_seconds():,.0f} s and, where nothing is cached, "
        f"{plan.compile_seconds():,.0f} s of compiling",
    )
    say(console, "\n".join([*lines, *(f"warning: {text}" for text in sweep.warnings)]))


def _print_outcome(console: Console, outcome: Outcome, select: str) -> None:
    results = outcome.results
    console.print(best_table(results, results.ranking(), SELECTIONS[select]))
    if not outcome.finished:
        say(console, "interrupted: what was done is written, the rest has status killed")
    say(console, f"results: {outcome.directory.results}")
    if any(result.status == "finished" for result in results.of_agent):
        say(console, f"best policies: {outcome.directory.path / 'best'}")
    if outcome.tracking_uri is None:
        return
    if not outcome.tracked:
        reason = outcome.trouble or "it is too slow"
        say(console, f"warning: MLflow did not receive everything ({reason}); the journal has it")
    if outcome.tracking_uri.startswith("http"):
        say(console, f"dashboard: {outcome.tracking_uri}")
    else:
        uri = shlex.quote(outcome.tracking_uri)
        say(console, f"dashboard: mlflow server --backend-store-uri {uri}")


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    console = PatientConsole()
    try:
        args = _parser().parse_args(argv)
        sweep = prepare(_spec(args))
        if args.dry_run:
            if args.run_dir is not None:
                refuse_existing(args.run_dir)
            _print_plan(console, sweep)
            return 0
        outcome = run(
            sweep,
            args.run_dir or _default_run_dir(sweep.spec),
            track=not args.no_track,
            tracking_uri=args.tracking_uri,
            experiment=args.experiment,
            display=ConsoleDisplay(console, sweep.warnings),
        )
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # before training began, or a second one while it was ending
        print("interrupted", file=sys.stderr)
        return 130
    _print_outcome(console, outcome, sweep.spec.select)
    return 0 if outcome.finished else 130


if __name__ == "__main__":
    sys.exit(main())
