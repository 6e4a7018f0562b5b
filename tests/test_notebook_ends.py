"""Sweeps of a notebook that are cut off, in a real kernel: what is shown, and that they go on."""

import contextlib
import os
import queue
import signal
import time

import jupyter_client
import mlflow
import psutil
import pytest

from jaxrl.sweep import main as sweep

OPTIONS = [
    *("--configs", "6", "--steps", "60000", "--eval-every", "3000", "--final-episodes", "3"),
    *("--eval-episodes", "2", "--set", "hidden_sizes=[16]", "--set", "batch_size=16"),
    *("--set", "train_freq=4", "--set", "gradient_steps=1", "--device", "cpu"),
]
CELLS = """
import pathlib
from jaxrl import notebook

runs = notebook.workspace()
notebook.connect("none")
notebook.sweep(runs / "first", *{options})
""".format(options=[*OPTIONS, "--checkpoint-every", "0.5"])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The results of the same sweep, undisturbed."""
    run_dir = tmp_path_factory.mktemp("whole") / "first"
    assert sweep([*OPTIONS, "--run-dir", str(run_dir), "--no-track"]) == 0
    return (run_dir / "results.csv").read_bytes()


class Kernel:
    """A notebook's kernel, working in ``folder``."""

    def __init__(self, folder):
        self.manager = jupyter_client.KernelManager()
        self.manager.start_kernel(cwd=str(folder))
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    def begin(self, code):
        self.client.execute(code)

    def outputs(self, seconds=120):
        """What is put out until the cell ends, as text."""
        said, deadline = [], time.monotonic() + seconds
        while time.monotonic() < deadline:
            with contextlib.suppress(queue.Empty):
                message = self.client.get_iopub_msg(timeout=1)
                content = message["content"]
                said.append(content.get("data", {}).get("text/html", "") + content.get("text", ""))
                said += content.get("traceback", [])
                if message["msg_type"] == "status" and content["execution_state"] == "idle":
                    return "\n".join(said)
        raise AssertionError("the cell did not end")

    @property
    def process(self):
        return psutil.Process(self.manager.provisioner.pid)

    def close(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture
def kernel(tmp_path):
    kernels = []

    def start():
        kernels.append(Kernel(tmp_path))
        return kernels[-1]

    yield start
    for one in kernels:
        one.close()


def wait_for_evaluations(run_dir, seconds=90):
    """Until something is in the journal and a checkpoint is written."""
    deadline = time.monotonic() + seconds
    while not list(run_dir.glob("checkpoints/state-*")):
        assert time.monotonic() < deadline, "no checkpoint"
        time.sleep(0.05)


def check_whole(folder, whole):
    assert (folder / "runs" / "first" / "results.csv").read_bytes() == whole
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    found = client.search_runs([client.get_experiment_by_name("jaxrl").experiment_id])
    assert len(found) == 1 + 6
    assert {run.info.status for run in found} == {"FINISHED"}


@pytest.mark.slow
def test_a_runtime_lost_in_the_middle_goes_on_to_the_same_results(kernel, whole, tmp_path):
    first = kernel()
    first.begin(CELLS)
    wait_for_evaluations(tmp_path / "runs" / "first")
    for process in (first.process, *first.process.children(recursive=True)):
        process.send_signal(signal.SIGKILL)
    assert not (tmp_path / "runs" / "first" / "results.csv").exists()
    second = kernel()
    second.begin(CELLS)
    assert "100 %" in second.outputs()
    check_whole(tmp_path, whole)


@pytest.mark.slow
def test_an_interrupted_cell_keeps_what_is_done_and_goes_on_when_run_again(kernel, whole, tmp_path):
    one = kernel()
    one.begin(CELLS)
    wait_for_evaluations(tmp_path / "runs" / "first")
    one.manager.interrupt_kernel()
    said = one.outputs()
    assert "interrupted: what was done is written" in said
    assert "Stopped: interrupted; run this cell again to go on" in said
    assert "Traceback" not in said
    assert not [p for p in one.process.children(recursive=True) if "sweep" in " ".join(p.cmdline())]
    one.begin(CELLS)
    assert "100 %" in one.outputs()
    check_whole(tmp_path, whole)
    one.begin(CELLS.replace("'6'", "'7'"))  # more configurations, under the same name
    said = one.outputs()
    assert "configs is 6 there and 7 here" in said
    assert "another search needs another NAME" in said
    check_whole(tmp_path, whole)


@pytest.mark.slow
def test_a_kernel_that_is_killed_takes_its_sweep_with_it(kernel, tmp_path):
    one = kernel()
    one.begin(CELLS)
    wait_for_evaluations(tmp_path / "runs" / "first")
    sweeps = [p for p in one.process.children() if "jaxrl.sweep" in p.cmdline()]
    assert len(sweeps) == 1
    os.kill(one.process.pid, signal.SIGKILL)
    psutil.wait_procs(sweeps, timeout=30)
    assert not sweeps[0].is_running()
