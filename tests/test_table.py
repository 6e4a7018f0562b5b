"""Tables of explicit configurations: what is read, and what each unusable file is told."""

import csv
import io
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl.dqn.hyperparameters import NAMES, Configuration
from jaxrl.errors import InputError
from jaxrl.population.plan import Agent
from jaxrl.search.results import Results
from jaxrl.search.table import format_cell, parse_cell, read_table

STEPS = 50_000


@pytest.fixture
def table(tmp_path):
    """Writes a table and reads it."""

    def read(content, name="table.csv"):
        file = tmp_path / name
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_table(str(file))

    return read


@pytest.fixture
def refusal(table):
    """The one line that a table is refused with; it names the file."""

    def read(content, name="table.csv"):
        with pytest.raises(InputError) as caught:
            table(content, name)
        message = str(caught.value)
        assert name in message
        assert "\n" not in message
        assert len(message) < 1000
        return message

    return read


def test_a_csv_row_is_a_configuration(table):
    rows = table('gamma,hidden_sizes,double_q\n0.9,"[256, 256]",true\n0.5,[],false\n')
    assert rows == [
        {"gamma": 0.9, "hidden_sizes": (256, 256), "double_q": True},
        {"gamma": 0.5, "hidden_sizes": (), "double_q": False},
    ]


def test_a_json_object_is_a_configuration_and_need_not_name_what_others_do(table):
    rows = [{"gamma": 0.9, "hidden_sizes": [256, 256]}, {"double_q": True, "buffer_size": "1e4"}]
    assert table(json.dumps(rows), "table.json") == [
        {"gamma": 0.9, "hidden_sizes": (256, 256)},
        {"double_q": True, "buffer_size": 10_000},
    ]


@pytest.mark.parametrize("cell", ["true", "True", "TRUE"])
def test_booleans_are_read_as_json_and_python_and_spreadsheets_write_them(table, cell):
    assert table(f"dueling\n{cell}\n") == [{"dueling": True}]


@pytest.mark.parametrize("cell", ["inf", "Infinity", "Inf"])
def test_infinity_is_read(table, cell):
    assert table(f"huber_delta\n{cell}\n") == [{"huber_delta": math.inf}]


def test_numbers_are_read_in_any_notation(table):
    row = table("learning_rate,buffer_size,batch_size\n1e-5,1e4, 64 \n")[0]
    assert row == {"learning_rate": 1e-5, "buffer_size": 10_000, "batch_size": 64}
    assert type(row["buffer_size"]) is int


def test_a_blank_cell_takes_the_default(table):
    rows = table("gamma,learning_rate,epsilon_decay_steps\n0.9,,\n, ,7\n")
    assert rows == [{"gamma": 0.9}, {"epsilon_decay_steps": 7}]


def test_result_columns_and_config_are_ignored_whatever_they_hold(table):
    header = (
        "config,gamma,train_return_mean,eval_return_mean,eval_return_std,eval_episodes,"
        "best_return_mean,env_steps,updates,diverged,status"
    )
    assert table(f"{header}\n7,0.9,nan,inf,x,,-1,true,[],maybe,finished\n") == [{"gamma": 0.9}]
    assert table('[{"config": null, "gamma": 0.9, "status": {}}]', "table.json") == [{"gamma": 0.9}]


def test_a_seed_column_is_kept(table):
    assert table("gamma,seed\n0.9,4294967295\n0.9,0\n") == [
        {"gamma": 0.9, "seed": 2**32 - 1},
        {"gamma": 0.9, "seed": 0},
    ]


def test_windows_line_ends_a_byte_order_mark_and_blank_lines_do_no_harm(table):
    content = b"\xef\xbb\xbfgamma, tau\r\n\r\n0.9,0.5\r\n\r\n"
    assert table(content) == [{"gamma": 0.9, "tau": 0.5}]


def sweep_of(configurations, seeds):
    agents = [Agent(c, seed) for c in configurations for seed in seeds]
    numbers = [number for number in range(len(configurations)) for _ in seeds]
    return agents, Results(agents, numbers, final_episodes=100, select="last")


def test_a_results_csv_is_itself_a_table_of_what_was_run(table):
    configurations = [
        Configuration.create({}, STEPS),
        Configuration.create(
            {"hidden_sizes": [], "huber_delta": math.inf, "max_grad_norm": math.inf}, STEPS
        ),
        Configuration.create(
            {
                "learning_rate": 1 / 3,
                "gamma": 1 - 1e-16,
                "hidden_sizes": [256, 256, 1],
                "double_q": True,
                "dueling": True,
                "normalize_observations": True,
                "n_step": 3,
                "buffer_size": 2**31 - 1,
            },
            STEPS,
        ),
    ]
    agents, results = sweep_of(configurations, seeds=(0, 2**32 - 1))
    results.of_agent[0].status = "finished"
    results.of_agent[1].diverged = True
    rows = table(results.to_csv(), "results.csv")
    assert [row.pop("seed") for row in rows] == [agent.seed for agent in agents]
    assert all(set(row) == set(NAMES) for row in rows)
    assert [Configuration.create(row, STEPS) for row in rows] == [a.configuration for a in agents]


@settings(max_examples=100)
@given(
    st.floats(1e-30, 1e30),
    st.floats(0, 1),
    st.lists(st.integers(1, 4096), max_size=4),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_every_configuration_survives_a_results_csv(rate, gamma, sizes, double_q, seed):
    given_values = {
        "learning_rate": rate,
        "gamma": gamma,
        "hidden_sizes": sizes,
        "double_q": double_q,
    }
    configuration = Configuration.create(given_values, STEPS)
    _, results = sweep_of([configuration], [seed])
    (row,) = csv.DictReader(io.StringIO(results.to_csv()))
    assert row["seed"] == str(seed)
    values = {name: parse_cell(row[name]) for name in NAMES}
    assert Configuration.create(values, STEPS) == configuration


@pytest.mark.parametrize("content", ["", "\n\n", "gamma\n", "gamma,tau\n\n", b"\xef\xbb\xbf"])
def test_a_csv_without_a_row_is_refused(refusal, content):
    assert "no configuration" in refusal(content)


@pytest.mark.parametrize("line", ["0.9", "0.9,0.5,1", "[64, 64],0.9,"])
def test_a_ragged_row_is_refused_with_its_number(refusal, line):
    message = refusal(f"gamma,tau\n0.9,0.5\n{line}\n")
    assert "ragged" in message
    assert "configuration 1" in message


def test_a_column_that_comes_twice_is_refused(refusal):
    message = refusal("gamma,tau,gamma\n0.9,0.5,0.8\n")
    assert "twice" in message
    assert "gamma" in message


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ("gamma,batchsize\n0.9,32\n", "table.csv"),
        ('[{"gamma": 0.9, "batchsize": 32}]', "table.json"),
    ],
)
def test_an_unknown_column_is_refused_with_the_nearest(refusal, content, name):
    message = refusal(content, name)
    assert "'batchsize'" in message
    assert "did you mean 'batch_size'" in message


@pytest.mark.parametrize(
    ("content", "name", "value"),
    [
        ("gamma,tau\n0.9,0.5\n1.5,0.5\n", "table.csv", "1.5"),
        ('[{"gamma": 0.9}, {"gamma": 1.5}]', "table.json", "1.5"),
        ("gamma\n0.9\nhigh\n", "table.csv", "'high'"),
        ("gamma\n0.9\ntrue\n", "table.csv", "True"),
        ('[{}, {"gamma": null}]', "table.json", "None"),
        ('[{}, {"gamma": [0.9]}]', "table.json", "[0.9]"),
    ],
)
def test_a_bad_value_is_refused_with_its_configuration(refusal, content, name, value):
    message = refusal(content, name)
    assert "configuration 1" in message
    assert f"gamma is {value}; it must be a number" in message


@pytest.mark.parametrize("seed", ["-1", "4294967296", "0.5", "x", "1" * 400])
def test_a_bad_seed_is_refused_with_its_configuration(refusal, seed):
    message = refusal(f"seed\n0\n{seed}\n")
    assert "configuration 1" in message
    assert "seed is" in message


def test_a_table_that_is_not_there_is_refused(tmp_path):
    for path in (tmp_path / "missing.csv", tmp_path / "missing.json", tmp_path):
        with pytest.raises(InputError, match="cannot read the table") as caught:
            read_table(str(path))
        assert path.name in str(caught.value)


@pytest.mark.parametrize("content", ["", "{", '[{"gamma": 0.9},]', "gamma\n0.9\n", "[" * 100_000])
def test_invalid_json_is_refused(refusal, content):
    assert "not valid JSON" in refusal(content, "table.json")


def test_a_name_twice_in_json_is_refused(refusal):
    assert "twice in gamma, tau, gamma" in refusal(
        '[{"gamma": 0.9, "tau": 1, "gamma": 0.8}]', "table.json"
    )


@pytest.mark.parametrize("content", ["{}", "1", "null", '{"gamma": 0.9}', "[1]", "[[]]", "[{}, 1]"])
def test_json_that_is_no_list_of_objects_is_refused(refusal, content):
    assert "list of objects" in refusal(content, "table.json")


def test_an_empty_json_list_is_refused(refusal):
    assert "no configuration" in refusal("[]", "table.json")


@pytest.mark.parametrize("name", ["table.csv", "table.json"])
@pytest.mark.parametrize(
    "content",
    [
        b"\x89PNG\r\n\x1a\n\x00\x00",
        bytes(range(256)) * 10,
        b"\x00\x00\n\x00\x00\n",
        bytes(200_000),
        b"PK\x03\x04\n\x14\n",
        b"x" * 200_000 + b"\n1\n",
    ],
    ids=["png", "all bytes", "nul lines", "long nul", "zip", "long line"],
)
def test_binary_junk_is_refused(refusal, name, content):
    refusal(content, name)


FINITE = st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.one_of(
    FINITE, st.integers(), st.booleans(), st.lists(st.integers(1, 2**31 - 1), max_size=4)
)


@settings(max_examples=300)
@given(VALUES)
def test_a_value_survives_a_cell(value):
    read = parse_cell(format_cell(value))
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        (math.inf, "inf"),
        (-math.inf, "-inf"),
        (math.nan, "nan"),
        ((256, 256), "[256, 256]"),
        ([], "[]"),
        (True, "true"),
        ("finished", "finished"),
        (0.1, "0.1"),
    ],
)
def test_cells_are_json_with_inf_and_nan_as_text(value, cell):
    assert format_cell(value) == cell
    if isinstance(value, float) and not math.isfinite(value):
        assert repr(float(parse_cell(cell))) == cell
