"""What the columns of training files mean: every usual form, every negative, and a remark on what is not used."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedsmith.data.table import TripletTable
from embedsmith.data.triplets import load_triplets
from embedsmith.support.errors import DataError
from tests.data.rows import write_jsonl

Rows = list[tuple[str, ...]]
PASSAGE = {"docid": "7", "title": "T", "text": "n1"}
ROW = {"anchor": "a", "positive": "p", "negative": "n"}


def _texts(table: TripletTable) -> Rows:
    return list(table.rows(np.arange(len(table))).texts)


FORMS: dict[str, tuple[dict[str, Any], Rows]] = {
    "list": ({"anchor": "a", "positive": "p", "negative": ["n1", "n2", "n3"]}, [("a", "p", "n1", "n2", "n3")]),
    "negatives": ({"anchor": "a", "positive": "p", "negatives": ["n1", "n2"]}, [("a", "p", "n1", "n2")]),
    "one positive, three negatives": (
        {"query": "a", "pos": ["p"], "neg": ["n1", "n2", "n3"]},
        [("a", "p", "n1", "n2", "n3")],
    ),
    "two positives": (
        {"query": "a", "pos": ["p1", "p2"], "neg": ["n1", "n2", "n3"]},
        [("a", "p1", "n1", "n2", "n3"), ("a", "p2", "n1", "n2", "n3")],
    ),
    "no negative": ({"query": "a", "pos": ["p"], "neg": []}, [("a", "p")]),
    "sentence-transformers": (
        {"query": "a", "answer": "x", "positive": "p", "negative_1": "n1", "negative_2": "n2"},
        [("a", "p", "n1", "n2")],
    ),
    "from 0": ({"anchor": "a", "positive": "p", "negative_0": "n1", "negative_1": "n2"}, [("a", "p", "n1", "n2")]),
    "and without a number": (
        {"anchor": "a", "positive": "p", "negative": "n1", "negative_2": "n2", "hard_neg": "n3"},
        [("a", "p", "n1", "n2", "n3")],
    ),
    "Tevatron": (
        {
            "query_id": "1",
            "query": "a",
            "positive_passages": [{"docid": "1", "title": "", "text": "p1"}, {"docid": "2", "text": "p2"}],
            "negative_passages": [PASSAGE, {"docid": "3", "title": "U ", "text": "n2"}],
        },
        [("a", "p1", "T n1", "U n2"), ("a", "p2", "T n1", "U n2")],
    ),
    "lists in objects": (
        {
            "query": "a",
            "positive_passages": {"docid": ["1", "2"], "title": ["", "T"], "text": ["p1", "p2"]},
            "negative_passages": {"text": ["n1", "n2"]},
        },
        [("a", "p1", "n1", "n2"), ("a", "T p2", "n1", "n2")],
    ),
    "SimCSE": ({"sent0": "a", "sent1": "p", "hard_neg": "n"}, [("a", "p", "n")]),
    "mixed names": ({"anchor": "a", "pos": ["p"], "negative_passages": [PASSAGE]}, [("a", "p", "T n1")]),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_every_negative_of_every_form_is_used(tmp_path: Path, cache: Path, form: str, suffix: str) -> None:
    row, expected = FORMS[form]
    path = tmp_path / f"t.{suffix}"
    if suffix == "jsonl":
        write_jsonl(path, row)
    else:
        pq.write_table(pa.Table.from_pylist([row]), path)
    assert _texts(load_triplets([str(path)])) == expected


def test_numbers_of_negatives_differ_from_row_to_row(tmp_path: Path, cache: Path) -> None:
    rows = [{"query": f"a{k}", "pos": [f"p{k}"], "neg": [f"n{k}-{m}" for m in range(k)]} for k in range(5)]
    table = load_triplets([write_jsonl(tmp_path / "t.jsonl", *rows)])
    assert [len(texts) - 2 for texts in _texts(table)] == [0, 1, 2, 3, 4]
    assert (table.kind, table.negatives_per_row) == ("triplets", (0, 4))
    assert table.size == "5 triplets with 0 to 4 negatives each"


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_empty_fields_of_numbered_columns_say_that_a_row_has_fewer(tmp_path: Path, cache: Path, suffix: str) -> None:
    path = tmp_path / f"t.{suffix}"
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter="," if suffix == "csv" else "\t", lineterminator="\n")
        writer.writerows(
            [
                ["anchor", "positive", "negative_1", "negative_2"],
                ["a", "p", "n1", "n2"],
                ["b", "q", "m1", ""],
                ["c", "r", "", ""],
            ]
        )
    assert _texts(load_triplets([str(path)])) == [("a", "p", "n1", "n2"), ("b", "q", "m1"), ("c", "r")]


def test_rows_of_numbered_columns_may_have_more_or_fewer_of_them(tmp_path: Path, cache: Path) -> None:
    base = {"anchor": "a", "positive": "p"}
    source = write_jsonl(
        tmp_path / "t.jsonl",
        base | {"negative_1": "n1", "negative_2": "n2"},
        base | {"negative_1": "n1"},
        base | {"negative_1": "n1", "negative_2": None, "negative_3": "n3"},
        base | {"negative_3": "n3"},
    )
    assert [texts[2:] for texts in _texts(load_triplets([source]))] == [("n1", "n2"), ("n1",), ("n1", "n3"), ("n3",)]


def test_faults_name_the_negative(tmp_path: Path, cache: Path) -> None:
    source = write_jsonl(
        tmp_path / "t.jsonl",
        {"query": "a", "pos": ["p"], "neg": ["n", " ", 3]},
        {"query": "a", "pos": [], "neg": ["n"]},
        {"query": "a", "pos": ["p"], "neg": None},
        {"query": "a", "pos": ["p"], "neg": [{"title": "no text"}]},
        {"query": "a", "pos": ["p"]},
        {"query": ["a"], "pos": ["p", "\ud83d"], "neg": ["n"]},
    )
    with pytest.raises(DataError) as caught:
        load_triplets([source])
    for part in (
        "line 1: negative 2 of 3 is empty",
        "line 1: negative 3 of 3 must be a text, but is 3",
        "line 2: positive is missing",
        "line 3: negative is missing",
        "line 4: negative must be a text, but is {'title': 'no text'}",
        "line 5: has no 'neg'",
        "line 6: anchor must be a text, but is ['a']",
        "line 6: positive 2 of 2 holds half of a surrogate pair",
    ):
        assert f"{source}, {part}" in str(caught.value)


UNUSED: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[str, ...]]] = {
    "nothing": (ROW, {}, ()),
    "ids, labels, scores": (ROW | {"id": 1, "label": 1, "score": 0.3}, {}, ("id", "label", "score")),
    "scores of FlagEmbedding": (
        {"query": "a", "pos": ["p"], "neg": ["n"], "pos_scores": [1], "neg_scores": [0], "type": "normal"},
        {},
        ("pos_scores", "neg_scores", "type"),
    ),
    "keys of passages": (
        {"query": "a", "positive_passages": [{"text": "p", "score": 1}], "negative_passages": [PASSAGE]},
        {},
        ("positive_passages.score",),
    ),
    "another negative is named": (ROW | {"bad": "b"}, {"negative": "bad"}, ("negative",)),
    "several are named": (ROW | {"bad": "b", "worse": "w"}, {"negative": ["bad", "worse"]}, ("negative",)),
    "like a negative": (ROW | {"negative_ctxs": ["x"], "Negative": "y"}, {}, ("negative_ctxs", "Negative")),
    "scored pairs": ({"sentence1": "a", "sentence2": "b", "score": 1, "genre": "x"}, {}, ("genre",)),
}


@pytest.mark.parametrize("case", UNUSED)
def test_columns_that_are_not_used_are_said(tmp_path: Path, cache: Path, case: str) -> None:
    row, columns, unused = UNUSED[case]
    source = write_jsonl(tmp_path / "t.jsonl", row, row | {"score": 2})
    for _ in range(2):  # from the file, and from what was kept of it
        remarks = [remark for remark in load_triplets([source], columns=columns).facts.remarks if "teach" not in remark]
        names = list(dict.fromkeys([*unused, *(["score"] if case != "scored pairs" else [])]))
        assert remarks == [f"{source}: columns that are not used: {', '.join(names)}"]


def test_of_our_sample_nothing_is_said(cache: Path) -> None:
    assert load_triplets(["sample"]).facts.remarks == ()


def test_places_in_parquet_are_rows(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.Table.from_pylist([ROW, ROW | {"negative": "p"}]), path)
    table = load_triplets([str(path)])
    assert table.facts.remarks == (
        f"1 row teaches the wrong thing: a negative equals the positive; the first: {path}, row 2",
    )
    assert table.place(1) == f"{path}, row 2"


def test_a_column_without_a_name_is_said(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(",anchor,positive,\n0,a,p,n\n1,b,q,m\n")
    assert load_triplets([str(path)]).facts.remarks == (f"{path}: columns that are not used: one without a name",)


def test_files_with_the_same_unused_columns_share_a_line(tmp_path: Path, cache: Path) -> None:
    sources = [write_jsonl(tmp_path / f"{k}.jsonl", ROW | {"anchor": f"a{k}", "id": k}) for k in range(3)]
    [remark] = load_triplets(sources).facts.remarks
    assert remark == f"{sources[0]} and 2 more files: columns that are not used: id"


@pytest.mark.parametrize(
    "row",
    [
        {"query": "a", "pos": ["p"], "neg": ["n"], "instruction": "i"},
        {"query": "a", "pos": ["p"], "neg": ["n"], "prompt": "i"},
        {"anchor": "a", "positive": "p", "negative": "n", "prompt": "i"},
        {"sent0": "a", "sent1": "p", "hard_neg": "n", "instruction": "i"},
        {"question": "a", "answer": "p", "prompt": "i"},
        {"sentence1": "a", "sentence2": "b", "score": 1, "instruction": "i"},
    ],
)
def test_instructions_are_used_under_either_name(tmp_path: Path, cache: Path, row: dict[str, Any]) -> None:
    columns = {"anchor": "question", "positive": "answer"} if "question" in row else {}
    other = row | ({"score": 2} if "score" in row else {})
    table = load_triplets([write_jsonl(tmp_path / "t.jsonl", row, other)], columns=columns)
    assert table.rows(np.arange(2)).instructions == ["i", "i"]
    assert not table.facts.remarks


def test_a_role_that_is_not_named_is_found_under_its_usual_names(tmp_path: Path, cache: Path) -> None:
    source = write_jsonl(tmp_path / "t.jsonl", {"question": "a", "answer": "p", "negative": "n", "anchor": "x"})
    table = load_triplets([source], columns={"anchor": "question", "positive": "answer"})
    assert _texts(table) == [("a", "p", "n")]
    assert table.facts.remarks == (f"{source}: columns that are not used: anchor",)


@pytest.mark.parametrize(
    ("row", "columns", "message"),
    [
        (ROW | {"query": "q"}, {}, "has 'anchor' and 'query'; say in data.columns which of them is the anchor"),
        (ROW | {"prompt": "q", "instruction": "i"}, {}, "say in data.columns which of them is the instruction"),
        (ROW, {"negative": ["negative", "bad"]}, "no usable columns: .* looked for negative, bad"),
        (ROW, {"instruction": "task"}, "no usable columns: .* looked for task"),
        (ROW, {"anchor": ["anchor", "query"]}, "names a list of columns for anchor, which takes one"),
        (ROW, {"negative": []}, "names no column for negative"),
        (ROW, {"anchor": ""}, "names no column for anchor"),
        (ROW, {"anchor": "x", "sentence1": "y"}, "names both a triplet's columns and a scored pair's"),
    ],
)
def test_what_is_not_clear_is_a_fault(
    tmp_path: Path, cache: Path, row: dict[str, Any], columns: dict[str, Any], message: str
) -> None:
    source = write_jsonl(tmp_path / "t.jsonl", row)
    with pytest.raises(DataError, match=message):
        load_triplets([source], columns=columns)


def test_of_two_names_the_recipe_may_choose(tmp_path: Path, cache: Path) -> None:
    source = write_jsonl(tmp_path / "t.jsonl", ROW | {"query": "q"})
    assert _texts(load_triplets([source], columns={"anchor": "query"})) == [("q", "p", "n")]


def test_rows_that_teach_the_wrong_thing_are_counted_and_the_first_is_named(tmp_path: Path, cache: Path) -> None:
    first = write_jsonl(tmp_path / "1.jsonl", {"query": "a", "pos": ["p"], "neg": ["n", "m"]})
    second = write_jsonl(
        tmp_path / "2.jsonl",
        {"query": "b", "pos": ["q", "m "], "neg": ["m", "n"]},
        {"query": "c", "pos": ["r"], "neg": ["n", "r"]},
        {"query": "d", "pos": ["d"], "neg": []},
        {"query": "e", "pos": ["n/a"], "neg": ["x"]},
    )
    for _ in range(2):
        table = load_triplets([first, second])
        assert len(table) == 6
        assert table.facts.remarks == (
            f"2 rows teach the wrong thing: a negative equals the positive; the first: {second}, line 1",
            f"1 row teaches the wrong thing: the positive equals the anchor; the first: {second}, line 3",
            "1 row teaches the wrong thing: a text only stands for a missing one, such as 'n/a'; "
            f"the first: {second}, line 4",
        )
