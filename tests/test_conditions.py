"""Spaces with conditions, spaces made in Python and printed, and the options that show them."""

import csv
import io
import math
import subprocess
import sys

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl.errors import InputError
from jaxrl.search.samplers import SAMPLERS
from jaxrl.search.space import Choice, Interval, Space, load_space, packaged, parse_space
from jaxrl.search.table import read_table
from jaxrl.sweep import main

UNIT = st.one_of(st.floats(0, 1, exclude_max=True), st.sampled_from([0.0, math.nextafter(1, 0)]))
THIRDS = [1 / 6, 3 / 6, 5 / 6]
check = settings(max_examples=150)

CONDITIONAL = {
    # The conditions form a chain, and each stands before what it names.
    "tau": {"low": 0.1, "high": 0.9, "when": {"n_step": [3], "dueling": [True]}},
    "dueling": {"choices": [True, False], "when": {"hidden_sizes": [[64], [64, 64]]}},
    "n_step": {"choices": [3, 5], "when": {"hidden_sizes": [[64, 64]]}, "otherwise": 2},
    "hidden_sizes": {"choices": [[], [64], [64, 64]]},
}


class TestConditions:
    def at(self, **coordinates):
        """The values where the cube's coordinates are these, or 0."""
        space = parse_space({"parameters": CONDITIONAL})
        return space.at(np.array([coordinates.get(name, 0.0) for name in space.varying]))

    def test_each_has_an_axis_of_its_own(self):
        assert parse_space({"parameters": CONDITIONAL}).varying == tuple(CONDITIONAL)

    def test_where_it_holds_the_hyperparameter_varies(self):
        values = self.at(tau=0.5, hidden_sizes=0.9)
        assert values == {"tau": 0.5, "dueling": True, "n_step": 3, "hidden_sizes": (64, 64)}
        assert list(values) == list(CONDITIONAL)

    def test_where_it_does_not_it_is_the_given_constant_or_left_to_the_default(self):
        assert self.at() == {"n_step": 2, "hidden_sizes": ()}
        assert self.at(hidden_sizes=0.5) == {"dueling": True, "n_step": 2, "hidden_sizes": (64,)}

    def test_every_name_of_a_condition_must_hold(self):
        assert "tau" not in self.at(hidden_sizes=0.9, n_step=0.9)
        assert "tau" not in self.at(hidden_sizes=0.9, dueling=0.9)

    def test_a_condition_may_ask_for_the_value_that_another_has_elsewhere(self):
        entry = {"low": 0.5, "high": 1, "when": {"n_step": [2]}}
        space = parse_space({"parameters": {**CONDITIONAL, "gamma": entry}})
        held = [space.at(np.array([0, 0, 0, u, 0])) for u in THIRDS]
        assert [values.get("gamma") for values in held] == [0.5, 0.5, None]

    @check
    @given(st.permutations(list(CONDITIONAL)), st.lists(UNIT, min_size=4, max_size=4))
    def test_the_order_in_the_file_does_not_matter(self, names, point):
        coordinate = dict(zip(CONDITIONAL, point, strict=True))
        space = parse_space({"parameters": {name: CONDITIONAL[name] for name in names}})
        values = space.at(np.array([coordinate[name] for name in names]))
        assert values == self.at(**coordinate)
        assert list(values) == [name for name in names if name in values]

    @pytest.mark.parametrize(
        ("fixed", "varying"),
        [
            ({"hidden_sizes": []}, set()),
            ({"hidden_sizes": [64]}, {"dueling"}),
            ({"hidden_sizes": [64, 64]}, {"tau", "dueling", "n_step"}),
            ({"hidden_sizes": [7]}, set()),
            ({"n_step": 3}, {"tau", "dueling", "hidden_sizes"}),
            ({"n_step": 9}, {"dueling", "hidden_sizes"}),
            ({"dueling": False}, {"n_step", "hidden_sizes"}),
            ({"tau": 0.3}, {"dueling", "n_step", "hidden_sizes"}),
            ({}, set(CONDITIONAL)),
        ],
    )
    def test_fix_leaves_what_can_still_vary(self, fixed, varying):
        space = parse_space({"parameters": CONDITIONAL}).fix(fixed)
        assert set(space.varying) == varying
        seen = [space.at(point) for point in np.random.default_rng(0).random((200, len(varying)))]
        for name in varying:
            assert len({values.get(name) for values in seen}) > 1
        for name in fixed:
            assert len({values[name] for values in seen}) == 1

    def test_what_is_fixed_means_the_same_as_choosing_it(self):
        space = parse_space({"parameters": CONDITIONAL})
        for u, sizes in zip(THIRDS, ([], [64], [64, 64]), strict=True):
            fixed = space.fix({"hidden_sizes": sizes})
            for point in np.random.default_rng(1).random((50, 4)):
                point[3] = u
                coordinate = dict(zip(space.varying, point, strict=True))
                same = fixed.at(np.array([coordinate[name] for name in fixed.varying]))
                assert space.at(point) == same


FLOATS = st.floats(1e-6, 1e6).map(lambda x: float(f"{x:.6g}"))
VALUES = {
    "huber_delta": st.one_of(FLOATS, st.just(math.inf)),
    "batch_size": st.integers(1, 10_000),
    "hidden_sizes": st.lists(st.integers(1, 512), max_size=3).map(tuple),
    "dueling": st.booleans(),
    "seed": st.integers(0, 2**32 - 1),
}


@st.composite
def parameters(draw, name):
    """A constant, a choice or an interval, the latter two with a condition on ``double_q``."""
    value = VALUES[name]
    kind = draw(st.sampled_from(["constant", "choice", "interval"]))
    if kind == "constant":
        return draw(value)
    condition = {}
    if draw(st.booleans()):
        condition = {"when": {"double_q": draw(st.sampled_from([(True,), (False, True)]))}}
        condition["otherwise"] = draw(st.one_of(st.none(), value))
    if kind == "choice" or name in ("hidden_sizes", "dueling"):
        return Choice(tuple(draw(st.lists(value, min_size=1, max_size=4))), **condition)
    low = draw(value.filter(lambda v: 0 < v < 1e9))
    high = low + draw(st.integers(1, 1000))
    log = draw(st.booleans())
    step = None if log else draw(st.one_of(st.none(), st.integers(1, 9)))
    return Interval(low, high, log, step, **condition)


@st.composite
def spaces(draw):
    names = draw(st.lists(st.sampled_from(list(VALUES)), unique=True))
    named = {name: draw(parameters(name)) for name in names}
    return Space({**named, "double_q": Choice((True, False))}, draw(st.text(max_size=200)))


class TestPrinted:
    @check
    @given(spaces())
    def test_what_is_printed_loads_as_the_same_space(self, tmp_path_factory, space):
        file = tmp_path_factory.mktemp("space") / "printed.yaml"
        file.write_text(space.to_yaml(), "utf-8", newline="\n")
        assert load_space(str(file)) == space

    @pytest.mark.parametrize("name", packaged())
    def test_a_packaged_space_loads_as_the_same_also_with_something_fixed(self, name):
        for fixed in ({}, {"hidden_sizes": [8], "target_update_interval": 7}):
            space = load_space(name).fix(fixed)
            assert parse_space(yaml.safe_load(space.to_yaml())) == space

    def test_it_reads_like_a_file_by_hand(self):
        space = parse_space({"description": "mine", "parameters": CONDITIONAL}).fix({"gamma": 0.9})
        assert space.to_yaml().splitlines() == [
            "description: mine",
            "parameters:",
            "  tau: {low: 0.1, high: 0.9, when: {n_step: [3], dueling: [true]}}",
            "  dueling: {choices: [true, false], when: {hidden_sizes: [[64], [64, 64]]}}",
            "  n_step: {choices: [3, 5], when: {hidden_sizes: [[64, 64]]}, otherwise: 2}",
            "  hidden_sizes: {choices: [[], [64], [64, 64]]}",
            "  gamma: 0.9",
        ]


@check
@given(spaces(), st.lists(UNIT, min_size=6, max_size=6))
def test_coordinates_lead_back_to_the_values(space, point):
    values = space.at(np.array(point[: len(space.varying)]))
    found = space.coordinates(values)
    assert all(0 <= u < 1 for u in found.values())
    again = space.at(np.array([found.get(name, 0.0) for name in space.varying]))
    assert again.keys() == values.keys()
    for name, value in values.items():
        assert again[name] == (pytest.approx(value, rel=1e-9) if type(value) is float else value)


def test_a_space_that_is_made_in_python_is_checked_like_a_file():
    entries = {"gamma": {"choices": [0.9, 0.99]}, "n_step": {"low": 1, "high": 3}}
    space = Space({"gamma": Choice((0.9, 0.99)), "n_step": Interval(1, 3)})
    assert space == parse_space({"parameters": entries}) == Space(entries)
    assert type(space.at(np.array([0.5, 0.5]))["n_step"]) is int
    for unusable in ({"gama": 0.9}, {"gamma": Choice((0.9, 2))}, {"gamma": Interval(1, 0)}):
        with pytest.raises(InputError):
            Space(unusable)


class TestLooking:
    """The options of the command that look at spaces."""

    def test_it_starts_no_device(self):
        script = (
            "import sys; from jaxrl.sweep import main; import jax._src.xla_bridge as bridge\n"
            "assert not main(['--list-spaces']) and not main(['--show-space', '--set', 'gamma=1'])\n"
            "assert not main(['--sample', '3'])\n"
            "print(bridge.backends_are_initialized())"
        )
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "False"

    def test_the_list_has_every_packaged_space_and_what_it_is_for(self, capsys):
        assert main(["--list-spaces"]) == 0
        lines = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
        assert set(lines) == set(packaged())
        for name, text in lines.items():
            space = load_space(name)
            assert space.description in text
            assert f"({len(space.varying)} hyperparameters vary)" in text

    def test_what_is_shown_is_the_space_with_what_is_set(self, capsys):
        assert main(["--space", "cartpole-wide", "--show-space", "--set", "hidden_sizes=[]"]) == 0
        shown = parse_space(yaml.safe_load(capsys.readouterr().out))
        assert shown == load_space("cartpole-wide").fix({"hidden_sizes": []})
        assert "dueling" not in shown.varying

    def test_a_sample_is_a_table_of_what_a_sweep_would_train(self, tmp_path, capsys):
        arguments = ["--space", "cartpole-wide", "--sampler", "sobol", "--seed", "3"]
        assert main([*arguments, "--set", "gamma=0.5", "--sample", "20"]) == 0
        table = tmp_path / "table.csv"
        table.write_text(capsys.readouterr().out)
        space = load_space("cartpole-wide").fix({"gamma": 0.5})
        points = SAMPLERS["sobol"](3, 20, len(space.varying))
        assert read_table(str(table)) == [space.at(point) for point in points]

    def test_what_does_not_vary_in_a_configuration_is_blank(self, tmp_path, capsys):
        file = tmp_path / "mine.yaml"
        file.write_text(parse_space({"parameters": CONDITIONAL}).to_yaml())
        assert main(["--space", str(file), "--sample", "30"]) == 0
        rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
        assert {row["hidden_sizes"] == "[]" for row in rows} == {True, False}
        assert all((row["dueling"] == "") == (row["hidden_sizes"] == "[]") for row in rows)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--sample", "0"], "--sample 0: give 1 or more"),
            (["--show-space", "--config-table", "x.csv"], "--config-table uses none"),
            (["--sample", "3", "--resume", "runs/x"], "--resume uses none"),
            (["--show-space", "--space", "cartpol"], "did you mean 'cartpole'?"),
        ],
    )
    def test_what_cannot_be_shown_is_refused(self, arguments, message, capsys):
        assert main(arguments) == 2
        captured = capsys.readouterr()
        assert message in captured.err
        assert (captured.out, captured.err.count("\n")) == ("", 1)
