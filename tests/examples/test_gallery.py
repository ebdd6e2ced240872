"""The gallery: each script runs, in small, on data that holds what it says."""

import ast
import runpy
import shlex
from pathlib import Path
from types import ModuleType

import pytest
from matplotlib import pyplot as plt
from PIL import Image

from embedsmith.cli import run_command
from embedsmith.support.errors import DataError
from examples import beyond_sts, gallery, own_docs
from examples.array_functions import read_functions
from examples.own_docs import Question, make, read_own_pages, read_questions
from tests.docs.pages import ROOT
from tests.docs.stage import save_small_smollm2
from tests.tiny import save_teacher

EXAMPLES = ROOT / "examples"
MOST_LINES = 50
"""Of a script, without its text between the cells: a screen."""


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> Path:
    """The repository's root with small models in the place of the gallery's."""
    for name in ("docs", "recipes"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gallery, "MODEL", str(save_small_smollm2(tmp_path / "small")))
    monkeypatch.setattr(gallery, "ENCODER", str(save_teacher(tmp_path)))
    monkeypatch.setattr(gallery, "NAMES", {gallery.MODEL: "ours", gallery.ENCODER: "theirs"})
    monkeypatch.setattr(gallery, "STEPS", "4")
    monkeypatch.setattr(gallery, "embedsmith", _in_this_process)
    monkeypatch.setattr(beyond_sts, "MAX_TEXTS", 30)
    monkeypatch.setattr(own_docs, "NUM_SENTENCES", 0)
    plt.switch_backend("agg")
    return tmp_path


def _in_this_process(command: str) -> None:
    few = ["--draws", "200"] if command.startswith("compare ") else []
    assert run_command([*shlex.split(command), *few]) == 0


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("search_docs", ["'test': ", "mined negatives", "verdict: "]),
        ("find_duplicates", ["verdict: ", "duplicates: from a cosine of ", "precision"]),
        ("name_clusters", [" texts of 8 packages", "ours: V-measure "]),
    ],
)
def test_a_script_runs_and_ends_in_a_picture(
    name: str, said: list[str], small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runpy.run_path(str(EXAMPLES / f"{name}.py"))
    printed = capsys.readouterr().out
    assert [one for one in said if one not in printed] == []
    with Image.open(small / "runs" / "gallery" / name / "picture.png") as picture:
        assert len(picture.convert("RGB").getcolors(1 << 24) or ()) > 50
    plt.close("all")


@pytest.mark.parametrize("name", ["search_docs", "find_duplicates", "name_clusters"])
def test_a_script_is_a_screen(name: str) -> None:
    text = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    lines = [line for line in text.split("\n") if line and not line.startswith("#")]
    imports = sum(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.parse(text).body)
    assert len(lines) - imports <= MOST_LINES


def test_a_command_that_fails_ends_a_script(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(gallery.subprocess.CalledProcessError):
        gallery.embedsmith("trian")
    assert "trian" in capfd.readouterr().err


# ---- this project's pages, and questions about them -----------------------------------------------------------------


def test_every_question_has_its_section_and_none_is_trained_on(tmp_path: Path) -> None:
    """A heading that was changed is changed in questions.jsonl, too."""
    counts = make(tmp_path, pages=ROOT / "docs")
    questions = read_questions()
    assert counts["dev"] + counts["test"] == len(questions) == len({one.text for one in questions})
    pairs = (tmp_path / "pairs.jsonl").read_text(encoding="utf-8")
    assert [one.text for one in questions if one.text in pairs] == []
    assert {one.title for one in read_own_pages(ROOT / "docs")}.isdisjoint(own_docs.LEFT_OUT)


def test_a_sentence_is_not_in_the_text_that_it_is_to_find(tmp_path: Path) -> None:
    text = "Rain falls on the [roof](rain.md) all day. Nobody counts **the drops** of it. Wind comes from the sea."
    (tmp_path / "weather.md").write_text(f"# Weather\n\n{text}\n", encoding="utf-8")
    heading, *sentences = own_docs.pairs_of(read_own_pages(tmp_path))
    assert heading == {
        "anchor": "weather: Weather",
        "positive": "Rain falls on the roof all day. Nobody counts the drops of it. Wind comes from the sea.",
    }
    assert len(sentences) == 2
    for row in sentences:
        assert row["anchor"] in heading["positive"] and row["anchor"] not in row["positive"]


def test_a_question_about_nothing_is_said(tmp_path: Path) -> None:
    (tmp_path / "weather.md").write_text(f"# Weather\n\n{'Rain falls on roofs. ' * 5}\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"weather\.md: Snow\nGive these headings"):
        make(tmp_path / "out", pages=tmp_path, questions=[Question("Does it snow?", "weather.md", "Snow")])
    assert not (tmp_path / "out").exists()


# ---- functions ------------------------------------------------------------------------------------------------------


def test_functions_are_read_with_their_first_sentence() -> None:
    module = ModuleType("arrays")
    docs = {
        "head": "Give the first rows of it.\n\nAll else is left out.",
        "add": "add(x, y, *, out=None) -> Array\n\nAdd two arrays number by number.\n",
        "formula": "Compute \\frac{1}{2} of every number.",
        "_hidden": "Do what nobody needs to know.",
        "bare": "",
    }
    for name, text in docs.items():
        function = lambda: None  # noqa: E731
        function.__doc__ = text
        setattr(module, name, function)
    module.Array = type("Array", (), {"__doc__": "Hold numbers in rows of one length."})  # type: ignore[attr-defined]
    module.pi = 3.14  # type: ignore[attr-defined]
    assert [(one.name, one.query) for one in read_functions(module)] == [
        ("arrays.add", "Add two arrays number by number."),
        ("arrays.head", "Give the first rows of it."),
    ]
