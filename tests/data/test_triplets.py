"""Triplets under any usual name, and all faults at once. What is kept of them: test_kept_triplets.py."""

import gzip
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedsmith.data.triplets import load_triplets
from embedsmith.settings.choices import Side
from embedsmith.settings.data import TrainSource
from embedsmith.support.errors import DataError
from tests.data.rows import scored_rows, write_jsonl

LAYOUTS = {
    "ours": {"anchor": "a", "positive": "p", "negative": "n"},
    "simcse": {"sent0": "a", "sent1": "p", "hard_neg": "n"},
    "lists": {"query": "a", "pos": ["p"], "neg": ["n"]},
    "with other columns": {"id": 1, "anchor": "a", "positive": "p", "negative": "n", "source": "x"},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_usual_names_are_read_unasked(tmp_path: Path, cache: Path, layout: str) -> None:
    table = load_triplets([write_jsonl(tmp_path / "t.jsonl", LAYOUTS[layout])])
    rows = table.rows(np.array([0]))
    assert (rows.anchors, rows.positives, rows.negatives) == (["a"], ["p"], [["n"]])


def test_names_from_the_recipe(tmp_path: Path, cache: Path) -> None:
    source = write_jsonl(tmp_path / "t.jsonl", {"question": "a", "answer": "p"})
    table = load_triplets([source], columns={"anchor": "question", "positive": "answer"})
    assert not table.has_negatives
    assert table.rows(np.array([0])).negatives == [[]]
    assert len(table.text_ids[0]) == 2


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@pytest.mark.parametrize("pairs_first", [True, False])
def test_pairs_beside_triplets_are_triplets_without_a_negative(
    tmp_path: Path, cache: Path, suffix: str, pairs_first: bool
) -> None:
    sources = [str(tmp_path / f"{name}.{suffix}") for name in ("pairs", "triplets")]
    for source, row in zip(sources, ({}, {"negative": "n"}), strict=True):
        rows = [{"anchor": f"{len(row)} a{number}", "positive": f"{len(row)} p{number}", **row} for number in range(3)]
        write_jsonl(Path(source), *rows) if suffix == "jsonl" else pq.write_table(pa.Table.from_pylist(rows), source)
    table = load_triplets(sources if pairs_first else sources[::-1])
    assert (table.kind, table.size) == ("triplets", "6 triplets with 0 to 1 negatives each")
    assert f"{sources[0]}: pairs without negatives, beside triplets" in table.facts.remarks
    with_negative = [["n"]] * 3
    assert table.rows(np.arange(6)).negatives == ([[]] * 3 + with_negative if pairs_first else with_negative + [[]] * 3)


def test_a_source_may_have_column_names_of_its_own(tmp_path: Path, cache: Path) -> None:
    mine = write_jsonl(tmp_path / "mine.jsonl", {"question": "q", "answer": "r", "anchor": "x"})
    others = write_jsonl(tmp_path / "others.jsonl", {"asked": "a", "found": "p"})
    named = TrainSource(files=mine, columns={"anchor": "question", "positive": "answer"})
    everywhere = {"anchor": "asked", "positive": "found"}
    table = load_triplets([named, others], columns=everywhere)
    rows = table.rows(np.arange(2))
    assert (rows.anchors, rows.positives) == (["q", "a"], ["r", "p"])
    again = TrainSource(files=mine, columns={"anchor": "anchor", "positive": "answer"})
    assert load_triplets([again, others], columns=everywhere).rows(np.arange(1)).anchors == ["x"]
    with pytest.raises(DataError, match=rf"the columns of {re.escape(mine)}: names who; it may name"):
        load_triplets([TrainSource(files=mine, columns={"who": "question"})])


def test_every_positive_of_a_list_makes_a_triplet(tmp_path: Path, cache: Path) -> None:
    source = write_jsonl(tmp_path / "t.jsonl", {"query": "q", "pos": ["p1", "p2", "p3"], "neg": ["n1", "n2"]})
    rows = load_triplets([source]).rows(np.arange(3))
    assert rows.positives == ["p1", "p2", "p3"]
    assert rows.negatives == [["n1", "n2"]] * 3


def test_all_faults_of_all_files_come_at_once(tmp_path: Path, cache: Path) -> None:
    good = LAYOUTS["ours"]
    first = write_jsonl(
        tmp_path / "1.jsonl", good, {**good, "positive": "  "}, {**good, "negative": 3}, {"anchor": "a"}
    )
    second = write_jsonl(tmp_path / "2.jsonl", {"words": "a"})
    third = tmp_path / "3.tsv.gz"
    third.write_bytes(b"not gzip")
    fourth = write_jsonl(tmp_path / "4.jsonl", {**good, "anchor": "\ud800"})
    with pytest.raises(DataError) as caught:
        load_triplets([first, second, str(third), fourth])
    message = str(caught.value)
    for part in (
        "6 faults in the training data",
        f"{first}, line 2: positive is empty",
        f"{first}, line 3: negative must be a text, but is 3",
        f"{first}, line 4: has no 'positive'",
        f"{second}, line 1: no usable columns: it has words; looked for anchor/positive(/negative)(/instruction) or ",
        f"{third}: is named .gz but is not gzip",
        f"{fourth}, line 1: anchor holds half of a surrogate pair",
    ):
        assert part in message
    assert not list(cache.rglob("*.arrow"))
    assert not list(cache.rglob("*.tmp"))


def test_a_negative_that_only_later_rows_have_is_a_fault(tmp_path: Path, cache: Path) -> None:
    source = write_jsonl(tmp_path / "1.jsonl", {"anchor": "a", "positive": "p"}, LAYOUTS["ours"])
    with pytest.raises(DataError, match="line 2: has a 'negative', which the first row has not"):
        load_triplets([source])


def test_unknown_roles_in_columns(cache: Path) -> None:
    with pytest.raises(
        DataError,
        match="names query; it may name anchor, positive, negative, instruction, or sentence1, sentence2, score",
    ):
        load_triplets(["sample"], columns={"query": "x"})


def test_instructions_come_from_the_row_or_else_from_the_source(tmp_path: Path, cache: Path) -> None:
    plain = write_jsonl(tmp_path / "1.jsonl", LAYOUTS["ours"])
    own = write_jsonl(tmp_path / "2.jsonl", {**LAYOUTS["ours"], "instruction": "find it"})
    table = load_triplets(
        [
            plain,
            TrainSource(files=own, instruction="not this"),
            TrainSource(files=plain, instruction="x", symmetric=True),
        ]
    )
    rows = table.rows(np.arange(3))
    assert rows.instructions == [None, "find it", "x"]
    assert rows.are_symmetric == [False, False, True]
    assert table.has_instructions
    assert not load_triplets([plain]).has_instructions


@pytest.mark.parametrize("field", ["{text}", "{instruction}"])
def test_a_field_of_a_prompt_in_an_instruction_is_a_fault(tmp_path: Path, cache: Path, field: str) -> None:
    source = write_jsonl(
        tmp_path / "1.jsonl", LAYOUTS["ours"] | {"instruction": "x"}, LAYOUTS["ours"] | {"instruction": field}
    )
    with pytest.raises(DataError) as caught:
        load_triplets([TrainSource(files=source, instruction=f"find {field}"), source])
    assert f"data.train: the instruction of {source} holds {field}, which only a prompt may" in str(caught.value)
    with pytest.raises(DataError) as caught:
        load_triplets([source])
    assert f"{source}, line 2: instruction holds {field}, which only a prompt may: '{field}'" in str(caught.value)


def test_an_instruction_must_be_a_text(tmp_path: Path, cache: Path) -> None:
    source = write_jsonl(tmp_path / "1.jsonl", {**LAYOUTS["ours"], "instruction": 3})
    with pytest.raises(DataError, match="line 1: instruction must be a text, but is 3"):
        load_triplets([source])


def test_scored_pairs_are_told_by_their_columns(tmp_path: Path, cache: Path) -> None:
    table = load_triplets([write_jsonl(tmp_path / "s.jsonl", *scored_rows(5, "-1.5", 2.25))])
    assert (table.kind, table.has_scores, table.has_negatives) == ("scored pairs", True, False)
    rows = table.rows(np.array([2, 1]))
    assert (rows.anchors, rows.positives, rows.negatives) == (["a2", "a1"], ["b", "b"], [[], []])
    assert rows.scores.tolist() == [2.25, -1.5]


def test_scored_pairs_that_share_a_text_may_meet_in_a_batch(tmp_path: Path, cache: Path) -> None:
    table = load_triplets([write_jsonl(tmp_path / "s.jsonl", *scored_rows(1, 2, 3))])
    assert [table.text_ids[row].tolist() for row in range(3)] == [[0], [1], [2]]


def test_scored_pairs_under_other_names(tmp_path: Path, cache: Path) -> None:
    source = write_jsonl(tmp_path / "s.jsonl", {"x": "a", "y": "b", "gold": 1}, {"x": "a", "y": "c", "gold": 2})
    table = load_triplets([source], columns={"sentence1": "x", "sentence2": "y", "score": "gold"})
    assert table.rows(np.arange(2)).scores.tolist() == [1, 2]


def test_triplets_and_pairs_say_so(tmp_path: Path, cache: Path) -> None:
    triplets = load_triplets([write_jsonl(tmp_path / "t.jsonl", LAYOUTS["ours"])])
    pairs = load_triplets([write_jsonl(tmp_path / "p.jsonl", {"anchor": "a", "positive": "p"})])
    assert (triplets.kind, pairs.kind, triplets.has_scores) == ("triplets", "pairs", False)
    assert triplets.rows(np.array([0])).scores is None


def test_one_run_takes_one_kind(tmp_path: Path, cache: Path) -> None:
    triplets = write_jsonl(tmp_path / "t.jsonl", LAYOUTS["ours"])
    scored = write_jsonl(tmp_path / "s.jsonl", *scored_rows(1, 2))
    with pytest.raises(DataError, match=rf"{scored}: holds scored pairs, but {triplets} holds triplets"):
        load_triplets([triplets, scored])


def test_faulty_scored_pairs_are_named(tmp_path: Path, cache: Path) -> None:
    source = write_jsonl(
        tmp_path / "s.jsonl", *scored_rows(1, "high", None), {"sentence1": " ", "sentence2": "b", "score": 2}
    )
    with pytest.raises(DataError) as caught:
        load_triplets([source])
    for part in ("line 2: score must be a number, but is 'high'", "line 3: score", "line 4: sentence1 is empty"):
        assert part in str(caught.value)
    with pytest.raises(DataError, match="are equal: they order nothing"):
        load_triplets([write_jsonl(tmp_path / "e.jsonl", *scored_rows(3, 3))])


def test_data_that_is_named_twice_is_refused(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    one = write_jsonl(tmp_path / "1.jsonl", LAYOUTS["ours"])
    (tmp_path / "1.jsonl.gz").write_bytes(gzip.compress(Path(one).read_bytes()))
    (tmp_path / "link.jsonl").symlink_to(one)
    for sources in (
        [one, one],
        [one, "./1.jsonl"],
        ["1.jsonl", "*[0-9].jsonl"],
        [one, f"{one}.gz"],
        [one, "link.jsonl"],
    ):
        with pytest.raises(DataError, match=r"named twice: as .*1\.jsonl and as .*\.jsonl"):
            load_triplets(sources)
    for pattern in ("*.jsonl", "1*"):
        with pytest.raises(DataError, match=r"is named twice: by .*1\.jsonl\) and by"):
            load_triplets([pattern])
    with pytest.raises(DataError, match="named twice: as owner/name and as owner/name"):
        load_triplets(["owner/name", "owner/name"])
    assert len(load_triplets([TrainSource(files=one, instruction="i"), TrainSource(files=one, instruction="j")])) == 2


def test_texts_alone(tmp_path: Path) -> None:
    """One text a row, from any format; documents, or queries of a symmetric source."""
    (tmp_path / "a.txt").write_text("a cat\n\n  \nrain falls \r\na cat\n")
    (tmp_path / "b.jsonl").write_text('{"sentence": "b \\t c", "id": 3}\n')
    (tmp_path / "c.csv").write_text("text,instruction\nthe sea,find\n")
    (tmp_path / "d.tsv").write_text("anchor\tbody\nnot this\tn/a\n")
    sources = [TrainSource(files=str(tmp_path / "a.txt"), symmetric=True)]
    table = load_triplets(
        [*sources, str(tmp_path / "b.jsonl"), str(tmp_path / "c.csv")], cache_folder=tmp_path / "cache"
    )
    assert (table.kind, table.size, table.text_columns) == ("texts", "5 texts", ["text"])
    assert not (table.has_negatives or table.has_scores)
    rows = table.rows(np.arange(5))
    assert rows.texts == [("a cat",), ("rain falls ",), ("a cat",), ("b \t c",), ("the sea",)]
    assert rows.groups() == [["a cat", "rain falls ", "a cat", "b \t c", "the sea"], [], []]
    assert rows.are_queries() == [True, True, True, False, False]
    assert rows.instructions == [None, None, None, None, "find"]
    assert rows.slice(slice(1, 3)).texts == [("rain falls ",), ("a cat",)]
    assert len({table.text_ids[row].item() for row in range(5)}) == 5  # equal ones may meet in a batch
    assert table.texts_by_side(with_negatives=True) == {
        Side.QUERY: {"a cat", "rain falls "},
        Side.DOCUMENT: {"b \t c", "the sea"},
    }
    assert table.place(1).endswith("a.txt, line 4")
    assert any("not used: id" in remark for remark in table.facts.remarks)
    named = load_triplets([str(tmp_path / "d.tsv")], columns={"text": "body"}, cache_folder=tmp_path / "cache")
    assert named.rows(np.arange(1)).texts == [("n/a",)]
    assert any("only stands for a missing one" in remark for remark in named.facts.remarks)


@pytest.mark.parametrize(
    ("header", "columns", "message"),
    [
        ("anchor\ttext", {}, "no usable columns: it has anchor, text"),
        ("sentence\tsentence1", {}, "no usable columns"),
        ("text\tsentence", {}, "has 'text' and 'sentence'; say in data.columns which of them is the text"),
        ("text\tx", {"text": "text", "anchor": "x"}, "a text alone and others, too: anchor, text"),
        ("title\tx", {"text": "body"}, "looked for body"),
    ],
)
def test_texts_that_might_be_something_else(tmp_path: Path, header: str, columns: dict[str, str], message: str) -> None:
    (tmp_path / "t.tsv").write_text(f"{header}\na\tb\n")
    with pytest.raises(DataError, match=re.escape(message)):
        load_triplets([str(tmp_path / "t.tsv")], columns=columns, cache_folder=tmp_path / "cache")


def test_a_run_takes_texts_or_pairs(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a cat\n")
    (tmp_path / "p.tsv").write_text("anchor\tpositive\na\tb\n")
    with pytest.raises(DataError, match=r"holds pairs, but .*a\.txt holds texts; a run takes one kind"):
        load_triplets([str(tmp_path / "a.txt"), str(tmp_path / "p.tsv")], cache_folder=tmp_path / "cache")
