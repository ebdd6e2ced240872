"""Each notebook of the gallery is its script, and shows what a run of it gave."""

from pathlib import Path

import pytest

notebooks = pytest.importorskip("examples.notebooks", reason="pip install 'embedsmith[dev]'", exc_type=ImportError)
MOST_BYTES = 200_000


@pytest.mark.parametrize("name", notebooks.GALLERY)
def test_a_notebook_is_its_script_and_ends_in_a_picture(name: str) -> None:
    """Else: python -m examples.notebooks NAME."""
    path = notebooks.EXAMPLES / f"{name}.ipynb"
    notebook = notebooks.nbformat.read(path, as_version=4)
    assert [(cell.cell_type, cell.source) for cell in notebook.cells] == [
        (cell.cell_type, cell.source) for cell in notebooks.read_script(notebooks.EXAMPLES / f"{name}.py").cells
    ]
    assert any("image/png" in output.get("data", {}) for output in notebook.cells[-1].outputs)
    assert path.stat().st_size < MOST_BYTES
    assert (notebooks.PICTURES / f"gallery-{name}.png").stat().st_size < MOST_BYTES


def test_a_notebook_shows_what_its_cells_print_and_draw(tmp_path: Path) -> None:
    pytest.importorskip("nbclient", reason="pip install 'embedsmith[notebooks]'")
    pytest.importorskip("ipykernel", reason="pip install 'embedsmith[notebooks]'")
    (tmp_path / "inner").mkdir()
    script = tmp_path / "inner" / "script.py"
    lines = ["# %%", "from pathlib import Path", "print('/any/site-packages/here', Path.cwd().name)"]
    script.write_text("\n".join([*lines, "# %%", "import matplotlib.pyplot as plt", "plt.plot([1, 2]);", ""]))
    notebook = notebooks.read_script(script)
    notebooks.run(notebook, folder=tmp_path / "inner")
    _, first, second = notebook.cells
    assert first.outputs[0].text == f"here {tmp_path.name}\n"
    assert "image/png" in second.outputs[0].data
    assert not list(tmp_path.glob("**/kernel*"))
