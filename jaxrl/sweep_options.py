"""The options of ``python -m jaxrl.sweep``, and what they ask for."""

import argparse
import dataclasses
import math
import pathlib
from typing import Any

from jaxrl.command import Parser
from jaxrl.errors import InputError
from jaxrl.search.parameters import check_parameter
from jaxrl.search.pruners import PRUNERS
from jaxrl.search.results import AVERAGES, SELECTIONS
from jaxrl.search.show import list_spaces, sample
from jaxrl.search.space import load_space, packaged
from jaxrl.search.study import SAMPLER_NAMES
from jaxrl.search.table import parse_cell
from jaxrl.specification import SweepSpec
from jaxrl.tracking.options import add_tracking_options, tracking_options
from jaxrl.tracking.session import Tracking

EXPERIMENT = "jaxrl"
"""Of MLflow, by default."""


def parser(description: str | None) -> argparse.ArgumentParser:
    """The parser of the command."""
    default = SweepSpec()
    options = Parser(prog="python -m jaxrl.sweep", description=description, allow_abbrev=False)
    _add_population(options, default)
    _add_length(options, default)
    _add_search(options, default)
    _add_place(options, default)
    _add_tracking(options)
    looks = options.add_argument_group("spaces, without training")
    looks.add_argument("--list-spaces", action="store_true", help="what the packaged ones are for")
    looks.add_argument("--show-space", action="store_true", help="print the space, as YAML")
    looks.add_argument(
        "--sample", type=int, metavar="N", help="print N configurations of the space, as a table"
    )
    return options


def _add_population(options: argparse.ArgumentParser, default: SweepSpec) -> None:
    what = options.add_argument_group("what is trained")
    what.add_argument(
        "--space",
        help=f"a packaged space ({', '.join(packaged())}) or a YAML file ({default.space})",
    )
    what.add_argument("--configs", type=int, help=f"configurations to draw ({default.configs})")
    what.add_argument(
        "--budget-seconds",
        type=float,
        metavar="S",
        help="of device time, instead of --configs: draws while there is time, none that is very dear",
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
        help="fixes one hyperparameter for all configurations; may be repeated (of one name the last "
        "counts)",
    )
    what.add_argument(
        "--env", help=f"gymnax's environment, or your own as MODULE:NAME ({default.env})"
    )
    what.add_argument(
        "--network", metavar="MODULE:NAME", help="a flax module of your own, instead of jaxrl's"
    )


def _add_length(options: argparse.ArgumentParser, default: SweepSpec) -> None:
    budget = options.add_argument_group("how long")
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


def _add_place(options: argparse.ArgumentParser, default: SweepSpec) -> None:
    where = options.add_argument_group("where")
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


def _add_search(options: argparse.ArgumentParser, default: SweepSpec) -> None:
    how = options.add_argument_group("how it is searched")
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
        "--verify",
        type=int,
        metavar="K",
        help="after each generation train the K most promising configurations again, on further "
        f"seeds, which count ({default.verify})",
    )
    how.add_argument(
        "--finalists",
        type=int,
        metavar="K",
        help="train the best K again on fresh seeds; the winner is named from these "
        f"({default.finalists})",
    )
    how.add_argument("--final-seeds", type=int, help=f"of each finalist ({default.final_seeds})")


def _add_tracking(options: argparse.ArgumentParser) -> None:
    where = options.add_argument_group("tracking")
    where.add_argument(
        "--tracking-uri",
        help="MLflow's, jsonl:FILE or console: (MLFLOW_TRACKING_URI, or MLflow's own default)",
    )
    where.add_argument("--experiment", help=f"MLflow experiment ({EXPERIMENT})")
    add_tracking_options(where)
    where.add_argument(
        "--study",
        metavar="STORAGE",
        help="an Optuna storage that gets a copy, such as sqlite:///study.db",
    )
    where.add_argument("--no-track", action="store_true", help="train without MLflow")


def given_fields(args: argparse.Namespace) -> dict[str, Any]:
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


def looked_at(args: argparse.Namespace) -> str | None:
    """What the options that only look at spaces print, where one is given."""
    if args.list_spaces:
        return list_spaces()
    if not args.show_space and args.sample is None:
        return None
    option = "--show-space" if args.show_space else "--sample"
    if args.config_table is not None or args.resume is not None:
        other = "--config-table" if args.config_table is not None else "--resume"
        raise InputError(f"{option} looks at a space, and {other} uses none: give one of the two.")
    spec = SweepSpec(**given_fields(args))
    space = load_space(spec.space).fix(spec.fixed)
    if args.show_space:
        return space.to_yaml()
    if args.sample < 1:
        raise InputError(f"--sample {args.sample}: give 1 or more.")
    return sample(space, spec.sampler, spec.seed, args.sample)


def tracking(args: argparse.Namespace) -> Tracking | None:
    """How the sweep is tracked; None where it is not."""
    found = tracking_options(args, args.tracking_uri)
    if args.checkpoint_every is not None and not 0 <= args.checkpoint_every < math.inf:
        raise InputError(f"--checkpoint-every {args.checkpoint_every}: give 0 or more seconds.")
    for option in ("tracking_uri", "register"):
        if args.no_track and getattr(args, option) is not None:
            name = option.replace("_", "-")
            raise InputError(f"--no-track contradicts --{name}: give one of the two.")
    return None if args.no_track else found
