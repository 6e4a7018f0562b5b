"""Runs the notebook, its install included, with the package versions of Colab's image (CPU builds).

python colab/check_image.py [--json FILE]

Each image needs its Python (3.12, 3.13) on this machine; where it is missing, that is said and the
image is passed over. What fails is said and ends with exit code 1.
"""

import argparse
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from typing import Any

import make_notebook
import nbformat

HERE = pathlib.Path(__file__).parent
COMMON = [
    *["jax==0.7.2", "jaxlib==0.7.2", "flax==0.11.2", "optax==0.2.8", "gymnasium==1.3.0"],
    "python-dateutil==2.9.0.post0",
]
IMAGES = {
    "2026.07": ("3.12", [*COMMON, "numpy==2.0.2", "pandas==2.2.2", "pyarrow==18.1.0"]),
    "current": ("3.13", [*COMMON, "numpy==2.1.3", "pandas==2.2.3", "pyarrow==18.1.0"]),
}
"""Python and packages, as looked up in August 2026."""
NOT_COLABS = ["nbclient", "ipykernel", "matplotlib", "pip"]  # whose versions do not matter here
SMALL = {
    "GO_ON_WITH_THE_CPU": True,
    "CONFIGS": 10,
    "STEPS": 2000,
    "FRESH_SEEDS": 2,
    "EPISODES": 20,
    "COMPARE": False,
}
_RUN = """
import nbclient, nbformat, sys
book = nbformat.read(sys.argv[1], as_version=4)
nbclient.NotebookClient(book, timeout=600).execute()
nbformat.write(book, sys.argv[1])
"""


def find_python(version: str) -> str | None:
    """An interpreter of ``version`` that starts."""
    others = pathlib.Path.home().glob(f".pyenv/versions/{version}*/bin/python")
    for name in (f"python{version}", *map(str, others)):
        path = shutil.which(name)
        if path and subprocess.run([path, "-c", ""], capture_output=True).returncode == 0:
            return path
    return None


def run(*command: object, **options: Any) -> str:
    """What a command puts out; its errors are shown and end the check."""
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, **options
    )
    if done.returncode:
        print(done.stdout[-2000:], done.stderr[-4000:])
        done.check_returncode()
    return done.stdout


def versions(python: pathlib.Path) -> dict[str, str]:
    """What is installed."""
    found = json.loads(run(python, "-m", "pip", "list", "--format=json"))
    return {package["name"].lower(): package["version"] for package in found}


def check(image: str, folder: pathlib.Path) -> dict[str, Any]:
    """Makes the image, runs the notebook in it; what changed, and how long it took."""
    version, packages = IMAGES[image]
    python = find_python(version)
    if python is None:
        print(f"image {image}: no Python {version} here, not checked")
        return {"image": image, "checked": False}
    run(python, "-m", "venv", folder / "venv")
    inside = folder / "venv" / "bin" / "python"
    run(inside, "-m", "pip", "install", *packages, *NOT_COLABS)
    before = versions(inside)
    run(inside, "-m", "pip", "wheel", "--no-deps", "-w", folder, HERE.parent)
    (wheel,) = folder.glob("jaxrl-*.whl")
    book = nbformat.read(make_notebook.NOTEBOOK, as_version=4)
    nbformat.write(
        make_notebook.with_values(book, {**SMALL, "PACKAGE": str(wheel)}), folder / "notebook.ipynb"
    )
    began = time.monotonic()
    home = {"PATH": f"{inside.parent}:/usr/bin:/bin", "HOME": str(folder)}
    run(inside, "-c", _RUN, folder / "notebook.ipynb", cwd=folder, env=home)
    seconds = time.monotonic() - began
    after = versions(inside)
    replaced = {name: v for name, v in before.items() if after.get(name) != v}
    rows = (folder / "runs" / "first" / "results.csv").read_text().count("\n") - 1
    is_good = not replaced and rows == SMALL["CONFIGS"]
    print(
        f"image {image}, Python {version}: the notebook ran whole in {seconds:.0f} s with its install, "
        f"{rows} of {SMALL['CONFIGS']} configurations, replaced: {replaced or 'nothing'}"
    )
    result = {"image": image, "checked": True, "good": is_good, "python": version}
    return {**result, "packages": packages, "seconds": round(seconds), "replaced": replaced}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE")
    args = parser.parse_args()
    found = []
    for image in IMAGES:
        with tempfile.TemporaryDirectory() as folder:
            found.append(check(image, pathlib.Path(folder)))
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0 if all(result.get("good", True) for result in found) else 1


if __name__ == "__main__":
    sys.exit(main())
