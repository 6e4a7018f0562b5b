"""Hyperparameters: defaults, what each one accepts, and what a refusal says."""

import dataclasses
import datetime
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl.dqn.hyperparameters import (
    NAMES,
    Configuration,
    check_name,
    check_value,
    minibatch_rows,
)
from jaxrl.errors import InputError

# design.md, "Exact semantics"; epsilon_decay_steps for 50,000 steps.
DEFAULTS = {
    "learning_rate": 1e-4,
    "gamma": 0.99,
    "batch_size": 32,
    "buffer_size": 1_000_000,
    "train_freq": 4,
    "gradient_steps": 1,
    "target_update_interval": 10_000,
    "tau": 1.0,
    "learning_starts": 100,
    "epsilon_start": 1.0,
    "epsilon_end": 0.05,
    "epsilon_decay_steps": 5_000,
    "max_grad_norm": 10.0,
    "hidden_sizes": (64, 64),
    "huber_delta": 1.0,
    "n_step": 1,
    "double_q": False,
    "dueling": False,
    "normalize_observations": False,
}
COUNTS = (
    "batch_size",
    "buffer_size",
    "train_freq",
    "gradient_steps",
    "target_update_interval",
    "n_step",
)
STEPS = ("learning_starts", "epsilon_decay_steps")
INTEGERS = (*COUNTS, *STEPS)
PROBABILITIES = ("gamma", "epsilon_start", "epsilon_end")
INFINITE = ("max_grad_norm", "huber_delta")
FLOATS = (*PROBABILITIES, *INFINITE, "learning_rate", "tau")
BOOLEANS = ("double_q", "dueling", "normalize_observations")
LARGEST = 2**31 - 1

ABOVE_0 = "a number, above 0"
UP_TO_1 = "a number, 0 or more, at most 1"
FROM_1 = "a whole number, 1 or more"
FROM_0 = "a whole number, 0 or more"
WIDTHS = "a list of layer widths of 1 or more"

OUT_OF_RANGE = [
    *[(name, value, UP_TO_1) for name in PROBABILITIES for value in (-1e-9, 1.000001, -1, 2)],
    *[(name, value, ABOVE_0) for name in ("tau", "learning_rate", *INFINITE) for value in (0, -1)],
    ("tau", 1.000001, "above 0, at most 1"),
    *[(name, value, FROM_1) for name in COUNTS for value in (0, -1, 1.5, 2**31)],
    *[(name, value, FROM_0) for name in STEPS for value in (-1, 0.5, 2**31)],
    *[("hidden_sizes", sizes, WIDTHS) for sizes in ([0], [64, -1], [1.5], [True], [[64]], [2**31])],
    *[("hidden_sizes", sizes, WIDTHS) for sizes in (64, "64", "big", None, {"a": 1}, [None])],
]


def refusal(name, value):
    with pytest.raises(InputError) as caught:
        check_value(name, value)
    return str(caught.value)


def test_defaults_are_those_of_the_design():
    assert dataclasses.asdict(Configuration.create({}, 50_000)) == DEFAULTS
    assert set(NAMES) == set(DEFAULTS)


@pytest.mark.parametrize(("steps", "tenth"), [(50_000, 5_000), (99, 9), (10, 1), (9, 1), (1, 1)])
def test_epsilon_decays_over_a_tenth_of_the_steps_where_nothing_is_said(steps, tenth):
    assert Configuration.create({"gamma": 0.9}, steps).epsilon_decay_steps == tenth
    assert Configuration.create({"epsilon_decay_steps": 0}, steps).epsilon_decay_steps == 0


def test_create_keeps_what_is_given_and_fills_the_rest():
    given_values = {"gamma": 0.9, "hidden_sizes": [256, 256], "double_q": True, "batch_size": "16"}
    made = dataclasses.asdict(Configuration.create(given_values, 50_000))
    taken = {"gamma": 0.9, "hidden_sizes": (256, 256), "double_q": True, "batch_size": 16}
    assert made == {**DEFAULTS, **taken}


@pytest.mark.parametrize(("name", "value", "accepted"), OUT_OF_RANGE)
def test_a_value_out_of_range_is_refused_with_what_is_accepted(name, value, accepted):
    message = refusal(name, value)
    assert message.startswith(f"{name} is {value!r}; it must be ")
    assert accepted in message
    assert "\n" not in message


def test_a_refusal_of_a_number_that_is_too_large_says_what_the_largest_is():
    for name in INTEGERS:
        largest = refusal(name, 10**10).partition("it must be")[2].replace(",", "")
        assert str(LARGEST) in largest or "2^31" in largest


@pytest.mark.parametrize(
    ("name", "ends"),
    [
        *[(name, (0, 1)) for name in PROBABILITIES],
        *[(name, (1, LARGEST)) for name in COUNTS],
        *[(name, (0, LARGEST)) for name in STEPS],
        ("tau", (1e-9, 1)),
        ("learning_rate", (1e-9, 1e6)),
    ],
)
def test_the_ends_of_a_range_are_accepted(name, ends):
    assert [check_value(name, end) for end in ends] == list(ends)


@pytest.mark.parametrize("name", INTEGERS)
def test_whole_numbers_are_ints_however_they_are_written(name):
    for value in (10_000, 1e4, "1e4", "10000", "10000.0"):
        number = check_value(name, value)
        assert number == 10_000
        assert type(number) is int


@pytest.mark.parametrize("name", FLOATS)
def test_numbers_are_floats_however_they_are_written(name):
    for value in (1e-5, "1e-5", "0.00001"):
        assert check_value(name, value) == 1e-5
    assert type(check_value(name, 1)) is float


@pytest.mark.parametrize("name", [*INTEGERS, *FLOATS])
@pytest.mark.parametrize("value", ["", "abc", "1e", "one", None, [], [1], {}, True, False, "true"])
def test_what_is_no_number_is_refused(name, value):
    assert name in refusal(name, value)


@pytest.mark.parametrize("name", BOOLEANS)
@pytest.mark.parametrize("value", [0, 1, 1.0, "1", "yes", None, [True]])
def test_a_number_or_text_is_no_bool(name, value):
    message = refusal(name, value)
    assert message == f"{name} is {value!r}; it must be true or false."
    assert check_value(name, True) is True
    assert check_value(name, False) is False


@pytest.mark.parametrize("name", INFINITE)
@pytest.mark.parametrize("value", [math.inf, "inf", "Infinity"])
def test_clipping_and_the_huber_loss_can_be_turned_off_with_an_infinite_bound(name, value):
    assert check_value(name, value) == math.inf


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(INFINITE)))
@pytest.mark.parametrize("value", [math.inf, -math.inf, "inf", math.nan, "nan"])
def test_everything_else_is_finite(name, value):
    refusal(name, value)


@pytest.mark.parametrize("name", INFINITE)
@pytest.mark.parametrize("value", [-math.inf, math.nan, "nan"])
def test_an_infinite_bound_is_not_negative_and_is_a_number(name, value):
    refusal(name, value)


def test_hidden_sizes_are_a_tuple_of_ints_and_may_be_empty():
    assert check_value("hidden_sizes", [64, "32", 16.0]) == (64, 32, 16)
    assert all(type(width) is int for width in check_value("hidden_sizes", [64, "32", 16.0]))
    assert check_value("hidden_sizes", []) == ()


@pytest.mark.parametrize(
    ("typo", "meant"),
    [
        ("learning_rat", "learning_rate"),
        ("Gamma", "gamma"),
        ("batchsize", "batch_size"),
        ("hidden_size", "hidden_sizes"),
        ("double_dqn", "double_q"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(typo, meant):
    for call in (
        lambda: check_name(typo),
        lambda: check_value(typo, 1),
        lambda: Configuration.create({typo: 1}, 10),
    ):
        with pytest.raises(InputError, match=f"{typo!r}.*did you mean '{meant}'") as caught:
            call()
        assert all(name in str(caught.value) for name in NAMES)


def test_a_name_that_is_near_to_none_is_refused_with_all_of_them():
    with pytest.raises(InputError, match="unknown hyperparameter 'zzz'") as caught:
        check_name("zzz")
    assert "did you mean" not in str(caught.value)
    assert all(name in str(caught.value) for name in NAMES)


@pytest.mark.parametrize("value", [datetime.date(2020, 1, 1), {1, 2}, [datetime.date.min]])
def test_whatever_yaml_makes_of_a_value_is_refused_by_name(value):
    for name in NAMES:
        assert name in refusal(name, value)


ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.lists(st.one_of(st.integers(), st.floats(), st.text(max_size=3)), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


@settings(max_examples=300)
@given(st.sampled_from(NAMES), ANYTHING)
def test_a_value_is_accepted_or_refused_and_what_is_accepted_is_accepted_again(name, value):
    try:
        accepted = check_value(name, value)
    except InputError as error:
        assert str(error).startswith(f"{name} is {value!r}; ")  # noqa: PT017
        return
    assert check_value(name, accepted) == accepted
    assert Configuration.create({name: value}, 100) == Configuration.create({name: accepted}, 100)


def test_an_interval_of_batch_sizes_needs_a_few_programs():
    rows = {size: minibatch_rows(size) for size in range(1, 1025)}
    assert all(rows[size] == size for size in (1, 2, 4, 8, 16, 32, 48, 64, 96, 128, 256, 512, 1024))
    assert all(size <= count < 2 * size for size, count in rows.items())
    assert all(count <= 1.25 * size + 15 for size, count in rows.items())
    assert len({rows[size] for size in range(16, 129)}) == 8
    assert len(set(rows.values())) == 4 + 8 + 3 * 4
