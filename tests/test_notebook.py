"""The Colab notebook: tidy, executed whole against a served MLflow, and again."""

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import mlflow
import nbclient
import nbconvert
import nbformat
import pytest
from browser import chromium, needs_chromium
from forwarding import forwarding
from mlflow_behind_tunnel import Service, served
from mlflow_server import free_port

from jaxrl.notebook import retrain, show_importance
from jaxrl.notebook.setup import check_install, connect, folder, workspace
from jaxrl.notebook.stop import StopNotebook, stops

pytest_plugins = ["browser", "mlflow_behind_tunnel"]

ROOT = pathlib.Path(__file__).parents[1]
NOTEBOOK = ROOT / "colab" / "jaxrl_sweep.ipynb"
CONFIGS, FRESH_SEEDS = 10, 2
SMALL = {
    "GO_ON_WITH_THE_CPU": True,
    "CONNECT": "secret",
    "CONFIGS": CONFIGS,
    "STEPS": 2000,
    "FRESH_SEEDS": FRESH_SEEDS,
    "EPISODES": 20,
    "COMPARE": False,  # jaxrl.bench has tests of its own
}


@pytest.fixture(scope="module")
def build():
    """The module that makes the notebook."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "colab"))
        import make_notebook

        yield make_notebook


def test_the_notebook_is_what_its_text_says_and_holds_no_outputs(build):
    assert NOTEBOOK.read_text() == build.notebook(build.TEXT.read_text()), (
        "run colab/make_notebook.py"
    )
    book = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(book)
    assert not any(cell.get("outputs") for cell in book.cells)
    code = [cell.source for cell in book.cells if cell.cell_type == "code"]
    assert all(len(source.splitlines()) <= 12 for source in code)  # no logic of its own
    assert not any(re.search(r"^\s*(def|class|for|while) ", s, re.M) for s in code)


def test_every_place_that_names_the_repository_names_the_one_in_the_project(build):
    home = build.repository()
    for path in (NOTEBOOK, build.TEXT, ROOT / "README.md"):
        text = path.read_text()
        named = set(re.findall(r"github(?:\.com)?/([\w.-]+/jaxrl)\b", text))
        assert named == {home}, path
        place = f"colab.research.google.com/github/{home}/blob/main/colab/jaxrl_sweep.ipynb"
        assert place in text
    assert f'PACKAGE = "git+https://github.com/{home}"' in build.TEXT.read_text()
    moved = build.placed("x github.com/a/jaxrl y /github/b/jaxrl/blob", "me/jaxrl")
    assert moved == "x github.com/me/jaxrl y /github/me/jaxrl/blob"


def test_every_hyperparameter_of_the_course_is_in_the_notebooks_table(build):
    readme = (ROOT / "README.md").read_text()
    rows = re.findall(r"^\| (`.*`) \| `(\w+)` \|", readme, re.M)
    pairs = {(ours.strip("`"), theirs) for ours, theirs in rows if "," not in ours}
    text = build.TEXT.read_text()
    for ours, theirs in pairs - {("seed", "seed")}:
        assert f"| `{theirs}` | `{ours}` |" in text


def execute(build, folder, connection):
    """Runs every cell with small numbers; the notebook with its outputs."""
    book = build.with_values(nbformat.read(NOTEBOOK, as_version=4), SMALL)
    book = build.without_install(book)
    stub = folder / "colab" / "google" / "colab"
    stub.mkdir(parents=True, exist_ok=True)
    (stub / "__init__.py").write_text("")
    (stub / "userdata.py").write_text("import os\nget = lambda name: os.environ['SECRET']\n")
    (stub / "files.py").write_text("def download(path):\n    print('browser takes', path)\n")
    client = nbclient.NotebookClient(
        book, timeout=240, resources={"metadata": {"path": str(folder)}}
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SECRET", connection)
        patch.setenv("PYTHONPATH", str(folder / "colab"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        client.execute()
    return book


def text_of(book):
    """All that was put out, in order, pictures as their types."""
    parts = []
    for cell in book.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            parts += [output.get("text", ""), data.get("text/html", "")]
            parts += [kind for kind in data if kind.startswith("image/")]
    return "\n".join(parts)


@dataclasses.dataclass
class Executed:
    """The notebook, executed once whole against a served MLflow."""

    folder: pathlib.Path
    book: nbformat.NotebookNode
    service: Service
    connection: str
    requests: list

    @property
    def runs(self):
        return self.folder / "runs"


@pytest.fixture(scope="module")
def executed(build, tmp_path_factory):
    folder = tmp_path_factory.mktemp("notebook")
    with contextlib.ExitStack() as stack:
        options = ("--domain", "name.ngrok-free.app", "--port", str(free_port()))
        service = stack.enter_context(served(tmp_path_factory.mktemp("data"), *options))
        public = stack.enter_context(forwarding(service.local, "name.ngrok-free.app"))
        user, password = service.login("sweep")
        connection = f"http://{user}:{password}@127.0.0.1:{public.server_port}"
        book = execute(build, folder, connection)
        yield Executed(folder, book, service, connection, public.requests)


def test_executed_whole_everything_is_shown(executed):
    said = text_of(executed.book)
    assert "logged in as jaxrl" in said
    assert f"{CONFIGS} configurations" in said or "100 %" in said
    assert said.count("image/png") >= 4
    assert "data:image/gif" in said
    assert "\x1b" not in said  # nothing for terminals
    assert "episodes in Gymnasium: mean return" in said
    assert "fresh seeds: mean" in said
    assert "browser takes" in said
    assert executed.service.login("sweep")[1] not in said


@needs_chromium
@pytest.mark.parametrize(("width", "name"), [(1280, "desktop"), (420, "phone")])
def test_rendered_it_fits_the_page_and_its_pictures_are_there(
    executed, width, name, tmp_path, screenshots
):
    html, _ = nbconvert.HTMLExporter().from_notebook_node(executed.book)
    page = tmp_path / "notebook.html"
    page.write_text(html)
    with chromium("--allow-file-access-from-files") as browser:
        browser.set_window_size(width, 1000)
        browser.get(page.as_uri())
        sizes = browser.execute_script(
            "return [...document.querySelectorAll('.jp-OutputArea img')]"
            ".map(image => [image.complete, image.naturalWidth, image.getBoundingClientRect().right])"
        )
        shown = browser.execute_script("return document.documentElement.clientWidth")
        assert len(sizes) >= 5  # two sweeps, curves, importance, the pole
        assert all(complete and natural > 0 for complete, natural, _ in sizes)
        assert all(right <= shown for _, _, right in sizes)
        for element in ("pre", "p", "td"):
            wide = browser.execute_script(
                f"return [...document.querySelectorAll('.jp-OutputArea {element}')]"
                ".filter(e => e.scrollWidth > e.clientWidth + 1)"
                ".filter(e => getComputedStyle(e).overflowX != 'auto').map(e => e.textContent)"
            )
            assert not wide
        assert browser.execute_script("return document.documentElement.scrollWidth") <= shown
        texts = browser.execute_script(
            "return [...document.querySelectorAll('.jp-OutputArea img')].map(image => image.alt)"
        )
        assert all(len(text) > 5 for text in texts)
        height = browser.execute_script("return document.documentElement.scrollHeight")
        browser.set_window_size(width, height + 200)
        screenshots(browser, f"notebook-{name}")


@pytest.mark.slow
def test_executed_again_it_goes_on_and_every_run_has_arrived_once(build, executed):
    before = (executed.runs / "first" / "results.csv").read_bytes()
    posts = sum(method == "POST" for method, _, _ in executed.requests)
    again = text_of(execute(build, executed.folder, executed.connection))
    assert "is finished: nothing is left to train" in again
    assert (executed.runs / "first" / "results.csv").read_bytes() == before
    user, password = executed.service.login("sweep")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_USERNAME", user)
        patch.setenv("MLFLOW_TRACKING_PASSWORD", password)
        client = mlflow.MlflowClient(executed.service.local)
        number = client.get_experiment_by_name("jaxrl").experiment_id
        found = client.search_runs([number], max_results=100)
    assert len(found) == (1 + CONFIGS) + (1 + 1)  # the search, and the best one again
    assert {run.info.status for run in found} == {"FINISHED"}
    assert sum(method == "POST" for method, _, _ in executed.requests) - posts < 20


def test_another_winner_is_not_taken_for_the_one_that_was_trained_again(executed, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(executed.runs / "first" / "best", other / "best")
    shutil.copy(executed.runs / "first" / "sweep.json", other)
    description = other / "best" / "1" / "policy.json"
    content = json.loads(description.read_text())
    content["configuration"]["learning_rate"] = 0.123
    description.write_text(json.dumps(content))
    with pytest.raises(StopNotebook, match="holds another configuration, trained again"):
        retrain(other, executed.runs / "first-again", FRESH_SEEDS, 20)
    with pytest.raises(StopNotebook, match="has its sweep finished"):
        retrain(tmp_path / "nothing", tmp_path / "again")


def test_importance_of_too_few_is_a_line_and_not_the_end(tmp_path, capsys):
    (tmp_path / "results.csv").write_text("config,status\n")
    show_importance(tmp_path)
    assert "0 configurations say nothing of importance" in capsys.readouterr().out


def test_an_image_that_was_changed_is_said_with_the_remedy(tmp_path, capsys):
    before = tmp_path / "image.txt"
    before.write_text(f"numpy==0.0.1\nmlflow=={mlflow.__version__}\n")
    with pytest.raises(StopNotebook, match=r"numpy 0\.0\.1 became .*restart the runtime"):
        check_install(before)
    before.write_text(f"mlflow=={mlflow.__version__}\n")
    check_install(before)
    assert "nothing was replaced" in capsys.readouterr().out


def test_connecting_says_what_is_wrong(monkeypatch):
    monkeypatch.delenv("JAXRL_TRACKING_URI", raising=False)
    monkeypatch.setattr("getpass.getpass", lambda prompt: "")
    with pytest.raises(StopNotebook, match="connection string is empty"):
        connect("paste")
    with pytest.raises(StopNotebook, match="Known are paste, secret, none"):
        connect("past")
    with pytest.raises(StopNotebook, match="secrets are Colab's"):
        connect("secret")
    secret = "http://me:secret-one@127.0.0.1:9"
    monkeypatch.setattr("getpass.getpass", lambda prompt: secret)
    with pytest.raises(StopNotebook) as caught:
        connect("paste")
    assert "cannot be used" in str(caught.value)
    assert "secret-one" not in str(caught.value)
    assert "JAXRL_TRACKING_URI" not in os.environ
    assert caught.value._render_traceback_() == [f"Stopped: {caught.value}"]


def test_what_was_pasted_around_a_connection_string_does_no_harm(monkeypatch):
    monkeypatch.delenv("JAXRL_TRACKING_URI", raising=False)
    monkeypatch.setattr("getpass.getpass", lambda prompt: "connection string: http://127.0.0.1:9 ")
    with pytest.raises(
        StopNotebook, match=r"at http://127\.0\.0\.1:9 cannot be used.*paste it again"
    ):
        connect("paste")
    monkeypatch.setattr("getpass.getpass", lambda prompt: "ftp://127.0.0.1")
    with pytest.raises(StopNotebook, match="begins with https:// or http://"):
        connect("paste")


@pytest.mark.parametrize("name", ["", " ", ".", "..", "a/b", "/etc/foo", "../x", "a\\b"])
def test_a_search_has_a_plain_name(name, tmp_path):
    assert folder(tmp_path, "first one é") == tmp_path / "first one é"
    with pytest.raises(StopNotebook, match="plain name"):
        folder(tmp_path, name)


def test_without_colab_there_is_no_drive(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert workspace() == tmp_path / "runs"
    with pytest.raises(StopNotebook, match="Colab only"):
        workspace(on_drive=True)


def test_only_errors_of_what_was_given_become_a_line():
    @stops
    def broken():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken()


def test_importing_it_starts_no_device():
    script = "import jaxrl.notebook, jax._src.xla_bridge as b; print(b.backends_are_initialized())"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout.lower()) is False
