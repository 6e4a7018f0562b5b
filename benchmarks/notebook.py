"""How long a person waits: from the notebook's first cell to the first metric in the dashboard.

python benchmarks/notebook.py --json benchmarks/results/notebook.json

The notebook runs as it is (1,000 configurations of 50,000 steps), on the CPU, without the download
of packages, and with nothing compiled before; MLflow is served by jaxrl.serve behind a forwarding
proxy. It is stopped once the metric is there.
"""

import argparse
import json
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile
import time

import mlflow
import nbformat

ROOT = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "colab")]

import make_notebook  # noqa: E402
from forwarding import forwarding  # noqa: E402
from mlflow_behind_tunnel import served  # noqa: E402
from mlflow_server import free_port  # noqa: E402

from jaxrl.benchmark import machine  # noqa: E402

NAME = "name.ngrok-free.app"
_RUN = """
import nbclient, nbformat, sys
nbclient.NotebookClient(nbformat.read(sys.argv[1], as_version=4), timeout=600).execute()
"""


def first_metric(client: mlflow.MlflowClient) -> bool:
    experiment = client.get_experiment_by_name("jaxrl")
    runs = client.search_runs([experiment.experiment_id]) if experiment else []
    return any(run.data.metrics for run in runs)


def once(folder: pathlib.Path) -> float:
    """Seconds until the first metric."""
    with (
        served(folder / "data", "--domain", NAME, "--port", str(free_port())) as service,
        forwarding(service.local, NAME) as public,
    ):
        user, password = service.login("sweep")
        book = nbformat.read(make_notebook.NOTEBOOK, as_version=4)
        make_notebook.with_values(book, {"GO_ON_WITH_THE_CPU": True, "CONNECT": "secret"})
        make_notebook.without_install(book)
        nbformat.write(book, folder / "notebook.ipynb")
        stub = folder / "google" / "colab"
        stub.mkdir(parents=True)
        (stub / "__init__.py").touch()
        secret = f"http://{user}:{password}@127.0.0.1:{public.server_port}"
        (stub / "userdata.py").write_text(f"get = lambda name: {secret!r}\n")
        paths = {"PYTHONPATH": str(folder), "XDG_CACHE_HOME": str(folder / "cache")}
        os.environ |= {"MLFLOW_TRACKING_USERNAME": user, "MLFLOW_TRACKING_PASSWORD": password}
        client = mlflow.MlflowClient(service.local)
        began = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-c", _RUN, str(folder / "notebook.ipynb")],
            cwd=folder,
            env=os.environ | paths,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            while not first_metric(client):
                if process.poll() is not None:
                    raise SystemExit("the notebook ended before a metric arrived")
                time.sleep(0.25)
            return time.monotonic() - began
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE")
    args = parser.parse_args()
    seconds = []
    for _ in range(args.repeats):
        with tempfile.TemporaryDirectory() as folder:
            seconds.append(round(once(pathlib.Path(folder)), 1))
            print(f"first metric after {seconds[-1]} s", flush=True)
    result = {"machine": machine.describe(), "seconds_to_first_metric": seconds}
    result["median"] = statistics.median(seconds)
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
