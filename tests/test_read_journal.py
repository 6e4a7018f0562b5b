"""The journal as a table."""

import json
import math

import pandas
import pytest

from jaxrl.errors import InputError
from jaxrl.tracking import read_journal
from jaxrl.tracking.journal import Journal


@pytest.fixture
def run_dir(tmp_path):
    content = {"configs": [0, 0, 1], "seeds": [7, 8, 7]}
    (tmp_path / "sweep.json").write_text(json.dumps(content))
    return tmp_path


def test_a_row_for_each_agent_and_evaluation(run_dir):
    journal = Journal(run_dir / "journal")
    journal.append("begin")
    journal.append("evaluation", step=10, agents=[2, 0], metrics={"loss": [0.5, math.nan]})
    journal.append("final", step=20, agents=[1], metrics={"last_mean": [9.0]})
    journal.append("end", status="finished")
    table = read_journal(run_dir)
    assert table[["kind", "config", "seed", "step"]].values.tolist() == [
        ["evaluation", 1, 7, 10],
        ["evaluation", 0, 7, 10],
        ["final", 0, 8, 20],
    ]
    assert table["loss"].tolist()[0] == 0.5
    assert table["loss"].isna().tolist() == [False, True, True]
    assert table["last_mean"].tolist()[2] == 9.0
    assert (table["time"] > pandas.Timestamp("2026-01-01", tz="UTC")).all()


def test_a_search_has_rungs_and_generations_and_all_their_agents_are_in_it(run_dir):
    journal = Journal(run_dir / "journal")
    journal.append("evaluation", step=10, agents=[0, 1, 2], metrics={"loss": [1.0, 2.0, 3.0]})
    journal.append("rung", step=10, agents=[1])
    journal.append("generation", first=3, configs=[2, 0], seeds=[7, 9])
    journal.append("evaluation", step=10, agents=[4, 3], metrics={"loss": [4.0, 5.0]})
    journal.append("finalists", rows=[])
    table = read_journal(run_dir)
    assert table[["config", "seed"]].values.tolist()[3:] == [[0, 9], [2, 7]]
    assert table["loss"].tolist() == [1, 2, 3, 4, 5]


def test_a_torn_tail_is_read_past(run_dir):
    journal = Journal(run_dir / "journal")
    journal.append("evaluation", step=10, agents=[0], metrics={"loss": [0.5]})
    journal.close()
    (segment,) = (run_dir / "journal").iterdir()
    segment.write_bytes(segment.read_bytes() + b'{"kind": "evalua')
    assert len(read_journal(run_dir)) == 1


def test_a_sweep_that_has_recorded_nothing_is_an_empty_table(run_dir):
    table = read_journal(run_dir)
    assert len(table) == 0
    assert {"kind", "config", "seed", "step", "time"} == set(table.columns)


def test_another_directory_is_refused(tmp_path):
    with pytest.raises(InputError, match="no run directory"):
        read_journal(tmp_path)
