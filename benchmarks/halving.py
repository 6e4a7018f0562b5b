"""Early stopping in time: does successive halving take what its share of the arithmetic predicts?

python benchmarks/halving.py [--repeats 3] [--json benchmarks/results/halving.json]

Populations are trained whole and halved in turns, in one process, with everything compiled. Who is the
best at a rung is decided by the evaluations, as in a search. Times run from the first chunk to the last
report. Two predictions: by the arithmetic of the updates alone, and by work of every kind, which also
counts acting in the warm-up and evaluations: the device seconds of the same agents, to the same steps,
in the whole training before.
"""

import argparse
import collections
import dataclasses
import json
import pathlib
import statistics
import time
from collections.abc import Sequence

import numpy as np

from jaxrl.benchmark import machine
from jaxrl.benchmark.workloads import WORKLOADS
from jaxrl.dqn.environment import make
from jaxrl.dqn.hyperparameters import Configuration
from jaxrl.population.cost import operations
from jaxrl.population.devices import configure
from jaxrl.population.layout import Verdict
from jaxrl.population.plan import Agent, Budget, Plan, make_plan
from jaxrl.population.program import ProgramStore
from jaxrl.population.snapshot import Control
from jaxrl.population.train import train
from jaxrl.search.pruners import Halving
from jaxrl.search.samplers import random
from jaxrl.search.space import load_space

STEPS = 50_000
ENV = make("CartPole-v1")


def one_cohort(count: int) -> list[Configuration]:
    """W1: one shape and cadence, learning rates that differ."""
    return WORKLOADS["w1"].configurations(count)


def of_space(name: str, count: int) -> list[Configuration]:
    """Drawn at random: many small cohorts."""
    space = load_space(name)
    rows = [space.at(point) for point in random(0, count, len(space.varying))]
    return [
        Configuration.create({n: v for n, v in row.items() if n != "seed"}, STEPS) for row in rows
    ]


@dataclasses.dataclass
class Timed:
    """A training that was timed."""

    seconds: float
    """From the first chunk to the last report."""
    ends: dict[int, int]
    """Step at which each agent ended."""
    spent: dict[tuple[int, int], float]
    """Device seconds of each agent by the step that it had reached."""

    def work(self, ends: dict[int, int]) -> float:
        """Share of the device seconds that agents with these ends account for."""
        done = sum(s for (agent, step), s in self.spent.items() if step <= ends[agent])
        return done / sum(self.spent.values())


def timed(plan: Plan, store: ProgramStore, is_halved: bool) -> Timed:
    """Trains ``plan``."""
    warm_up = max(agent.configuration.learning_starts for agent in plan.agents)
    control = Control()
    pruner = Halving(plan.budget.eval_steps, range(len(plan.agents)), warm_up)
    rungs = list(pruner.rungs) if is_halved else []
    scores: dict[int, dict[int, float]] = {}
    ends = dict.fromkeys(range(len(plan.agents)), plan.budget.steps)
    best = np.full(len(plan.agents), -np.inf)
    began, spent = None, collections.Counter[tuple[int, int]]()
    for report in train(plan, control, rungs=tuple(rungs), store=store):
        began = began or time.perf_counter() - report.seconds
        end = report.step + (report.final is not None)  # which only survivors have
        for agent in report.agents.tolist():
            spent[agent, end] += report.seconds / len(report.agents)
        if report.evaluation is None:
            continue
        means = report.evaluation["eval_return_mean"]
        best[report.agents] = np.maximum(best[report.agents], means)
        at = scores.setdefault(report.step, {})
        at.update(zip(report.agents.tolist(), best[report.agents].tolist(), strict=True))
        alive = sum(end == plan.budget.steps for end in ends.values())
        if rungs and report.step == rungs[0] and len(at) == alive:
            stopped = pruner.stopped(rungs.pop(0), at)
            ends |= dict.fromkeys(stopped, report.step)
            control.decide(report.step, Verdict(frozenset(stopped)))
    assert began is not None
    seconds = time.perf_counter() - began
    ends = {i: end + (end == plan.budget.steps) for i, end in ends.items()}
    return Timed(seconds, ends, dict(spent))


def arithmetic(plan: Plan, ends: dict[int, int]) -> float:
    """Share of the updates' arithmetic that agents with these ends account for."""
    configurations = [agent.configuration for agent in plan.agents]
    whole = sum(operations(c, ENV, plan.budget.steps) for c in configurations)
    return (
        sum(operations(c, ENV, min(ends[i], STEPS)) for i, c in enumerate(configurations)) / whole
    )


def compared(configurations: Sequence[Configuration], repeats: int) -> dict[str, object]:
    """Whole and halved, in turns; medians."""
    agents = [Agent(configuration, k) for k, configuration in enumerate(configurations)]
    budget = Budget(STEPS, STEPS // 20, eval_episodes=10, final_episodes=100)
    plan, store = make_plan(agents, budget, ENV, configure("cpu")), ProgramStore()
    short = Budget(200, 100, 10, 100)
    for _ in train(make_plan(agents, short, ENV, plan.hardware, plan.capacity), store=store):
        pass  # compiles what the next uses
    rows = []
    for _ in range(repeats):
        whole, halved = (timed(plan, store, is_halved) for is_halved in (False, True))
        row = {
            "whole_seconds": whole.seconds,
            "halved_seconds": halved.seconds,
            "time": halved.seconds / whole.seconds,
            "arithmetic": arithmetic(plan, halved.ends),
            "work": whole.work(halved.ends),
        }
        print("  ".join(f"{name} {value:.3f}" for name, value in row.items()), flush=True)
        rows.append(row)
    shares = {n: statistics.median(row[n] for row in rows) for n in ("time", "arithmetic", "work")}
    over = {f"time_over_{n}": shares["time"] / shares[n] for n in ("arithmetic", "work")}
    return {"agents": len(agents), "cohorts": len(plan.cohorts), "runs": rows, **shares, **over}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE")
    args = parser.parse_args()
    populations = {
        "one cohort of 256 (W1)": one_cohort(256),
        "cartpole, 256": of_space("cartpole", 256),
        "hands-on-rl, 32": of_space("hands-on-rl", 32),
    }
    result: dict[str, object] = {"machine": machine.describe()}
    for name, configurations in populations.items():
        print(name, flush=True)
        result[name] = found = compared(configurations, args.repeats)
        print({name: round(v, 3) for name, v in found.items() if isinstance(v, float)}, flush=True)
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
