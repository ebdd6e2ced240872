"""What the pages say of commands and settings is what the program says."""

import shutil
from pathlib import Path

import pytest

import benchmarks.render
from docs.generate import BLOCKS, PAGES, PAPER_PICTURE, block_names, commands, paper_picture, render
from embedsmith.settings.recipe import known_keys


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_page_is_fresh(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text == render(path, text), f"{path.name} is stale. Write it anew with: make docs"


def test_the_page_of_measurements_is_made_of_them(tmp_path: Path) -> None:
    docs = PAGES[0].parent / "docs"
    shutil.copytree(docs / "performance", tmp_path / "performance")
    benchmarks.render.render(tmp_path)
    fresh = (tmp_path / "performance.md").read_text(encoding="utf-8")
    stale = "docs/performance.md is stale. Write it anew with: python -m benchmarks --render"
    assert (docs / "performance.md").read_text(encoding="utf-8") == fresh, stale


def test_the_picture_of_the_papers_page_is_made_of_its_results() -> None:
    kept = PAPER_PICTURE.read_text(encoding="utf-8") if PAPER_PICTURE.exists() else None
    assert kept == paper_picture(), "docs/images/paper-steps.svg is stale. Write it anew with: make docs"


def test_every_block_stands_on_one_page() -> None:
    found = [name for path in PAGES for name in block_names(path.read_text(encoding="utf-8"))]
    assert sorted(found) == sorted(BLOCKS)
    assert {f"{name} --help" for name in commands()} <= BLOCKS.keys()


def test_every_option_and_setting_is_shown() -> None:
    for name, command in commands().items():
        block = BLOCKS[f"{name} --help"]()
        shown = [parameter for parameter in getattr(command, "params", []) if not getattr(parameter, "hidden", False)]
        options = [option for parameter in shown for option in parameter.opts]
        assert all(option in block for option in options if option.startswith("--")), name
    assert all(f"| `{key}` |" in BLOCKS["embedsmith train --settings"]() for key in known_keys())


def test_a_stale_block_is_seen() -> None:
    path = next(path for path in PAGES if path.name == "commands.md")
    text = path.read_text(encoding="utf-8")
    assert render(path, text.replace("--dtype", "--type")) == render(path, text)
    with pytest.raises(KeyError):
        render(path, "<!-- generated: nothing -->\n<!-- end -->\n")


def test_pages_do_not_depend_on_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    before = BLOCKS["embedsmith sweep --help"]()
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert BLOCKS["embedsmith sweep --help"]() == before
