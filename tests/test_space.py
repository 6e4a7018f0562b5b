"""Search spaces and samplers: what a space file may say, and what is drawn from it."""

import collections
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jaxrl.dqn.hyperparameters import Configuration
from jaxrl.errors import InputError
from jaxrl.search.parameters import Choice, Interval, check_seed
from jaxrl.search.samplers import SAMPLERS
from jaxrl.search.space import load_space, packaged, parse_space

# The table of the course's notebook, under this package's names.
HANDS_ON_RL = {
    "learning_rate": Interval(1e-5, 1e-2, log=True),
    "gamma": Choice((0.9, 0.95, 0.99)),
    "batch_size": Choice((16, 32, 64, 128)),
    "buffer_size": Choice((10_000, 50_000, 100_000)),
    "train_freq": Choice((8, 16, 128, 256)),
    "target_update_interval": Choice((10, 100, 1000)),
    "learning_starts": Choice((1000, 5000)),
    "gradient_steps": Choice((1, 4, 16)),
    "hidden_sizes": (256, 256),
    "max_grad_norm": Choice((1, 10)),
    "normalize_observations": Choice((True, False)),
    "epsilon_start": 0.9,
    "epsilon_end": Interval(0, 0.2),
    "epsilon_decay_steps": Choice((1000, 10_000, 100_000)),
    "seed": Interval(0, 2**30 - 1, integer=True),
}
NEARLY_1 = math.nextafter(1, 0)
UNIT = st.one_of(
    st.floats(0, 1, exclude_max=True), st.sampled_from([0.0, NEARLY_1, 0.5, math.nextafter(0, 1)])
)
check = settings(max_examples=150)


def one(name, entry):
    """What a space file makes of ``name: entry``."""
    return parse_space({"parameters": {name: entry}}).parameters[name]


def evenly(count):
    """``count`` coordinates, each in the middle of its part of [0, 1)."""
    return [(i + 0.5) / count for i in range(count)]


def test_the_packaged_spaces_load_and_give_usable_configurations():
    assert set(packaged()) >= {"cartpole", "hands-on-rl"}
    for name in packaged():
        space = load_space(name)
        assert space.description
        assert space.varying
        for point in np.random.default_rng(0).random((50, len(space.varying))):
            values = space.at(point)
            values.pop("seed", None)
            Configuration.create(values, 10_000)


def test_the_space_of_the_notebook_is_exactly_its_table():
    assert dict(load_space("hands-on-rl").parameters) == HANDS_ON_RL


@check
@given(st.floats(1e-6, 1e3), st.floats(1.001, 1e6), st.booleans(), UNIT)
def test_an_interval_gives_values_within_it(low, factor, log, u):
    high = low * factor
    value = one("huber_delta", {"low": low, "high": high, "log": log}).at(u)
    assert low <= value <= high
    assert type(value) is float


@check
@given(st.floats(1e-6, 1e3), st.floats(1.001, 1e6), st.booleans())
def test_an_interval_goes_from_end_to_end(low, factor, log):
    high = low * factor
    interval = one("huber_delta", {"low": low, "high": high, "log": log})
    assert interval.at(0.0) == pytest.approx(low, rel=1e-12)
    assert interval.at(NEARLY_1) == pytest.approx(high, rel=1e-9)


@check
@given(UNIT)
def test_a_linear_interval_is_uniform(u):
    assert one("gamma", {"low": 0.2, "high": 0.7}).at(u) == pytest.approx(0.2 + 0.5 * u, rel=1e-12)


@check
@given(UNIT)
def test_a_logarithmic_interval_is_uniform_in_the_exponent(u):
    value = one("learning_rate", {"low": 1e-5, "high": 1e-2, "log": True}).at(u)
    assert math.log10(value) == pytest.approx(-5 + 3 * u, abs=1e-9)


@check
@given(st.integers(1, 1000), st.integers(1, 60), st.integers(1, 5))
def test_whole_numbers_are_each_as_likely(low, spread, each):
    interval = one("batch_size", {"low": low, "high": low + spread})
    counts = collections.Counter(interval.at(u) for u in evenly((spread + 1) * each))
    assert counts == dict.fromkeys(range(low, low + spread + 1), each)
    assert all(type(value) is int for value in counts)


@check
@given(st.integers(1, 10_000), st.integers(1, 2**30), st.booleans(), UNIT)
def test_a_whole_interval_holds_both_its_ends_and_nothing_beyond(low, spread, log, u):
    high = low + spread
    interval = one("buffer_size", {"low": low, "high": high, "log": log})
    assert low <= interval.at(u) <= high
    assert (interval.at(0.0), interval.at(NEARLY_1)) == (low, high)
    assert type(interval.at(u)) is int


def test_a_logarithmic_whole_interval_gives_each_octave_as_often():
    interval = one("buffer_size", {"low": 64, "high": 65_535, "log": True})
    octaves = collections.Counter(interval.at(u).bit_length() for u in evenly(1000))
    assert octaves == dict.fromkeys(range(7, 17), 100)


@check
@given(st.integers(1, 500), st.integers(1, 60), st.integers(0, 20), st.integers(0, 59))
def test_whole_steps_are_exact_and_each_as_likely(low, step, count, rest):
    high = low + step * count + min(rest, step - 1)
    if high == low:
        return
    interval = one("batch_size", {"low": low, "high": high, "step": step})
    counts = collections.Counter(interval.at(u) for u in evenly((count + 1) * 3))
    assert counts == {low + step * k: 3 for k in range(count + 1)}
    assert all(type(value) is int for value in counts)


@check
@given(st.integers(0, 50), st.integers(1, 30), st.integers(1, 20))
@example(9, 7, 13)
@example(0, 10, 3)
def test_steps_of_a_number_are_multiples_and_never_beyond_high(low, step, count):
    high = (low + step * count) / 100
    if high > 1:
        return
    interval = one("epsilon_end", {"low": low / 100, "high": high, "step": step / 100})
    values = [interval.at(u) for u in evenly(count + 1)]
    assert values == pytest.approx([(low + step * k) / 100 for k in range(count + 1)], abs=1e-12)
    assert max(values) <= high, "then Configuration.create refuses what the space has drawn"


@check
@given(st.integers(1, 9), UNIT)
def test_choices_are_each_as_likely_and_all_reachable(count, u):
    values = [round(0.1 * k, 1) for k in range(1, count + 1)]
    choice = one("gamma", {"choices": values})
    assert choice.at(u) in values
    assert (choice.at(0.0), choice.at(NEARLY_1)) == (values[0], values[-1])
    drawn = collections.Counter(choice.at(u) for u in evenly(4 * count))
    assert drawn == dict.fromkeys(values, 4)


def test_choices_may_be_lists_and_booleans():
    sizes = one("hidden_sizes", {"choices": [[], [64, 64], [256, 256]]})
    assert [sizes.at(u) for u in evenly(3)] == [(), (64, 64), (256, 256)]
    assert [one("dueling", {"choices": [True, False]}).at(u) for u in evenly(2)] == [True, False]


def test_constants_do_not_vary_and_are_read_like_any_value():
    parameters = {"gamma": "0.9", "hidden_sizes": [32], "double_q": True, "buffer_size": "1e4"}
    space = parse_space({"parameters": parameters})
    assert space.varying == ()
    values = {"gamma": 0.9, "hidden_sizes": (32,), "double_q": True, "buffer_size": 10_000}
    assert space.at(np.empty(0)) == values


def test_a_seed_may_be_drawn_chosen_or_fixed():
    drawn = one("seed", {"low": 0, "high": 2**32 - 1})
    assert (drawn.at(0.0), drawn.at(NEARLY_1)) == (0, 2**32 - 1)
    assert type(drawn.at(0.3)) is int
    assert one("seed", {"choices": [3, 5]}) == Choice((3, 5))
    assert one("seed", 7) == 7


HUGE = pytest.param(10**400, id="huge")


@pytest.mark.parametrize(
    "value", [-1, 2**32, 1.5, True, None, "x", [], math.nan, math.inf, "", {}, HUGE]
)
def test_what_is_no_seed_is_refused(value):
    with pytest.raises(InputError, match=r"^seed is .* whole number from 0 to 4294967295"):
        check_seed(value)


@pytest.mark.parametrize("value", [0, 5.0, "5", 2**32 - 1, "1e3"])
def test_seeds_are_whole_numbers_of_32_bits(value):
    assert check_seed(value) == int(float(value))
    assert type(check_seed(value)) is int


def test_the_axes_of_a_point_are_the_varying_names_in_their_order():
    space = parse_space(
        {
            "parameters": {
                "tau": {"low": 0.5, "high": 1},
                "gamma": 0.9,
                "batch_size": {"choices": [16, 32]},
            }
        }
    )
    assert space.varying == ("tau", "batch_size")
    assert space.at(np.array([0.5, 0.9])) == {"tau": 0.75, "gamma": 0.9, "batch_size": 32}


def test_fix_overrides_what_varies_what_is_constant_and_what_is_not_named():
    space = parse_space({"parameters": {"gamma": {"low": 0, "high": 1}, "tau": 0.5}})
    fixed = space.fix({"gamma": "0.9", "tau": 1, "batch_size": 8, "seed": 3})
    assert fixed.varying == ()
    assert fixed.at(np.empty(0)) == {"gamma": 0.9, "tau": 1.0, "batch_size": 8, "seed": 3}
    assert space.varying == ("gamma",), "the space itself is unchanged"


def test_fix_refuses_unknown_names_and_values_out_of_range():
    space = parse_space({"parameters": {}})
    with pytest.raises(InputError, match=r"'gama'.*'gamma'"):
        space.fix({"gama": 1})
    with pytest.raises(InputError, match="gamma is 2;"):
        space.fix({"gamma": 2})


MALFORMED = {
    "typo in a name": ("parameters: {learning_rat: 0.1}", ["learning_rat", "'learning_rate'"]),
    "typo in the name of an interval": (
        "parameters: {learning_rat: {low: 0.1, high: 0.2}}",
        ["learning_rat", "'learning_rate'"],
    ),
    "interval of what is no name": ("parameters: {3: {low: 1, high: 2}}", ["hyperparameter '3'"]),
    "typo in a key": ("parameters: {gamma: {lo: 0, high: 1}}", ["gamma", "'lo'", "'low'"]),
    "typo in a top key": ("parameter: {gamma: 0.9}", ["parameters"]),
    "unknown top key": ("sed: 1\nparameters: {gamma: 0.9}", ["sed"]),
    "low above high": ("parameters: {gamma: {low: 0.9, high: 0.1}}", ["gamma", "0.9", "0.1"]),
    "low equal to high": ("parameters: {gamma: {low: 0.9, high: 0.9}}", ["gamma", "0.9"]),
    "infinite high": ("parameters: {huber_delta: {low: 1, high: .inf}}", ["huber_delta", "inf"]),
    "log from 0": ("parameters: {gamma: {low: 0, high: 1, log: true}}", ["gamma", "log"]),
    "log no bool": ("parameters: {gamma: {low: 0.1, high: 1, log: 1}}", ["gamma", "log"]),
    "no high": ("parameters: {gamma: {low: 0.1}}", ["gamma", "high"]),
    "empty entry": ("parameters: {gamma: {}}", ["gamma", "low", "high", "choices"]),
    "log with step": (
        "parameters: {batch_size: {low: 1, high: 9, log: true, step: 2}}",
        ["batch_size", "step"],
    ),
    "step 0": ("parameters: {gamma: {low: 0, high: 1, step: 0}}", ["gamma", "step"]),
    "step below 0": ("parameters: {gamma: {low: 0, high: 1, step: -0.1}}", ["gamma", "step"]),
    "step no number": ("parameters: {gamma: {low: 0, high: 1, step: x}}", ["gamma", "step"]),
    "step true": ("parameters: {gamma: {low: 0, high: 1, step: true}}", ["gamma", "step"]),
    "step infinite": ("parameters: {gamma: {low: 0, high: 1, step: .inf}}", ["gamma", "step"]),
    "step not whole": (
        "parameters: {batch_size: {low: 1, high: 9, step: 1.5}}",
        ["batch_size", "step", "whole"],
    ),
    "interval of lists": ("parameters: {hidden_sizes: {low: 1, high: 2}}", ["hidden_sizes"]),
    "interval of bools": ("parameters: {dueling: {low: 0, high: 1}}", ["dueling", "choices"]),
    "no choices": ("parameters: {gamma: {choices: []}}", ["gamma", "choices"]),
    "choices no list": ("parameters: {gamma: {choices: 0.9}}", ["gamma", "choices"]),
    "choices and low": ("parameters: {gamma: {choices: [0.9], low: 0}}", ["gamma", "choices"]),
    "choice out of range": ("parameters: {gamma: {choices: [0.9, 1.1]}}", ["gamma", "1.1"]),
    "end out of range": ("parameters: {gamma: {low: 0.9, high: 1.1}}", ["gamma", "1.1"]),
    "constant out of range": ("parameters: {gamma: 1.1}", ["gamma", "1.1", "at most 1"]),
    "a list for a number": ("parameters: {gamma: [0.9, 0.99]}", ["gamma"]),
    "nothing for a number": ("parameters: {gamma: }", ["gamma"]),
    "a date for a number": ("parameters: {gamma: 2020-01-01}", ["gamma"]),
    "a date in choices": ("parameters: {gamma: {choices: [2020-01-01]}}", ["gamma"]),
    "no such date": ("parameters: {gamma: 2020-13-01}", []),
    "seed out of range": ("parameters: {seed: -1}", ["seed", "-1"]),
    "seed far out of range": (f"parameters: {{seed: {10**400}}}", ["seed"]),
    "no mapping": ("- gamma\n- 0.9", ["parameters"]),
    "parameters no mapping": ("parameters: [gamma]", ["parameters"]),
    "no parameters": ("description: nothing", ["parameters"]),
    "empty": ("", ["parameters"]),
    "invalid YAML": ("parameters: {gamma: [0.9", ["YAML", "line 1"]),
    "tabs": ("parameters:\n\tgamma: 0.9", ["YAML", "line 2"]),
    "when no mapping": ("parameters: {dueling: {choices: [true], when: [n_step]}}", ["when"]),
    "when empty": ("parameters: {dueling: {choices: [true], when: {}}}", ["dueling", "when"]),
    "when no list": (
        "parameters: {n_step: 1, dueling: {choices: [true], when: {n_step: 1}}}",
        ["dueling", "when n_step", "list"],
    ),
    "when with a typo": (
        "parameters: {n_step: 1, dueling: {choices: [true], when: {n_stp: [1]}}}",
        ["dueling", "'n_stp'", "'n_step'"],
    ),
    "when out of range": (
        "parameters: {n_step: 1, dueling: {choices: [true], when: {n_step: [0]}}}",
        ["dueling", "n_step is 0"],
    ),
    "when the space does not have it": (
        "parameters: {dueling: {choices: [true], when: {n_step: [1]}}}",
        ["dueling", "n_step", "does not name"],
    ),
    "when it never is": (
        "parameters: {n_step: {choices: [1, 3]}, dueling: {choices: [true], when: {n_step: [2]}}}",
        ["dueling", "n_step is 2", "1, 3"],
    ),
    "when a constant is another": (
        "parameters: {n_step: 1, dueling: {choices: [true], when: {n_step: [1, 3]}}}",
        ["dueling", "n_step is 3"],
    ),
    "when an interval": (
        "parameters: {tau: {low: 0.1, high: 1}, dueling: {choices: [true], when: {tau: [1]}}}",
        ["dueling", "tau", "interval"],
    ),
    "when itself": (
        "parameters: {n_step: {choices: [1, 3], when: {n_step: [1]}}}",
        ["circle", "n_step needs n_step"],
    ),
    "a circle": (
        "parameters: {double_q: {choices: [true, false], when: {dueling: [true]}}, "
        "dueling: {choices: [true, false], when: {double_q: [true]}}}",
        ["circle", "double_q", "dueling"],
    ),
    "otherwise without when": (
        "parameters: {dueling: {choices: [true], otherwise: false}}",
        ["dueling", "otherwise", "when"],
    ),
    "otherwise out of range": (
        "parameters: {n_step: 1, tau: {low: 0.1, high: 1, when: {n_step: [1]}, otherwise: 2}}",
        ["tau is 2"],
    ),
    "a name twice": (
        "parameters: {gamma: 0.9, tau: 1.0, gamma: 0.8}",
        ["gamma is there twice"],
    ),
    "a bound twice": ("parameters: {tau: {low: 0.1, low: 0.2, high: 1}}", ["low is there twice"]),
    "a key that is a list": ("parameters: {? [1, 2] : 3}", ["YAML"]),
    "a Python object": ("parameters: !!python/object:os.system {}", ["YAML"]),
}


@pytest.mark.parametrize(("text", "named"), MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_space_is_refused_with_its_file_and_what_is_wrong(tmp_path, text, named):
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(InputError) as caught:
        load_space(str(file))
    message = str(caught.value)
    assert str(file) in message
    assert [word for word in named if word not in message] == []
    assert "\n" not in message


def test_a_space_file_may_use_anchors(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "parameters:\n  tau: &small {low: 0.1, high: 1.0}\n  gamma: {<<: *small, low: 0.9}\n"
    )
    assert load_space(str(file)).parameters["gamma"] == Interval(0.9, 1.0)


def test_a_space_file_that_is_not_there_or_is_no_text_is_refused(tmp_path):
    (tmp_path / "junk.yaml").write_bytes(b"\xff\xfe\x00\x01\x80")
    (tmp_path / "folder.yaml").mkdir()
    for name in ("missing.yaml", "junk.yaml", "folder.yaml"):
        with pytest.raises(InputError, match=name) as caught:
            load_space(str(tmp_path / name))
        assert "\n" not in str(caught.value)


def test_an_unknown_space_is_refused_with_those_there_are():
    with pytest.raises(InputError, match=r"'cartpol'.*'cartpole'.*hands-on-rl.*FILE\.yaml"):
        load_space("cartpol")


def test_a_space_file_of_ones_own_loads(tmp_path):
    file = tmp_path / "mine.yml"
    file.write_text(
        "description: mine\nparameters:\n  learning_rate: {low: 1e-5, high: 1e-2, log: true}\n"
    )
    space = load_space(str(file))
    assert space.description == "mine"
    assert dict(space.parameters) == {"learning_rate": Interval(1e-5, 1e-2, log=True)}


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
class TestSamplers:
    def test_the_seed_decides_the_points(self, sampler):
        points = sampler(3, 50, 4)
        assert points.shape == (50, 4)
        assert np.array_equal(points, sampler(3, 50, 4))
        assert not np.any(np.all(points == sampler(4, 50, 4), axis=1))

    def test_points_are_in_the_unit_cube_and_no_two_are_the_same(self, sampler):
        points = sampler(0, 500, 5)
        assert points.min() >= 0
        assert points.max() < 1
        assert len(np.unique(points, axis=0)) == 500

    @pytest.mark.parametrize("fewer", [0, 1, 2, 37, 64, 99])
    def test_the_first_of_more_points_are_the_points_of_fewer(self, sampler, fewer):
        assert np.array_equal(sampler(1, 100, 3)[:fewer], sampler(1, fewer, 3))

    def test_a_space_in_which_nothing_varies_has_points_too(self, sampler):
        assert sampler(0, 3, 0).shape == (3, 0)

    @pytest.mark.parametrize("seed", [0, 2**32 - 1])
    def test_every_seed_is_accepted(self, sampler, seed):
        assert sampler(seed, 2, 2).shape == (2, 2)


@pytest.mark.parametrize("seed", range(5))
def test_sobol_puts_one_point_in_each_stratum_of_every_axis(seed):
    points = SAMPLERS["sobol"](seed, 100, 14)
    for count in (8, 64):
        strata = np.sort((points[:count] * count).astype(int), axis=0)
        assert np.array_equal(strata, np.tile(np.arange(count)[:, None], (1, 14)))
