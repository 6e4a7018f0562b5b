"""Early stopping inside a population: who stops, who moves together, and that it changes no number."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl.dqn.environment import make
from jaxrl.dqn.hyperparameters import Configuration
from jaxrl.population.compiling import Compiler
from jaxrl.population.devices import configure
from jaxrl.population.layout import Copy, Layout, Verdict
from jaxrl.population.plan import Agent, Budget, make_plan
from jaxrl.population.program import ProgramStore
from jaxrl.population.snapshot import Control, SavedTile
from jaxrl.population.train import train

ENV = make("CartPole-v1")
STORE = ProgramStore()
"""So that the same programs are compiled once."""
STEPS = 4000
SMALL = {"hidden_sizes": [8], "buffer_size": 5000, "learning_starts": 100, "train_freq": 7}
LARGE = {**SMALL, "hidden_sizes": [128, 128], "gradient_steps": 1, "train_freq": 16}


def plan_of(small=11, large=3):
    agents = [Agent(Configuration.create(SMALL, STEPS), seed) for seed in range(small)]
    agents += [Agent(Configuration.create(LARGE, STEPS), seed) for seed in range(large)]
    budget = Budget(STEPS, eval_every=500, eval_episodes=2, final_episodes=3)
    return make_plan(agents, budget, ENV, configure("cpu"))


def trained(plan, decisions):
    """Evaluations by agent and step, finals by agent, and the environment steps of all tiles."""
    control = Control()
    evaluations, finals, tile_steps, waiting = {}, {}, 0, dict(decisions)
    for report in train(plan, control, rungs=decisions, store=STORE):
        tile_steps += report.new_steps
        for place, agent in enumerate(report.agents):
            if report.evaluation is not None:
                values = {n: column[place] for n, column in report.evaluation.items()}
                evaluations[int(agent), report.step] = values
            if report.final is not None:
                finals[int(agent)] = {n: column[place] for n, column in report.final.items()}
        for rung in list(waiting):
            reached = [step == rung for _, step in evaluations].count(True)
            gone = set().union(*(stopped for step, stopped in decisions.items() if step < rung))
            if reached == len(plan.agents) - len(gone):
                control.decide(rung, Verdict(frozenset(waiting.pop(rung))))
    assert not waiting
    return evaluations, finals, tile_steps


@pytest.fixture(scope="module")
def whole():
    return trained(plan_of(), {})


def test_who_stops_is_gone_and_who_stays_has_the_same_numbers_to_the_bit(whole):
    decisions = {1000: {1, 2, 4, 5, 6, 8, 9}, 2500: {0, 11, 13}}
    evaluations, finals, _ = trained(plan_of(), decisions)
    assert finals.keys() == {3, 7, 10, 12}
    for agent, step in itertools.product(range(14), plan_of().budget.eval_steps):
        end = next((rung for rung, stopped in decisions.items() if agent in stopped), STEPS)
        assert ((agent, step) in evaluations) == (step <= end)
    for key, values in evaluations.items():
        for name, value in values.items():
            np.testing.assert_array_equal(value, whole[0][key][name])
    for agent, values in finals.items():
        for name, value in values.items():
            np.testing.assert_array_equal(value, whole[1][agent][name])


def test_the_room_of_those_who_stop_is_given_back_in_whole_tiles(whole):
    """Eleven small agents are three tiles of four, and three large ones a tile each."""
    stopping = {1000: {0, 1, 4, 5, 8, 9, 10, 12, 13}}
    *_, tile_steps = trained(plan_of(), stopping)
    assert whole[2] == (3 + 3) * STEPS
    assert tile_steps == (3 + 3) * 1000 + (1 + 1) * (STEPS - 1000)


@pytest.mark.parametrize(
    ("stopped", "copied"),
    [({1, 5}, {}), ({1}, {8: 4})],
    ids=["one tile goes on in two", "a tile that stays is copied from"],
)
def test_tiles_that_were_saved_at_a_rung_are_put_together_from_there(stopped, copied):
    """Nine agents in tiles of four; all are saved at the rung, and go on in another training."""
    plan, rung = plan_of(9, 0), 1000
    copies = {a: Copy(s, plan.agents[s].configuration) for a, s in copied.items()}
    verdict = Verdict(frozenset(stopped), copies)
    whole = after_rung(plan, rung, verdict, {})
    control, saved, seen = Control(), {}, set()
    control.ask_whole()
    for report in train(plan, control, rungs=[rung], store=STORE):
        if report.evaluation is not None and report.step == rung:
            seen |= set(report.agents.tolist())
            if len(seen) == 9:
                control.stop(keep_rest=True)
        if report.snapshot is not None:
            saved[report.tile] = SavedTile(rung, lambda snapshot=report.snapshot: snapshot)
    assert saved.keys() == {0, 1, 2}
    assert after_rung(plan, rung, verdict, saved) == whole


def after_rung(plan, rung, verdict, saved):
    """The losses after a rung, by agent and step."""
    control, losses = Control(), {}
    control.decide(rung, verdict)
    for report in train(plan, control, saved, rungs=[rung], store=STORE):
        if report.evaluation is not None and report.step > rung:
            values = report.evaluation["loss"].tolist()
            losses |= {
                (a, report.step): v for a, v in zip(report.agents.tolist(), values, strict=True)
            }
    assert len(losses) == (9 - len(verdict.stopped)) * (STEPS - rung) // 500
    return losses


def test_when_all_stop_it_ends():
    evaluations, finals, _ = trained(plan_of(5, 0), {500: set(range(5))})
    assert len(evaluations) == 5
    assert not finals


def test_nobody_passes_a_rung_before_it_is_decided():
    plan, control = plan_of(6, 1), Control()
    furthest, seen = 0, set()
    for report in train(plan, control, rungs=[1500], store=STORE):
        furthest = max(furthest, report.step)
        if report.evaluation is not None and report.step == 1500:
            seen |= set(report.agents.tolist())
            if len(seen) == 7:
                assert furthest == 1500
                control.decide(1500, Verdict())
    assert furthest == STEPS


def test_another_generation_of_the_same_shapes_compiles_nothing(monkeypatch):
    compiled, store, whole = [], ProgramStore(), Compiler._compile
    monkeypatch.setattr(
        Compiler, "_compile", lambda self, traced: compiled.append(1) or whole(self, traced)
    )
    first = [r for r in train(plan_of(3, 1), store=store) if r.final is not None]
    count = len(compiled)
    second = [r for r in train(plan_of(5, 2), store=store) if r.final is not None]
    assert 0 < count == len(compiled)
    assert first[0].shapes_ready == second[0].shapes_ready == 2


@settings(deadline=None)
@given(st.data())
def test_a_layout_keeps_everybody_who_is_left_once_and_in_as_few_tiles_as_they_need(data):
    plan = plan_of()
    layout, alive, used = Layout.of(plan), set(range(14)), set()
    for _ in range(3):
        stopped = data.draw(st.sets(st.sampled_from(sorted(alive)))) if alive else set()
        before = {tile.number: tile for tile in layout.tiles}
        used |= before.keys()
        layout, alive = layout.after(Verdict(frozenset(stopped))), alive - stopped
        agents = [agent for tile in layout.tiles for agent in tile.agents]
        assert sorted(agents) == sorted(alive)
        for cohort in plan.cohorts:
            mine = [tile for tile in layout.tiles if tile.cohort == cohort]
            left = sum(len(tile.agents) for tile in mine)
            assert len(mine) == -(-left // plan.widths[cohort.shape])
        for tile in layout.tiles:
            assert tile.sources or tile.agents == before[tile.number].agents
            assert not (tile.sources and tile.number in used)
            for agent, (number, lane) in zip(tile.agents, tile.sources, strict=bool(tile.sources)):
                assert before[number].agents[lane] == agent
