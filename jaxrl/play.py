"""``python -m jaxrl.play``: evaluates a saved policy in Gymnasium's own environment, and draws it."""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from jaxrl.command import Parser, print_result
from jaxrl.episodes import BACKENDS, Episodes
from jaxrl.errors import InputError
from jaxrl.policy import check_env
from jaxrl.report.pole import ENVIRONMENT as DRAWN
from jaxrl.report.pole import animate
from jaxrl.rundir import write_whole
from jaxrl.sources import add_source_options, policy_of


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m jaxrl.play", description=__doc__, allow_abbrev=False)
    add_source_options(parser)
    parser.add_argument("--episodes", type=int, default=100, help="(%(default)s)")
    parser.add_argument(
        "--env-backend",
        choices=list(BACKENDS),
        default="gymnasium",
        help="whose environment is played (%(default)s; gymnax's is what it was trained in)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the episodes (%(default)s)")
    parser.add_argument("--gif", type=pathlib.Path, metavar="FILE", help="the first episode, drawn")
    return parser


def _play(args: argparse.Namespace) -> Episodes:
    if args.episodes < 1:
        raise InputError(f"--episodes {args.episodes}: give 1 or more.")
    if args.seed < 0:
        raise InputError(f"--seed {args.seed}: give 0 or more.")
    if args.gif is not None and args.gif.suffix.lower() != ".gif":
        raise InputError(f"--gif {args.gif}: what is written is a GIF, so name it .gif.")
    policy = policy_of(args)
    if args.env_backend == "gymnax":
        check_env(policy, args.env)
    if args.gif is not None and policy.env_id != DRAWN:
        raise InputError(f"--gif draws {DRAWN}, and this policy is for {policy.env_id}.")
    episodes = BACKENDS[args.env_backend](policy, args.episodes, args.seed)
    if args.gif is not None:
        try:
            write_whole(args.gif, animate(episodes.first))
        except OSError as error:
            raise InputError(f"--gif {args.gif} cannot be written: {error.strerror}.") from None
    return episodes


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return print_result(lambda: _play(_parser().parse_args(argv)).describe())


if __name__ == "__main__":
    sys.exit(main())
