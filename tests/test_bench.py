"""``python -m jaxrl.bench``: the command as a user runs it, and the arithmetic of its figures."""

import json
import sys

import pytest

from jaxrl.bench import main, overtaking
from jaxrl.benchmark import processes
from jaxrl.benchmark.measure import populations
from jaxrl.benchmark.workloads import WORKLOADS
from jaxrl.dqn.environment import make
from jaxrl.dqn.hyperparameters import Configuration
from jaxrl.population.cost import operations, updates


@pytest.fixture
def short(monkeypatch):
    """Two small populations in place of all that the time allows."""
    measured = processes.measured

    def few(device, workload, **options):
        return measured(device, workload, **{**options, "populations": [1, 2], "repeats": 1})

    monkeypatch.setattr("jaxrl.bench.measured", few)


def test_the_command_measures_a_machine_without_a_gpu(short, tmp_path, capsys):
    file, picture = tmp_path / "bench.json", tmp_path / "bench.png"
    assert main(["--quick", "--json", str(file), "--plot", str(picture), "--configs", "7"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum("no GPU" in line and "jaxrl[cuda12]" in line for line in lines) == 1
    assert any(line.startswith("7 such configurations take about") for line in lines)
    report = json.loads(file.read_text())
    assert report["machine"]["jax"]
    cpu = report["devices"]["cpu"]
    assert cpu["matrix_product_flops_per_second"] > 1e9
    assert [row["population"] for row in cpu["populations"]] == [1, 2]
    for row in cpu["populations"]:
        assert 0 < row["peak_fraction"] < 1
        assert row["steps_per_second"] * row["seconds_per_agent"] == pytest.approx(50_000)
        assert row["updates_per_second"] * row["seconds_per_agent"] == pytest.approx(4_000)
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--configs", "0"], "--configs 0: give 1 or more"),
        (["--json", "nowhere/bench.json"], "nowhere is no folder"),
        (["--peers", "--workload", "w2"], "leave --workload out"),
        (["--json", "."], "it is a folder"),
        (["--plot", "picture.txt"], "give a name that ends in .png, .pdf, .svg"),
        (["--quick", "--workload", "w3"], "--quick is for w1 and w2"),
        (["--device", "tpu"], "invalid choice"),
        (["--device", "gpu"], "JAX sees no GPU here"),
        (["--peers", "--device", "gpu"], "leave --device gpu out"),
        (["--peers", "--peer-python", "/nowhere/python"], "there is no such program"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(arguments, message, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1
    assert message in error[0]


def test_a_peer_that_is_not_installed_is_nothing():
    peer = processes.Peer("none", "no_such_package", "rejax_dqn.py", ())
    assert peer.run(sys.executable) is None


def test_a_process_that_fails_is_an_error_with_its_last_line():
    with pytest.raises(RuntimeError, match=r"^ValueError: why$"):
        list(processes._lines([sys.executable, "-c", "print('{}'); raise ValueError('why')"]))


def test_a_process_is_ended_when_nobody_reads_on():
    script = "import json, time; print(json.dumps({'a': 1}), flush=True); time.sleep(600)"
    lines = processes._lines([sys.executable, "-c", script])
    assert next(lines) == {"a": 1}
    lines.close()  # returns only once the process is gone


@pytest.mark.parametrize(
    ("gpu", "population"),
    [
        ([1, 4, 16], None),  # slower throughout
        ([20, 40, 160], 1),  # faster throughout
        ([5, 20, 320], 4),  # as fast at 4
        ([5, 10, 80], 8),  # half as fast at 4, twice at 16
        ([20, 10, 80], 8),  # the last crossing counts
    ],
)
def test_the_gpu_overtakes_where_its_line_crosses(gpu, population):
    cpu = [10, 20, 40]

    def rows(speeds):
        sizes = (1, 4, 16)
        return [
            {"population": n, "steps_per_second": v} for n, v in zip(sizes, speeds, strict=True)
        ]

    found = overtaking(rows(cpu), rows(gpu))
    assert found == (None if population is None else pytest.approx(population))


def test_populations_are_powers_of_four():
    assert populations(100) == [1, 4, 16, 64]


def test_updates_are_counted_by_hand():
    configuration = Configuration.create(
        {"train_freq": 4, "gradient_steps": 3, "learning_starts": 10}, 30
    )
    after = [t for t in range(1, 31) if t % 4 == 0 and t > 10]
    assert updates(configuration, 30) == 3 * len(after)
    idle = Configuration.create({"learning_starts": 1000}, 30)
    assert updates(idle, 30) == 0


def test_useful_arithmetic_is_that_of_the_anchors():
    workload = WORKLOADS["w1"]
    configuration = workload.agents(1)[0].configuration
    one_update = 4 * 128 * 2 * (4 * 64 + 64 * 64 + 64 * 2)
    assert operations(configuration, make("CartPole-v1"), 50_000) == 4_000 * one_update


@pytest.mark.parametrize("name", WORKLOADS)
def test_workloads_have_as_many_agents_as_asked_and_the_same_first_ones(name):
    if name == "w1":
        rates = [agent.configuration.learning_rate for agent in WORKLOADS[name].agents(3)]
        assert rates == pytest.approx([1e-4, 1e-3, 1e-2])
    assert [agent.seed for agent in WORKLOADS[name].agents(5)] == list(range(5))


def test_every_peers_script_says_what_it_needs():
    for peer in processes.peers():
        script = processes._PEERS / peer.script
        source = script.read_text()
        assert peer.package in source
        assert "import jaxrl" not in source
        assert "from jaxrl" not in source
