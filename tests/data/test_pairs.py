"""Scored pairs: finite numbers, texts, and something to rank."""

from pathlib import Path

import pytest

from embedsmith.data.pairs import load_pairs
from embedsmith.support.errors import DataError


def test_pairs_are_read(tmp_path: Path) -> None:
    path = tmp_path / "d.tsv"
    path.write_text('sentence1\tsentence2\tscore\na "x\tb\t1.5\nc\td\t4\n')
    pairs = load_pairs(str(path))
    assert (pairs.sentence1, pairs.sentence2, pairs.scores.tolist()) == (['a "x', "c"], ["b", "d"], [1.5, 4.0])
    assert len(pairs) == 2


def test_names_from_the_recipe(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text("x,y,gold\na,b,1\nc,d,2\n")
    assert len(load_pairs(str(path), columns={"sentence1": "x", "sentence2": "y", "score": "gold"})) == 2


def test_faults_are_named(tmp_path: Path) -> None:
    path = tmp_path / "d.tsv"
    path.write_text("sentence1\tsentence2\tscore\na\tb\thigh\n\tb\t1\na\tb\tnan\n")
    (tmp_path / "huge.jsonl").write_text('{"sentence1": "a", "sentence2": "b", "score": 1' + "0" * 400 + "}")
    with pytest.raises(DataError) as caught:
        load_pairs(str(tmp_path / "*"))
    for part in (
        "huge.jsonl, line 1: score",
        "line 2: score must be a number, but is 'high'",
        "line 3: sentence1 is empty",
        "line 4: score",
    ):
        assert part in str(caught.value)


def test_equal_scores_cannot_be_ranked(tmp_path: Path) -> None:
    path = tmp_path / "d.tsv"
    path.write_text("sentence1\tsentence2\tscore\na\tb\t1\nc\td\t1\n")
    with pytest.raises(DataError, match="nothing can be ranked"):
        load_pairs(str(path))


def test_names_of_no_role_are_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "d.tsv"
    path.write_text("sentence1\tsentence2\tscore\na\tb\t1\nc\td\t2\n")
    with pytest.raises(DataError, match=r"dev_columns: names sentence_1; it may name sentence1, sentence2, score"):
        load_pairs(str(path), columns={"sentence_1": "x"})
