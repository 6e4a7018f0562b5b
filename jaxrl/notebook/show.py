"""Pictures inline."""

import base64
import io
import pathlib
import subprocess
import sys
import tempfile

from IPython.display import HTML, Image, display
from matplotlib.figure import Figure

from jaxrl.errors import InputError
from jaxrl.notebook.setup import environment
from jaxrl.notebook.stop import stops
from jaxrl.report.data import SoFar
from jaxrl.report.pictures import draw_curves, draw_importances, importances

CURVES = "evaluation returns of the population against environment steps"


def as_image(figure: Figure, text: str) -> Image:
    """A picture of ``figure``, with ``text`` for who cannot see it."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return Image(file.getvalue(), alt=text)


def check_finished(run_dir: pathlib.Path) -> None:
    """Raises ``InputError`` where a run directory has no best policies."""
    if not (run_dir / "best").is_dir():
        raise InputError(f"{run_dir} has no best policies: has its sweep finished?")


@stops
def show_curves(run_dir: pathlib.Path) -> None:
    """How the population learned."""
    display(as_image(draw_curves(SoFar(run_dir)), CURVES))


@stops
def show_importance(run_dir: pathlib.Path) -> None:
    """Which hyperparameters mattered; a line where that cannot be said."""
    try:
        shares = importances(run_dir)
    except InputError as error:
        print(error)
        return
    display(as_image(draw_importances(shares), f"importance: {shares}"))


@stops
def show_best(run_dir: pathlib.Path, episodes: int = 100) -> None:
    """Evaluates the best policy in Gymnasium's environment, and shows its first episode."""
    check_finished(run_dir)
    with tempfile.TemporaryDirectory() as folder:
        gif = pathlib.Path(folder) / "pole.gif"
        options = ["--episodes", str(episodes), "--gif", str(gif)]
        command = [sys.executable, "-m", "jaxrl.play", str(run_dir), *options]
        done = subprocess.run(command, capture_output=True, text=True, env=environment())
        if done.returncode:
            raise InputError(done.stderr.strip().removeprefix("error: "))
        picture = base64.b64encode(gif.read_bytes()).decode()
    said = f"{episodes} episodes in Gymnasium: {done.stdout.strip()}"
    display(HTML(f'<p>{said}</p><img src="data:image/gif;base64,{picture}" alt="the pole">'))
