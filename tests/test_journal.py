"""The journal: what is appended is read, once and in order, whatever happens to its last line."""

import json
import pathlib
import tempfile
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl.tracking.journal import Journal, Position, read, read_lines


def records(directory, start=Position()):
    return [record for record, _ in read(directory, start)]


def numbers(directory, start=Position()):
    return [record["n"] for record in records(directory, start)]


def write(directory, values):
    """A process that writes ``values`` and ends."""
    journal = Journal(directory)
    for value in values:
        journal.append("evaluation", n=value)
    journal.close()


def test_what_is_appended_is_read_back_with_its_kind_and_time(tmp_path):
    before = time.time() * 1000
    journal = Journal(tmp_path / "journal")
    fields = {"step": 5, "agents": [0, 1], "metrics": {"loss": [0.1, 1e-45], "x": [True, None]}}
    journal.append("evaluation", **fields)
    journal.append("end", status="finished")
    first, last = records(tmp_path / "journal")
    assert first == {"kind": "evaluation", "time": first["time"], **fields}
    assert last == {"kind": "end", "time": last["time"], "status": "finished"}
    assert before - 1 <= first["time"] <= last["time"] <= time.time() * 1000
    assert type(first["time"]) is int


def test_a_record_can_be_read_as_soon_as_it_is_appended(tmp_path):
    journal = Journal(tmp_path)
    for n in range(3):
        journal.append("evaluation", n=n)
        assert numbers(tmp_path) == list(range(n + 1))


def test_numbers_that_are_not_finite_become_null_wherever_they_are(tmp_path):
    bad = [np.nan, np.inf, -np.inf, 1.5]
    Journal(tmp_path).append(
        "evaluation",
        scalar=np.nan,
        plain=bad,
        array=np.array(bad, np.float32),
        matrix=np.array([bad, bad]),
        nested={"deep": [(np.nan, {"x": np.inf})]},
    )
    (record,) = records(tmp_path)
    nulls = [None, None, None, 1.5]
    assert record["scalar"] is None
    assert record["plain"] == record["array"] == nulls
    assert record["matrix"] == [nulls, nulls]
    assert record["nested"] == {"deep": [[None, {"x": None}]]}


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.uint32, np.int64, np.bool_])
def test_numpy_arrays_become_lists_of_the_same_values(tmp_path, dtype):
    array = np.array([0, 1, 3.3, 100], dtype)
    Journal(tmp_path).append("evaluation", values=array, empty=array[:0])
    (record,) = records(tmp_path)
    assert record["values"] == array.tolist()
    assert record["empty"] == []


def test_a_line_is_one_record_in_strict_json(tmp_path):
    write(tmp_path, ["two\nlines", "\u2028", "ü"])

    def refuse(token):
        raise AssertionError(token)

    lines = (tmp_path / "000000.jsonl").read_bytes().split(b"\n")
    assert lines.pop() == b""
    values = [json.loads(line, parse_constant=refuse)["n"] for line in lines]
    assert values == numbers(tmp_path) == ["two\nlines", "\u2028", "ü"]


def test_a_journal_that_is_not_there_or_empty_has_no_records(tmp_path):
    assert records(tmp_path / "nothing") == []
    Journal(tmp_path)
    assert records(tmp_path) == []


def test_a_last_record_torn_at_any_byte_is_passed_over_and_the_rest_is_read(tmp_path):
    write(tmp_path, [0, 1, "ünfinished"])
    segment = tmp_path / "000000.jsonl"
    whole = segment.read_bytes()
    begins = whole[:-1].rindex(b"\n") + 1
    for length in range(begins, len(whole)):
        segment.write_bytes(whole[:length])
        assert numbers(tmp_path) == [0, 1]
    segment.write_bytes(whole)
    assert numbers(tmp_path) == [0, 1, "ünfinished"]


def test_a_second_process_goes_on_in_a_segment_of_its_own_behind_a_torn_one(tmp_path):
    write(tmp_path, [0, 1, 2])
    segment = tmp_path / "000000.jsonl"
    segment.write_bytes(segment.read_bytes()[:-3])
    torn = segment.read_bytes()
    write(tmp_path, [3])
    write(tmp_path, [4])
    assert numbers(tmp_path) == [0, 1, 3, 4]
    assert segment.read_bytes() == torn, "append and nothing else"
    assert len(list(tmp_path.iterdir())) == 3


def test_segments_are_read_in_the_order_in_which_they_were_written(tmp_path):
    for n in range(12):
        write(tmp_path, [n])
    assert numbers(tmp_path) == list(range(12))


def test_damaged_bytes_within_a_journal_cost_only_their_own_line(tmp_path):
    write(tmp_path, [0, 1, 2])
    segment = tmp_path / "000000.jsonl"
    lines = segment.read_bytes().splitlines(keepends=True)
    said = (b"[1]", b"7", b'"kind, time"', b'{"kind": "end"}', b'{"kind": "end", "time": null}')
    for junk in (b"\x00\x00\xff\xfe", lines[1][:9], b"", *said):
        segment.write_bytes(lines[0] + junk + b"\n" + lines[2])
        assert numbers(tmp_path) == [0, 2]
        assert [record is None for record, _ in read_lines(tmp_path)] == [False, True, False]


def test_reading_from_a_position_returns_only_what_is_new(tmp_path):
    journal = Journal(tmp_path)
    for n in range(3):
        journal.append("evaluation", n=n)
    positions = [position for _, position in read(tmp_path)]
    assert [numbers(tmp_path, position) for position in positions] == [[1, 2], [2], []]
    journal.append("evaluation", n=3)
    assert numbers(tmp_path, positions[-1]) == [3]
    write(tmp_path, [4])
    assert numbers(tmp_path, positions[-1]) == [3, 4]
    assert numbers(tmp_path, positions[0]) == [1, 2, 3, 4]


class Reader:
    """Reads on from where it was."""

    def __init__(self, directory):
        self._directory = directory
        self._position = Position()
        self.seen = []

    def read(self, at_most=None):
        for count, (record, position) in enumerate(read(self._directory, self._position)):
            self.seen.append(record["n"])
            self._position = position
            if count + 1 == at_most:
                break


@settings(max_examples=100)
@given(st.lists(st.sampled_from(["append", "append", "read", "read one", "restart", "tear"])))
def test_any_mixture_of_appends_reads_and_restarts_delivers_each_record_once_in_order(actions):
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        journal, reader, written = Journal(directory), Reader(directory), []
        for action in actions:
            if action == "append":
                journal.append("evaluation", n=len(written))
                written.append(len(written))
            elif action == "read":
                reader.read()
                assert reader.seen == written
            elif action == "read one":
                reader.read(at_most=1)
                assert reader.seen == written[: len(reader.seen)]
            else:
                journal.close()
                if action == "tear":
                    with max(directory.iterdir()).open("ab") as file:
                        file.write(b'{"kind":"evaluation","n":-1')
                journal = Journal(directory)
        journal.close()
        reader.read()
        assert reader.seen == written


@settings(max_examples=50)
@given(st.lists(st.integers(0, 200), max_size=12))
def test_a_segment_that_arrives_in_pieces_is_read_once_and_only_in_whole_records(cuts):
    with tempfile.TemporaryDirectory() as name:
        source, directory = pathlib.Path(name, "a"), pathlib.Path(name, "b")
        write(source, [0, "é", 2, "\n"])
        whole = (source / "000000.jsonl").read_bytes()
        directory.mkdir()
        reader, begin = Reader(directory), 0
        for end in [*sorted(cuts), len(whole)]:
            with (directory / "000000.jsonl").open("ab") as file:
                file.write(whole[begin : max(begin, end)])
            begin = max(begin, end)
            reader.read()
            assert len(reader.seen) == whole[:begin].count(b"\n")
        assert reader.seen == [0, "é", 2, "\n"]


def test_a_clock_that_is_set_back_makes_no_record_older_than_the_one_before(tmp_path, monkeypatch):
    now = 2_000_000_000_000_000_000
    monkeypatch.setattr("jaxrl.tracking.journal.time.time_ns", lambda: now)
    first = Journal(tmp_path)
    first.append("begin")
    now -= 3600 * 10**9
    first.append("evaluation", step=1, agents=[0], metrics={})
    second = Journal(tmp_path, after=2_000_000_000_000)
    second.append("end", status="finished")
    assert [record["time"] for record, _ in read(tmp_path)] == [2_000_000_000_000] * 3
