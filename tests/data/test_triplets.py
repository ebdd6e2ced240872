"""Triplets under any usual name, all faults at once, and a table that stays on disk."""

import gzip
import io
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedsmith.data import triplets as module
from embedsmith.data.triplets import load_triplets
from embedsmith.settings.choices import Side
from embedsmith.settings.data import TrainSource
from embedsmith.support.errors import DataError
from tests.tiny import write_triplets

LAYOUTS = {
    "ours": {"anchor": "a", "positive": "p", "negative": "n"},
    "simcse": {"sent0": "a", "sent1": "p", "hard_neg": "n"},
    "lists": {"query": "a", "pos": ["p"], "neg": ["n"]},
    "with other columns": {"id": 1, "anchor": "a", "positive": "p", "negative": "n", "source": "x"},
}


def _jsonl(path: Path, *rows: dict[str, object]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def _write_anchors(path: Path, anchors: list[str]) -> None:
    rows = [{**LAYOUTS["ours"], "anchor": anchor} for anchor in anchors]
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        _jsonl(path, *rows)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_usual_names_are_read_unasked(tmp_path: Path, cache: Path, layout: str) -> None:
    table = load_triplets([_jsonl(tmp_path / "t.jsonl", LAYOUTS[layout])])
    rows = table.rows(np.array([0]))
    assert (rows.anchors, rows.positives, rows.negatives) == (["a"], ["p"], [["n"]])


def test_names_from_the_recipe(tmp_path: Path, cache: Path) -> None:
    source = _jsonl(tmp_path / "t.jsonl", {"question": "a", "answer": "p"})
    table = load_triplets([source], columns={"anchor": "question", "positive": "answer"})
    assert not table.has_negatives
    assert table.rows(np.array([0])).negatives == [[]]
    assert len(table.text_ids[0]) == 2


def test_every_positive_of_a_list_makes_a_triplet(tmp_path: Path, cache: Path) -> None:
    source = _jsonl(tmp_path / "t.jsonl", {"query": "q", "pos": ["p1", "p2", "p3"], "neg": ["n1", "n2"]})
    rows = load_triplets([source]).rows(np.arange(3))
    assert rows.positives == ["p1", "p2", "p3"]
    assert rows.negatives == [["n1", "n2"]] * 3


def test_all_faults_of_all_files_come_at_once(tmp_path: Path, cache: Path) -> None:
    good = LAYOUTS["ours"]
    first = _jsonl(tmp_path / "1.jsonl", good, {**good, "positive": "  "}, {**good, "negative": 3}, {"anchor": "a"})
    second = _jsonl(tmp_path / "2.jsonl", {"words": "a"})
    third = tmp_path / "3.tsv.gz"
    third.write_bytes(b"not gzip")
    fourth = _jsonl(tmp_path / "4.jsonl", {**good, "anchor": "\ud800"})
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


def test_files_must_agree_on_negatives(tmp_path: Path, cache: Path) -> None:
    with_negative = _jsonl(tmp_path / "1.jsonl", LAYOUTS["ours"])
    without = _jsonl(tmp_path / "2.jsonl", {"anchor": "a", "positive": "p"})
    with pytest.raises(DataError, match=r"2\.jsonl: holds pairs, but .*1\.jsonl holds triplets"):
        load_triplets([with_negative, without])


def test_a_negative_that_only_later_rows_have_is_a_fault(tmp_path: Path, cache: Path) -> None:
    source = _jsonl(tmp_path / "1.jsonl", {"anchor": "a", "positive": "p"}, LAYOUTS["ours"])
    with pytest.raises(DataError, match="line 2: has a 'negative', which the first row has not"):
        load_triplets([source])


def test_what_is_kept_is_named_by_what_is_in_the_files(tmp_path: Path, cache: Path) -> None:
    """A file written anew with the size and the times of the old one is another one."""
    path = tmp_path / "t.jsonl"
    for anchor in ("a", "b"):
        _jsonl(path, {**LAYOUTS["ours"], "anchor": anchor})
        os.utime(path, ns=(1, 1))
        assert load_triplets([str(path)]).rows(np.array([0])).anchors == [anchor]
    _jsonl(path, {**LAYOUTS["ours"], "anchor": "a"})
    assert load_triplets([str(path)]).rows(np.array([0])).anchors == ["a"]
    assert len(list(cache.rglob("*.arrow"))) == 2


def test_everything_a_table_depends_on_is_in_its_name(tmp_path: Path, cache: Path) -> None:
    row = {**LAYOUTS["ours"], "other": "o"}
    one, two = _jsonl(tmp_path / "1.jsonl", row), _jsonl(tmp_path / "2.jsonl", row)
    loads: list[tuple[list[str | TrainSource], dict[str, str]]] = [
        ([one], {}),
        ([two], {}),  # its remarks name the file
        ([one, two], {}),
        ([TrainSource(files=one, instruction="i")], {}),
        ([TrainSource(files=one, instruction="j")], {}),
        ([TrainSource(files=one, symmetric=True)], {}),
        ([one], {"positive": "other"}),
        ([one], {"negative": "other"}),
    ]
    rows = []
    for number, (sources, columns) in enumerate(loads, start=1):
        table = load_triplets(sources, columns=columns)
        rows.append((table.rows(np.arange(len(table))), table.facts))
        assert len(list(cache.rglob("*.arrow"))) == number
    for (sources, columns), expected in zip(loads, rows, strict=True):
        table = load_triplets(sources, columns=columns)
        assert (table.rows(np.arange(len(table))), table.facts) == expected
    assert len(list(cache.rglob("*.arrow"))) == len(loads)


def test_unchanged_files_are_not_read_again(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = _jsonl(tmp_path / "t.jsonl", LAYOUTS["ours"])
    load_triplets([source])
    monkeypatch.setattr(module, "read_rows", lambda *_, **__: pytest.fail("read again"))
    assert load_triplets([source]).rows(np.array([0])).negatives == [["n"]]


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@pytest.mark.parametrize("change", ["written anew", "gone"])
def test_a_file_that_changes_while_it_is_converted_is_refused(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, change: str
) -> None:
    """Else its new rows would be kept under the name of its old ones."""
    path = tmp_path / f"t.{suffix}"

    def write(anchor: str) -> None:
        _write_anchors(path, [anchor] * 3)

    def find_roles_meanwhile(*arguments: Any, **options: Any) -> Any:
        write("new") if change == "written anew" else path.unlink(missing_ok=True)
        return find_roles(*arguments, **options)

    write("old")
    message = rf"t.{suffix}: (has changed while it was read|cannot be read: No such file)"
    find_roles = module.find_roles
    with monkeypatch.context() as meanwhile, pytest.raises(DataError, match=message):
        meanwhile.setattr(module, "find_roles", find_roles_meanwhile)
        load_triplets([str(path)])
    assert not list(cache.rglob("*.arrow"))
    write("old")
    assert load_triplets([str(path)]).rows(np.array([0])).anchors == ["old"]


@pytest.mark.parametrize("kept", [0, 7, 0.3, 0.7, -1, "garbage", "another table"])
def test_a_damaged_table_is_made_anew_and_said(
    tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture, kept: float | str
) -> None:
    rows = [{"anchor": f"a{n}", "positive": f"p{n}", "negative": f"n{n}"} for n in range(100)]
    source = _jsonl(tmp_path / "t.jsonl", *rows)
    load_triplets([source])
    [file] = cache.rglob("*.arrow")
    whole = file.read_bytes()
    if isinstance(kept, str):
        other = io.BytesIO()
        with pa.ipc.new_file(other, pa.schema([("x", pa.int8())])) as writer:
            writer.write_batch(pa.RecordBatch.from_pydict({"x": pa.array([1], pa.int8())}))
        file.write_bytes(other.getvalue() if kept == "another table" else b"garbage" * 1000)
    else:
        file.write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    for _ in range(2):
        assert load_triplets([source]).rows(np.array([99])).negatives == [["n99"]]
    assert caplog.text.count(f"The table kept in {file} is damaged") == 1
    assert file.read_bytes() == whole


def test_many_rows_stay_on_disk(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "many.tsv.gz"
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write("anchor\tpositive\tnegative\n")
        file.writelines(f"anchor {n}\tpositive {n}\tnegative {n % 100}\n" for n in range(200_000))
    table = load_triplets([str(path)])
    before = pa.total_allocated_bytes()
    table = load_triplets([str(path)])
    assert pa.total_allocated_bytes() - before < 100_000
    assert len(table) == 200_000
    usual_pool = pa.default_memory_pool()
    counting_pool = pa.proxy_memory_pool(usual_pool)
    pa.set_memory_pool(counting_pool)
    try:
        assert table.rows(np.array([150_001, 3])).anchors == ["anchor 150001", "anchor 3"]
    finally:
        pa.set_memory_pool(usual_pool)
    assert counting_pool.max_memory() < 100_000
    assert len({number for row in range(200_000) for number in table.text_ids[row].tolist()}) == 400_100
    assert len(table.draw(7)) == 7


def test_unknown_roles_in_columns(cache: Path) -> None:
    with pytest.raises(
        DataError,
        match="names query; it may name anchor, positive, negative, instruction, or sentence1, sentence2, score",
    ):
        load_triplets(["sample"], columns={"query": "x"})


def test_instructions_come_from_the_row_or_else_from_the_source(tmp_path: Path, cache: Path) -> None:
    plain = _jsonl(tmp_path / "1.jsonl", LAYOUTS["ours"])
    own = _jsonl(tmp_path / "2.jsonl", {**LAYOUTS["ours"], "instruction": "find it"})
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
    source = _jsonl(
        tmp_path / "1.jsonl", LAYOUTS["ours"] | {"instruction": "x"}, LAYOUTS["ours"] | {"instruction": field}
    )
    with pytest.raises(DataError) as caught:
        load_triplets([TrainSource(files=source, instruction=f"find {field}"), source])
    assert f"data.train: the instruction of {source} holds {field}, which only a prompt may" in str(caught.value)
    with pytest.raises(DataError) as caught:
        load_triplets([source])
    assert f"{source}, line 2: instruction holds {field}, which only a prompt may: '{field}'" in str(caught.value)


def test_an_instruction_must_be_a_text(tmp_path: Path, cache: Path) -> None:
    source = _jsonl(tmp_path / "1.jsonl", {**LAYOUTS["ours"], "instruction": 3})
    with pytest.raises(DataError, match="line 1: instruction must be a text, but is 3"):
        load_triplets([source])


def _scored(*scores: object) -> list[dict[str, object]]:
    return [{"sentence1": f"a{n}", "sentence2": "b", "score": score} for n, score in enumerate(scores)]


def test_scored_pairs_are_told_by_their_columns(tmp_path: Path, cache: Path) -> None:
    table = load_triplets([_jsonl(tmp_path / "s.jsonl", *_scored(5, "-1.5", 2.25))])
    assert (table.kind, table.has_scores, table.has_negatives) == ("scored pairs", True, False)
    rows = table.rows(np.array([2, 1]))
    assert (rows.anchors, rows.positives, rows.negatives) == (["a2", "a1"], ["b", "b"], [[], []])
    assert rows.scores.tolist() == [2.25, -1.5]


def test_scored_pairs_that_share_a_text_may_meet_in_a_batch(tmp_path: Path, cache: Path) -> None:
    table = load_triplets([_jsonl(tmp_path / "s.jsonl", *_scored(1, 2, 3))])
    assert [table.text_ids[row].tolist() for row in range(3)] == [[0], [1], [2]]


def test_scored_pairs_under_other_names(tmp_path: Path, cache: Path) -> None:
    source = _jsonl(tmp_path / "s.jsonl", {"x": "a", "y": "b", "gold": 1}, {"x": "a", "y": "c", "gold": 2})
    table = load_triplets([source], columns={"sentence1": "x", "sentence2": "y", "score": "gold"})
    assert table.rows(np.arange(2)).scores.tolist() == [1, 2]


def test_triplets_and_pairs_say_so(tmp_path: Path, cache: Path) -> None:
    triplets = load_triplets([_jsonl(tmp_path / "t.jsonl", LAYOUTS["ours"])])
    pairs = load_triplets([_jsonl(tmp_path / "p.jsonl", {"anchor": "a", "positive": "p"})])
    assert (triplets.kind, pairs.kind, triplets.has_scores) == ("triplets", "pairs", False)
    assert triplets.rows(np.array([0])).scores is None


def test_one_run_takes_one_kind(tmp_path: Path, cache: Path) -> None:
    triplets = _jsonl(tmp_path / "t.jsonl", LAYOUTS["ours"])
    scored = _jsonl(tmp_path / "s.jsonl", *_scored(1, 2))
    with pytest.raises(DataError, match=rf"{scored}: holds scored pairs, but {triplets} holds triplets"):
        load_triplets([triplets, scored])


def test_faulty_scored_pairs_are_named(tmp_path: Path, cache: Path) -> None:
    source = _jsonl(tmp_path / "s.jsonl", *_scored(1, "high", None), {"sentence1": " ", "sentence2": "b", "score": 2})
    with pytest.raises(DataError) as caught:
        load_triplets([source])
    for part in ("line 2: score must be a number, but is 'high'", "line 3: score", "line 4: sentence1 is empty"):
        assert part in str(caught.value)
    with pytest.raises(DataError, match="are equal: they order nothing"):
        load_triplets([_jsonl(tmp_path / "e.jsonl", *_scored(3, 3))])


def test_a_smaller_draw_is_part_of_a_larger_one(tmp_path: Path, cache: Path) -> None:
    table = load_triplets([_jsonl(tmp_path / "s.jsonl", *_scored(*range(100)))])
    draws = [table.draw(num).rows(np.arange(num)).scores.tolist() for num in (10, 40)]
    assert draws[0] == draws[1][:10]
    assert len(set(draws[1])) == 40
    assert draws[0] != list(range(10))


def test_drawn_rows_keep_their_text_ids(cache: Path) -> None:
    table = load_triplets(["sample"])
    anchors = table.rows(np.arange(len(table))).anchors
    id_of = {anchor: table.text_ids[row][0] for row, anchor in enumerate(anchors)}
    drawn = table.draw(5)
    assert len(drawn) == 5
    drawn_ids = [drawn.text_ids[row][0] for row in range(5)]
    assert drawn_ids == [id_of[anchor] for anchor in drawn.rows(np.arange(5)).anchors]


def test_rows_know_which_source_they_are_from(tmp_path: Path, cache: Path) -> None:
    """What a glob finds is one source; the same kept table serves another grouping."""
    files = [write_triplets(tmp_path / f"{name}.tsv", num_rows=3, first=3 * index) for index, name in enumerate("abc")]
    apart = load_triplets([str(path) for path in files])
    assert apart.sources.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    grouped = load_triplets([str(tmp_path / "[ab].tsv"), str(files[2])])
    assert len([*cache.rglob("*.arrow")]) == 1
    assert grouped.sources.tolist() == [0] * 6 + [1] * 3
    assert grouped.fingerprint == apart.fingerprint
    assert grouped.source_fingerprint != apart.source_fingerprint
    drawn = grouped.draw(5)
    anchors = [*grouped.rows(np.arange(9)).anchors]
    assert drawn.sources.tolist() == [anchors.index(anchor) // 6 for anchor in drawn.rows(np.arange(5)).anchors]


def test_data_that_is_named_twice_is_refused(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    one = _jsonl(tmp_path / "1.jsonl", LAYOUTS["ours"])
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
