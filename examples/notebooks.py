"""The gallery's scripts -> notebooks beside them, with what a run printed and drew; and the pictures of its page.

A script is the source; its cells begin with `# %%`. Cost: that of the scripts, some minutes. Needs jupytext, nbclient
and ipykernel: pip install 'embedsmith[notebooks]'.

    python -m examples.notebooks            # or some: python -m examples.notebooks name_clusters
"""

import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import jupytext
import nbformat

EXAMPLES = Path(__file__).parent
GALLERY = ("search_docs", "find_duplicates", "name_clusters")
PICTURES = EXAMPLES.parent / "docs" / "images"
FIRST_CELL = "%cd -q ..\n# a notebook starts in its own folder; paths are those of the repository"
_TIMEOUT_S = 3600
_PROGRESS = re.compile(r"\[[^]]*it/s\]|tqdm")
_HOME = re.compile(rf"{re.escape(str(EXAMPLES.parent))}/?|\S*/site-packages/")


def read_script(path: Path) -> nbformat.NotebookNode:
    """A script's cells, behind one that changes to the repository's folder; without outputs."""
    notebook = jupytext.read(path, fmt="py:percent")
    notebook.cells.insert(0, nbformat.v4.new_code_cell(FIRST_CELL))
    notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number}", {}  # not drawn anew each time
    return notebook


def run(notebook: nbformat.NotebookNode, *, folder: Path = EXAMPLES) -> None:
    """Fill in what the cells print and draw, as where Jupyter opens it.

    Raises:
        CellExecutionError: a cell has failed.
    """
    from nbclient import NotebookClient
    from traitlets.config import Config

    resources = {"metadata": {"path": str(folder)}}
    with tempfile.TemporaryDirectory() as sockets:  # no port, which another program may take first, or listen at
        config = Config({"KernelManager": {"transport": "ipc", "ip": f"{sockets}/kernel"}})
        client = NotebookClient(notebook, timeout=_TIMEOUT_S, coalesce_streams=True, resources=resources, config=config)
        client.execute()
    tidy(notebook)


def tidy(notebook: nbformat.NotebookNode) -> None:
    """Leave out what says nothing to readers: times of this run, where things lie on this machine, bars of progress."""
    for cell in notebook.cells:
        cell.metadata = {}
        for output in (one for one in cell.get("outputs", []) if one.output_type == "stream"):
            lines = _HOME.sub("", output.text).replace(str(Path.home()), "~").split("\n")
            output.text = "\n".join(line for line in lines if not _PROGRESS.search(line))
        if cell.cell_type == "code":
            cell.outputs = [one for one in cell.outputs if one.get("text", "shown").strip()]


def main(arguments: Sequence[str] | None = None) -> None:
    """The command: names of scripts, or all."""
    for name in sys.argv[1:] if arguments is None else arguments:
        if name not in GALLERY:
            raise SystemExit(f"There is no {name} in the gallery; there are {', '.join(GALLERY)}.")
    for name in (sys.argv[1:] if arguments is None else arguments) or GALLERY:
        notebook = read_script(EXAMPLES / f"{name}.py")
        run(notebook)
        nbformat.write(notebook, EXAMPLES / f"{name}.ipynb")
        shutil.copy(EXAMPLES.parent / "runs" / "gallery" / name / "picture.png", PICTURES / f"gallery-{name}.png")


if __name__ == "__main__":
    main()
