"""What a file's columns are taken for."""

import json
from pathlib import Path

import pytest

from embedsmith.data.guess import find_columns
from embedsmith.support.errors import DataError

TEXTS = ["a cat sleeps", "the rain falls", "on the roof"]


def _write(path: Path, names: list[str], rows: list[list[str]]) -> Path:
    path.write_text("".join("\t".join(row) + "\n" for row in [names, *rows]), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("names", "row", "named"),
    [
        (["id", "question", "answer"], ["17", *TEXTS[:2]], {"anchor": "question", "positive": "answer"}),
        (
            ["q", "right", "wrong_answer"],
            TEXTS,
            {"anchor": "q", "positive": "right", "negative": "wrong_answer"},
        ),
        (
            ["q", "right", "distractor_a", "distractor_b"],
            [*TEXTS, TEXTS[0]],
            {"anchor": "q", "positive": "right", "negative": ["distractor_a", "distractor_b"]},
        ),
        (["a", "b", "similarity"], [*TEXTS[:2], "0.5"], {"sentence1": "a", "sentence2": "b", "score": "similarity"}),
        (["a", "b", "views"], [*TEXTS[:2], "12"], {"anchor": "a", "positive": "b"}),
        (["id", "body"], ["3", TEXTS[0]], {"text": "body"}),
    ],
)
def test_by_what_stands_in_them(tmp_path: Path, names: list[str], row: list[str], named: dict[str, object]) -> None:
    found = find_columns(_write(tmp_path / "t.tsv", names, [row, row]))
    assert (found.named, found.is_guess) == (named, True)
    assert set(found.roles.values()) == set(named)


def _write_marked(path: Path, names: list[str], marks: list[str]) -> Path:
    return _write(path, names, [[*TEXTS[:2], mark] for mark in marks])


def test_a_mark_that_is_named_after_what_it_says_is_a_score(tmp_path: Path) -> None:
    """Not one more column that is not used: then pairs that do not belong together would be trained to."""
    path = _write_marked(tmp_path / "t.tsv", ["question1", "question2", "is_duplicate"], ["0", "1", "1"])
    assert find_columns(path).named == {"sentence1": "question1", "sentence2": "question2", "score": "is_duplicate"}


@pytest.mark.parametrize(
    ("names", "marks", "cure"),
    [
        (
            ["sentence1", "sentence2", "label"],
            ["0", "1"],
            "'{sentence1: sentence1, sentence2: sentence2, score: label}'",
        ),
        (["asked", "found", "label"], ["1", "0"], "'{sentence1: asked, sentence2: found, score: label}'"),
        (["asked", "found", "mismatch"], ["1", "0"], "'{sentence1: asked, sentence2: found, score: mismatch}'"),
        (["asked", "found", "same"], ["no", "Yes"], "Write 1 there"),
    ],
)
def test_what_a_mark_says_is_asked(tmp_path: Path, names: list[str], marks: list[str], cure: str) -> None:
    with pytest.raises(DataError, match="seems to say which pairs belong together") as caught:
        find_columns(_write_marked(tmp_path / "t.tsv", names, marks))
    assert cure in str(caught.value)


def test_what_the_user_says_of_a_mark_counts(tmp_path: Path) -> None:
    path = _write_marked(tmp_path / "t.tsv", ["sentence1", "sentence2", "label"], ["0", "1"])
    columns = {"sentence1": "sentence1", "sentence2": "sentence2", "score": "label"}
    assert find_columns(path, columns=columns).named == columns


@pytest.mark.parametrize(
    ("name", "marks"), [("is_new", ["0", "1"]), ("is_duplicate", ["1", "1"]), ("label", ["a", "b"])]
)
def test_other_marks_are_not_used(tmp_path: Path, name: str, marks: list[str]) -> None:
    path = _write_marked(tmp_path / "t.tsv", ["asked", "found", name], marks)
    assert find_columns(path).named == {"anchor": "asked", "positive": "found"}


@pytest.mark.parametrize("first", ["Who sleeps?", "where do I find what I was looking for", "a" * 30 + " " + "b" * 30])
def test_a_first_row_of_texts_is_no_header(tmp_path: Path, first: str) -> None:
    with pytest.raises(DataError, match="no names of columns: its first row begins with"):
        find_columns(_write(tmp_path / "t.tsv", [first, "a cat"], [TEXTS[:2]]))


def test_usual_names_need_no_guess(tmp_path: Path) -> None:
    found = find_columns(_write(tmp_path / "t.tsv", ["positive", "anchor", "note"], [TEXTS]))
    assert (found.named, found.roles, found.is_guess) == ({}, {"anchor": "anchor", "positive": "positive"}, False)


def test_what_the_user_says_counts(tmp_path: Path) -> None:
    path = _write(tmp_path / "t.tsv", ["answer", "question"], [TEXTS[:2]])
    columns = {"anchor": "question", "positive": "answer"}
    found = find_columns(path, columns=columns)
    assert (found.named, found.is_guess) == (columns, False)
    with pytest.raises(DataError, match="no usable columns"):
        find_columns(path, columns={"anchor": "query", "positive": "answer"})


def test_lists_of_texts(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps({"ask": TEXTS[0], "good": [TEXTS[1]], "wrong": TEXTS}) + "\n", encoding="utf-8")
    assert find_columns(path).named == {"anchor": "ask", "positive": "good", "negative": "wrong"}


@pytest.mark.parametrize(
    ("names", "row", "match"),
    [
        (["premise", "hypothesis", "label"], [*TEXTS[:2], "entailment"], "embedsmith data triplets"),
        (["id", "number"], ["1", "2"], "nothing to learn from"),
        (["id", "wrong"], ["1", TEXTS[0]], "nothing to learn from"),
    ],
)
def test_nothing_to_learn_from(tmp_path: Path, names: list[str], row: list[str], match: str) -> None:
    with pytest.raises(DataError, match=match):
        find_columns(_write(tmp_path / "t.tsv", names, [row]))
