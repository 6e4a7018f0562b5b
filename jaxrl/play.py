"""``python -m jaxrl.play``: evaluates a saved policy in Gymnasium's own environment, and draws it."""

import argparse
import dataclasses
import pathlib
import sys
from collections.abc import Sequence

import numpy as np

from jaxrl.command import Parser, say_error
from jaxrl.errors import InputError
from jaxrl.loader import Policy
from jaxrl.policy import load_policy
from jaxrl.rundir import write_whole

_DRAWN = "CartPole-v1"


@dataclasses.dataclass(frozen=True)
class Episodes:
    """Greedy episodes of a policy."""

    returns: np.ndarray
    """[N]."""
    limit: int
    """Steps after which an episode is cut off."""
    first: np.ndarray
    """[T, O]: what was observed in the first one."""

    def describe(self) -> str:
        """Their mean, spread and share at the limit, in a line."""
        mean, std = self.returns.mean(), self.returns.std()
        error = std / np.sqrt(len(self.returns))
        share = np.mean(self.returns >= self.limit)
        return (
            f"mean return {mean:.2f} (standard error {error:.2f}), standard deviation {std:.2f}, "
            f"lowest {self.returns.min():.0f}, at the limit of {self.limit}: {share:.0%}"
        )


def play(policy: Policy, episodes: int, seed: int = 0) -> Episodes:
    """Plays ``episodes`` greedily, side by side, in Gymnasium's environment of the policy's name.

    Raises:
        InputError: Gymnasium has none.
    """
    import gymnasium

    try:
        made = [gymnasium.make(policy.env_id) for _ in range(episodes)]
    except gymnasium.error.Error as error:
        raise InputError(f"Gymnasium has no {policy.env_id}: {error}.") from None
    seeds = np.random.SeedSequence(seed).generate_state(episodes)
    observations = np.stack(
        [env.reset(seed=int(s))[0].ravel() for env, s in zip(made, seeds, strict=True)]
    )
    returns, first, running = np.zeros(episodes), [observations[0]], np.arange(episodes)
    while len(running):
        actions = policy.act(observations)
        still = []
        for i in running:
            observation, reward, terminated, truncated, _ = made[i].step(int(actions[i]))
            observations[i] = observation.ravel()
            returns[i] += float(reward)
            if not (terminated or truncated):
                still.append(i)
        if 0 in running:
            first.append(observations[0].copy())
        running = np.array(still, int)
    limit = made[0].spec.max_episode_steps if made[0].spec else None
    return Episodes(returns, limit or 0, np.array(first))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m jaxrl.play", description=__doc__, allow_abbrev=False)
    parser.add_argument("run_dir", type=pathlib.Path, help="of a sweep, or a policy's own folder")
    parser.add_argument("--rank", type=int, default=1, help="of the saved policies (%(default)s)")
    parser.add_argument("--episodes", type=int, default=100, help="(%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the episodes (%(default)s)")
    parser.add_argument("--gif", type=pathlib.Path, metavar="FILE", help="the first episode, drawn")
    return parser


def _play(args: argparse.Namespace) -> Episodes:
    if args.episodes < 1:
        raise InputError(f"--episodes {args.episodes}: give 1 or more.")
    if args.seed < 0:
        raise InputError(f"--seed {args.seed}: give 0 or more.")
    is_policy = (args.run_dir / "policy.json").exists()
    policy = load_policy(args.run_dir if is_policy else args.run_dir / "best" / str(args.rank))
    if args.gif is not None and policy.env_id != _DRAWN:
        raise InputError(f"--gif draws {_DRAWN}, and this policy is for {policy.env_id}.")
    episodes = play(policy, args.episodes, args.seed)
    if args.gif is not None:
        from jaxrl.report.pole import animate

        try:
            write_whole(args.gif, animate(episodes.first))
        except OSError as error:
            raise InputError(f"--gif {args.gif} cannot be written: {error.strerror}.") from None
    return episodes


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    try:
        print(_play(_parser().parse_args(argv)).describe())
    except InputError as error:
        return say_error(error)
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
