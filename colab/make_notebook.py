"""Makes ``jaxrl_sweep.ipynb`` from its text, and writes the repository's home where it is used.

python colab/make_notebook.py

Cells that begin with ``#@title`` hide their code behind a form in Colab; those with ``# @title`` show
it, since it is what a reader would write.
"""

import pathlib
import re
import sys
import tomllib

try:
    import jupytext
    import nbformat
except ModuleNotFoundError as error:
    sys.exit(f"{error}: pip install -e '.[test]'")

HERE = pathlib.Path(__file__).parent
TEXT = HERE / "jaxrl_sweep.md"
NOTEBOOK = HERE / "jaxrl_sweep.ipynb"
README = HERE.parent / "README.md"
_METADATA = {
    "accelerator": "GPU",
    "colab": {"provenance": [], "gpuType": "T4", "toc_visible": True},
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def repository() -> str:
    """``OWNER/NAME``, from pyproject.toml."""
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"]
    place = project.get("urls", {}).get("Repository", "")
    if not (found := re.fullmatch(r"https://github\.com/([\w.-]+/[\w-]+)", place)):
        sys.exit(f"pyproject.toml: Repository is {place!r}; write https://github.com/OWNER/NAME")
    return found[1]


def placed(text: str, home: str) -> str:
    """``text`` with ``home`` for whatever repository of this name it named."""
    name = re.escape(home.partition("/")[2])
    return re.sub(rf"(github(?:\.com)?/)[\w.-]+/{name}\b", rf"\g<1>{home}", text)


def notebook(text: str) -> str:
    """The notebook, without outputs, with the same bytes for the same text."""
    book = jupytext.reads(text, fmt="md")
    book.metadata = nbformat.from_dict(_METADATA)
    for number, cell in enumerate(book.cells):
        cell["id"] = f"cell-{number:02d}"
        if cell.cell_type == "code" and "#@title" in cell.source:
            cell.metadata["cellView"] = "form"
    book.nbformat_minor = 5
    return nbformat.writes(book) + "\n"


def with_values(book: nbformat.NotebookNode, values: dict[str, object]) -> nbformat.NotebookNode:
    """``book`` with other values in its forms."""
    for cell in book.cells:
        for name, value in values.items():
            line = re.compile(rf"^{name} = [^#\n]*", re.M)
            text = f"{name} = {value!r}  "
            cell.source = line.sub(text.replace("\\", r"\\"), cell.source)
    return book


def without_install(book: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """``book`` for where jaxrl is installed already."""
    for cell in book.cells:
        cell.source = re.sub(r"^!.* pip install .*\n", "_exit_code = 0\n", cell.source, flags=re.M)
    return book


def main() -> None:
    home = repository()
    for path in (TEXT, README):
        path.write_text(placed(path.read_text(), home))
    NOTEBOOK.write_text(notebook(TEXT.read_text()))


if __name__ == "__main__":
    main()
